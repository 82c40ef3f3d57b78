"""What another try can cure: the lines that are worth running again. No IO."""

from __future__ import annotations

from comfy_serverless.errors import DeadlineExceeded, Kind, kind_of
from comfy_serverless.jobs.document import JobStatus

#: The status of lines that are no requests.
BAD = "bad"
#: The statuses of lines that have an outcome, and can be run again under a new id.
REPEATABLE = frozenset({JobStatus.FAILED.value, JobStatus.EXPIRED.value, JobStatus.CANCELED.value})


def is_curable(status: str, code: str, *, retryable: bool) -> bool:
    """Whether another try of the same line may end well.

    It may if the line was canceled or has expired, if nothing is wrong with the request (it was the worker, the engine,
    memory, S3), or if it only needs more time. A node that raises and a graph that ComfyUI refuses do so again.
    """
    if status != JobStatus.FAILED.value:
        return status in REPEATABLE
    return code == DeadlineExceeded.code or kind_of(code, retryable=retryable) is not Kind.REQUEST


def why_not(status: str, code: str) -> str:
    """Why a line that another try cannot cure is left out: a phrase, the same for all lines of one kind."""
    if status == BAD:
        return "no request: mend them and submit those lines"
    return f"{code or status}: the same line would fail again"
