"""The version of a named workflow that a line runs: decided as the line is read, and kept with its job.

    "poster" ──► poster@3        the version that the name means now, for the id of the line's job
    "poster" ──► poster.json     the file in WORKFLOWS_DIR: so it is no workflow's that is pushed meanwhile

So a batch that is read while an alias moves has lines of two versions, and each says which; a job that is parked, sent
again or retried runs the version that it had. A line whose name leads nowhere, or whose inputs do not fit, is a bad
one; that is kept in the table with the others (`BatchStore.bad_between`), because another day it may be a good one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import S3Address, Trouble, trouble_of
from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.jobs.lines import LineAddress, document_of
from comfy_serverless.jobs.named import VERSION_LABEL, WORKFLOW_LABEL, NamedWorkflows, pinned
from comfy_serverless.jobs.named_lines import is_named
from comfy_serverless.jobs.request import MAX_LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.table.job_state import JobState

#: The ending of a file in WORKFLOWS_DIR, which no named workflow has, and of what is found there; and how a workflow of
#: the operator's begins.
_FILE, _AT_0, _SHARED = ".json", "@0", "shared/"


def pin(request: JobRequest, named: NamedWorkflows, *, owner: str) -> JobRequest:
    """The request of a line, with the version of its workflow in its name, if it names one, and its labels.

    Raises:
        InvalidRequest: there is no such workflow, or the inputs do not fit.
        ComfyError: it cannot be looked up now.
    """
    if not request.is_named:
        return request
    try:
        found = pinned(named, request, owner=owner, key=str(request.job_id))
    except ComfyError as error:
        if error.retryable or isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(error.message, details=error.details) from error
    workflow = str(found.workflow)
    if workflow.endswith(_AT_0) or "@" not in workflow:
        workflow = workflow.removesuffix(_AT_0).removesuffix(_FILE) + _FILE
    labels = {**found.metadata, **_labels_of(workflow)}
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"`metadata` has no room for the labels {WORKFLOW_LABEL!r} and {VERSION_LABEL!r}.")
    return found.model_copy(update={"workflow": workflow, "metadata": labels})


def _labels_of(workflow: str) -> dict[str, str]:
    """The labels of a job with a pinned name, as the worker gives them to it, too."""
    name, _, version = workflow.removeprefix(_SHARED).removesuffix(_FILE).partition("@")
    return {WORKFLOW_LABEL: name, VERSION_LABEL: version or "0"}


def labels_of_job(request: JobRequest, state: JobState) -> Mapping[str, str]:
    """The labels of a line, and those that say which version of a named workflow its job ran."""
    told = (WORKFLOW_LABEL, VERSION_LABEL) if request.is_named else ()
    return {**request.metadata, **{name: state.labels[name] for name in told if name in state.labels}}


class Pins:
    """Reads what the lines of jobs were pinned to: a chunk of lines at a time, because they are written so."""

    def __init__(self, s3: S3Client) -> None:
        self._s3 = s3
        self._address: S3Address | None = None
        self._content = b""

    def of(self, request: JobRequest, state: JobState | None) -> str | None:
        """The name with which another try of a line runs the version that its job ran; None if it is as in the line."""
        line = LineAddress.parse(S3Address.parse(state.request)) if state is not None and request.is_named else None
        if line is None or not (is_named(line) or line.is_stored):
            return None
        content = self._read(line.manifest)[line.offset : line.offset + line.length]
        document: Any = document_of(content) if content else {}
        workflow = document.get("pin" if line.is_stored else "workflow")
        return workflow if isinstance(workflow, str) else None

    def _read(self, address: S3Address) -> bytes:
        """The lines at an address; b"" if they are gone."""
        if address != self._address:
            try:
                self._content = self._s3.get_object(Bucket=address.bucket, Key=address.key)["Body"].read()
            except ClientError as error:
                if trouble_of(error) is not Trouble.MISSING:
                    raise
                self._content = b""
            self._address = address
        return self._content
