"""The warm engine of this process. Imported first, so that ComfyUI starts while the rest is still being imported.

Imports leave nothing to collect, and looking for it all the same takes a fifth of their time: the garbage collector
rests from here until `imports_done`.

Under Lambda, importing this starts ComfyUI, without waiting for it. Should Lambda run the initialisation a second
time, the new process starts its own: the connector looks for a free port.
"""

from __future__ import annotations

import functools
import gc
import os
from typing import TYPE_CHECKING

from comfy_serverless.settings import Settings

if TYPE_CHECKING:
    from comfy_serverless.connector.connector import ComfyConnector

IS_LAMBDA = "AWS_LAMBDA_RUNTIME_API" in os.environ


def imports_done() -> None:
    """Let the garbage collector work again, on what is made from now on."""
    gc.freeze()
    gc.enable()


@functools.cache
def settings() -> Settings:
    """The environment, read once. A wrong value fails the initialisation, and is named."""
    return Settings.from_environment()


@functools.cache
def connector() -> ComfyConnector:
    """The one connector; it may still be starting ComfyUI."""
    from comfy_serverless.connector.connector import ComfyConnector

    return ComfyConnector(settings=settings(), wait=False)


gc.disable()
if IS_LAMBDA:
    connector()
