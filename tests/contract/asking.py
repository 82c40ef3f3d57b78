"""What an engine says of its queue. A real ComfyUI on a busy machine may have to be asked again."""

from __future__ import annotations

import time
from typing import Any

from comfy_serverless import ComfyConnector
from comfy_serverless.connector.client import RequestFailed
from tests.patience import PATIENCE_S


def queue(connector: ComfyConnector) -> dict[str, list[Any]]:
    """The prompts in ComfyUI's queue, by `queue_running` and `queue_pending`."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return connector._engine.client.queue()
        except RequestFailed as failed:
            if failed.status is not None or time.monotonic() > end:
                raise
            time.sleep(0.02)


def is_queued(connector: ComfyConnector, prompt_id: str, *names: str) -> bool:
    """Whether a prompt is in the queue; in one of these parts of it, if any are named."""
    found = queue(connector)
    return any(item[1] == prompt_id for name in names or found for item in found[name])
