"""Has ComfyUI forget what it has read, because it keeps models and results by name, whatever the name means now."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from comfy_serverless.connector.run import Execution
from comfy_serverless.errors import DeadlineExceeded, EngineUnavailable
from comfy_serverless.graph.nodes import SMALLEST_GRAPH


class Connector(Protocol):
    """The methods of `comfy_serverless.ComfyConnector` that are needed here."""

    def free(self, *, unload_models: bool, free_memory: bool) -> None: ...
    def wait_ready(self, timeout_s: float | None = None) -> None: ...
    def run(
        self, workflow: Mapping[str, Any], *, deadline_s: float | None = None, apart_as: str | None = None
    ) -> Execution: ...
    def discard(self, prompt_id: str, *, apart_as: str | None = None) -> None: ...


def forget_everything(connector: Connector, *, deadline: float) -> None:
    """Unload all models and drop all cached results; return once no later prompt can meet them.

    ComfyUI only notes the wish (`POST /free`): a prompt that follows at once may still run on what was cached. It acts
    after the prompt that it executes, and prompts run one after the other, so that the end of any prompt sent after the
    wish is the proof. Raises ComfyError if ComfyUI cannot be asked, or does not do it before the deadline.
    """
    connector.wait_ready(max(0.0, deadline - time.monotonic()))
    try:
        connector.free(unload_models=True, free_memory=True)
    except EngineUnavailable as error:
        raise EngineUnavailable(f"ComfyUI could not be asked to forget a model that changes: {error}") from error
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded("The job's time was over before ComfyUI had forgotten a model that changes.")
    name = f"forget-{uuid.uuid4().hex}"
    execution = connector.run(SMALLEST_GRAPH, deadline_s=left_s, apart_as=name)
    connector.discard(execution.prompt_id, apart_as=name)
