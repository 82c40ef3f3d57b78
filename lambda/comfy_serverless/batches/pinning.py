"""The version of a named workflow that a line runs: decided as the line is read, and kept with its job. No IO.

    "poster" ──► poster@3        the version that the name means now, for the id of the line's job
    "poster" ──► poster.json     the file in WORKFLOWS_DIR: workers of every release know it by this name

So a batch that is read while an alias moves has lines of two versions, and each says which; a job that is parked, sent
again or retried runs the version that it had. A line that a name does not lead anywhere for, or whose inputs do not fit,
is a bad one; that is kept in the table with the others (`BatchStore.mark_read`), because another day it may be a good one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.jobs.named import VERSION_LABEL, WORKFLOW_LABEL, NamedWorkflows, pinned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comfy_serverless.jobs.request import JobRequest

#: The ending of a file in WORKFLOWS_DIR, which no named workflow has.
_FILE = ".json"


def pin(request: JobRequest, named: NamedWorkflows | None, *, owner: str) -> JobRequest:
    """The request of a line, with the version of its workflow in its name, if it names one, and its labels.

    Raises:
        InvalidRequest: there is no such workflow, or the inputs do not fit.
        ComfyError: it cannot be looked up now.
    """
    if named is None or not request.is_named:
        return request
    try:
        found = pinned(named, request, owner=owner, key=str(request.job_id))
    except ComfyError as error:
        if error.retryable or isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(error.message, details=error.details) from error
    workflow = str(found.workflow)
    if workflow.endswith("@0") and _brings_files_alone(request):
        return found.model_copy(update={"workflow": workflow.removesuffix("@0") + _FILE})
    return found


def _brings_files_alone(request: JobRequest) -> bool:
    """Whether workers of every release know its inputs: files, by addresses in the graph."""
    values = [item for given in request.inputs.values() for item in (given if isinstance(given, list) else [given])]
    return all("." in name for name in request.inputs) and all(isinstance(value, str) for value in values)


def pin_of(request: JobRequest, labels: Mapping[str, str]) -> str | None:
    """The name with which another try of a line runs the version that its job ran; None if it needs no other name.

    Args:
        labels: of the job: they say what it ran.
    """
    version, name = labels.get(VERSION_LABEL, ""), str(request.workflow).partition("@")[0]
    is_pinned = request.is_named and labels.get(WORKFLOW_LABEL) == name and version.isdecimal() and int(version) > 0
    return f"{name}@{version}" if is_pinned else None
