"""Run any ComfyUI workflow from Python, on this machine or on your own AWS account.

    from comfy_serverless import ComfyConnector
    images = ComfyConnector().generate_images(workflow)

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # `typing` takes longer to load than all that is here
if TYPE_CHECKING:
    from typing import Any

    from comfy_serverless.connector.connector import ComfyConnector
    from comfy_serverless.connector.facts import Timings
    from comfy_serverless.connector.outputs import Output
    from comfy_serverless.connector.progress import Progress
    from comfy_serverless.connector.run import Execution
    from comfy_serverless.errors import ComfyError
    from comfy_serverless.files import OutputKind
    from comfy_serverless.settings import Settings

__all__ = ["ComfyConnector", "ComfyError", "Execution", "Output", "OutputKind", "Progress", "Settings", "Timings"]

_HOMES = {
    "ComfyConnector": "connector.connector",
    "ComfyError": "errors",
    "Execution": "connector.run",
    "Output": "connector.outputs",
    "OutputKind": "files",
    "Progress": "connector.progress",
    "Settings": "settings",
    "Timings": "connector.facts",
    # For the connector, which knows no room above its own.
    "workflow_here": "workflows.local",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
