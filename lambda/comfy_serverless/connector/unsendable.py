"""Whether ComfyUI's own last words say that it could not send what a node has shown. No IO.

What a node returns to be shown goes to its clients as JSON, and ComfyUI does not look whether it can: bytes or a tensor
in it end its event loop, and with that the process, or at least its answers (0.3.64, 0.33.0). Messages are sent in
their order: where events of a run have come, the message that could not be sent was behind them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from comfy_serverless.errors import ComfyError, DeadlineExceeded, EngineCrashed, EngineStalled, NodeExecutionError

#: A traceback of ComfyUI's main thread, whose loop has ended as it sent a message; and how Python names the reason.
_BEGIN = "Traceback (most recent call last):"
_ON_THE_WAY = ("event_loop.run_until_complete", " in publish_loop", " in send_json", "json/encoder.py")
_REASON = re.compile(r"(?P<type>TypeError|ValueError|OverflowError|RecursionError): (?P<why>.{1,300})")


def reason_in(lines: Sequence[str]) -> tuple[str, str] | None:
    """The type and the message of the exception that ended the event loop as it sent a message; None if none did."""
    begun: list[str] | None = None
    for line in lines:
        if line.startswith(_BEGIN):
            begun = []
        elif begun is not None and (match := _REASON.match(line)):
            text = "\n".join(begun)
            if all(part in text for part in _ON_THE_WAY):
                return match["type"], match["why"]
            begun = None
        elif begun is not None:
            begun.append(line)
    return None


def explained(error: ComfyError, lines: Sequence[str], *, node_id: str, class_type: str) -> ComfyError:
    """The error with which a run ended, or the one that says more: ComfyUI could not send what was shown.

    Args:
        lines: the last that its process has written.
        node_id, class_type: the node of the run that began last, by its events.
    """
    is_end = isinstance(error, EngineCrashed | EngineStalled | DeadlineExceeded) and "node_id" not in error.details
    found = reason_in(lines) if is_end else None
    if found is None:
        return error
    told, why = found
    return NodeExecutionError(
        f"ComfyUI has ended because it could not send what a node shows ({told}: {why}); node {node_id} ({class_type}) "
        "was the last to begin. What a node shows (`ui`) may be texts, numbers, and lists and objects of them.",
        details={
            "node_id": node_id,
            "class_type": class_type,
            "exception_type": told,
            "exception_message": why,
            "ended_as": error.code,
        },
    )
