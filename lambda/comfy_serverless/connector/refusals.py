"""What ComfyUI says against a workflow, or of a failed run, put into our failure classes. No IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from comfy_serverless.errors import ComfyError, InvalidWorkflow, NodeExecutionError, OutOfMemory

_MEMORY_EXCEPTIONS = ("OutOfMemoryError", "MemoryError")
#: Of the GPU, and of the host: torch says "can't allocate memory" there.
_MEMORY_MESSAGES = ("out of memory", "allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def refusal(error: Mapping[str, Any] | None, node_errors: Mapping[str, Any]) -> InvalidWorkflow:
    """The exception for a `POST /prompt` that was refused: every error of every node, in one message."""
    error = error or {}
    lines = list(node_error_lines(node_errors))
    if not lines:
        details = str(error.get("details") or "").strip()
        message = str(error.get("message") or "ComfyUI refused the workflow").rstrip(".")
        lines = [f"{message}: {details}" if details else message]
    return InvalidWorkflow("; ".join(lines), details={"error": dict(error), "node_errors": dict(node_errors)})


def node_error_lines(node_errors: Mapping[str, Any]) -> Iterator[str]:
    """One line for each error of each node, as a person reads it."""
    for node_id, found in node_errors.items():
        for error in found.get("errors") or ():
            text = str(error.get("message") or error.get("type") or "is refused")
            details = str(error.get("details") or "").strip()
            yield f"Node {node_id} ({found.get('class_type', '?')}): {text}" + (f": {details}" if details else "")


def execution_failure(data: Mapping[str, Any], *, node_id: str, class_type: str) -> ComfyError:
    """The exception for an `execution_error` event.

    Args:
        data: the event's data.
        node_id: the node of the submitted graph it happened in.
        class_type: that node's class.
    """
    exception_type = str(data.get("exception_type") or "Exception")
    message = str(data.get("exception_message") or "").strip() or "no message"
    details = {
        "node_id": node_id,
        "class_type": class_type,
        "exception_type": exception_type,
        "exception_message": message,
        "traceback": "".join(data.get("traceback") or ()),
    }
    text = f"Node {node_id} ({class_type}) raised {exception_type}: {message}"
    if exception_type.endswith(_MEMORY_EXCEPTIONS) or any(hint in message for hint in _MEMORY_MESSAGES):
        return OutOfMemory(text, details=details)
    return NodeExecutionError(text, details=details)


def describe_exit(exit_code: int | None) -> str:
    """An exit code for people; negative codes are signals, and -9 mostly means "out of host memory"."""
    if exit_code is None:
        return "exit code unknown"
    if exit_code == -9:
        return "killed by signal 9: often the host ran out of memory"
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
