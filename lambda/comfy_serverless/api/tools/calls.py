"""Does what a tool is called for, in the name of a key's owner: the same functions as behind the routes.

A tool that runs a workflow makes a job, waits for its end while there is time, and answers what the job has made; else
the job's id. Where the transport streams, `Unfinished` says that the same call goes on with that job.
"""

from __future__ import annotations

import base64
import binascii
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from comfy_serverless.api.assets import UploadBody, target_of
from comfy_serverless.api.jobs import find_job
from comfy_serverless.api.named_runs import NamedRun, start
from comfy_serverless.api.outputs import outputs_page
from comfy_serverless.api.run_bodies import Asked
from comfy_serverless.api.tools.generic import (
    INLINE_BYTES,
    MAX_SENT_BYTES,
    CancelJob,
    GetJob,
    GetOutputs,
    ListJobs,
    UploadFile,
    arguments_of,
)
from comfy_serverless.api.tools.results import ToolResult, of_job, of_jobs, of_outputs
from comfy_serverless.api.waiting import age_s, wait_for
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound, TooLarge
from comfy_serverless.files import UNKNOWN_TYPE, type_of_name
from comfy_serverless.jobs.document import Job, JobStatus
from comfy_serverless.jobs.request import problem_in_words
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.asset_names import digest_of
from comfy_serverless.table.assets import Naming
from comfy_serverless.workflows.reference import Reference

if TYPE_CHECKING:
    from comfy_serverless.api.auth import Caller
    from comfy_serverless.api.services import Services
    from comfy_serverless.table.job_state import JobState

#: The part of an invocation that is kept back to fetch what comes with the answer.
ANSWER_RESERVE_S = 4.0
#: How old a job may be whose call still goes on, where the transport streams; then it is left to `get_job`.
LONGEST_STREAM_S = 600.0


class NoSuchWorkflow(Exception):
    """There is no workflow that a tool of this name would run."""


class Unfinished(Exception):
    """The job of a call still waits or runs, and its answer is a stream: the call goes on later.

    Attributes:
        job_id: of the job.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request of an agent.

    Attributes:
        until: when it must be answered, on the monotonic clock.
        tell: hears how the job is, each time that it is looked at.
        is_streamed: whether a job that goes on is asked after again, in the same call.
        job_id: of the job that this call has made before.
    """

    services: Services
    caller: Caller
    until: float
    tell: Callable[[JobState], None] = lambda _state: None
    is_streamed: bool = False
    job_id: str | None = None


def run(workflow: str, values: Mapping[str, Any], visit: Visit) -> ToolResult:
    """Run a named workflow.

    Raises:
        NoSuchWorkflow: the caller has none of this name, and the operator shares none.
        ComfyError: it is refused: inputs that do not fit, no room for the job, and so on.
        Unfinished: the job goes on, and so does the call.
    """
    behind = visit.services
    if visit.job_id is not None:
        state = find_job(visit.job_id, visit.caller, behind, read=behind.jobs.read_alone)
    else:
        try:
            state = start(_asked(workflow, values, visit), behind).state
        except NotFound as error:
            raise NoSuchWorkflow(workflow) from error
    return _at_end(state, visit, until=visit.until, is_run=True)


def _asked(workflow: str, values: Mapping[str, Any], visit: Visit) -> NamedRun:
    return NamedRun(
        reference=Reference(workflow),
        asked=Asked(inputs=values),
        caller=visit.caller,
        sticky=stickiness(visit),
    )


def stickiness(visit: Visit) -> str:
    """What decides between two versions of a workflow: a key sees one of them, in the list of tools and in runs."""
    return visit.caller.key_id or visit.caller.owner


def call(name: str, arguments: dict[str, Any], visit: Visit) -> ToolResult:
    """Call one of the tools that everybody has. Raises ComfyError for what does not fit, and for what is not there."""
    match arguments_of(name, arguments):
        case GetJob(job_id=job_id, wait_s=wait_s):
            state = find_job(job_id, visit.caller, visit.services, read=visit.services.jobs.read_alone)
            return _at_end(state, visit, until=min(visit.until, time.monotonic() + wait_s))
        case CancelJob(job_id=job_id):
            return _cancel(job_id, visit)
        case GetOutputs() as asked:
            return _outputs(asked, visit)
        case ListJobs() as asked:
            return _jobs(asked, visit)
        case UploadFile() as file:
            return _upload(file, visit)
    raise AssertionError(name)  # `arguments_of` knows no others


def _at_end(state: JobState, visit: Visit, *, until: float, is_run: bool = False) -> ToolResult:
    """The job when it is over, or as it is at a moment."""
    jobs = visit.services.jobs

    def look(job_id: str) -> JobState | None:
        seen = jobs.read_alone(job_id)
        if seen is not None:
            visit.tell(seen)
        return seen

    visit.tell(state)
    state = wait_for(state, look=look, enough=lambda seen: seen.is_over, until=until)
    if is_run and visit.is_streamed and not state.is_over and age_s(state) < LONGEST_STREAM_S:
        raise Unfinished(state.id)
    job = (jobs.read(state.id) or state).document()
    return of_job(job, visit.services, inline_bytes=INLINE_BYTES, names=_names(job, visit), is_run=is_run)


def _names(job: Job, visit: Visit) -> dict[str, str]:
    """What the author of a job's workflow calls the outputs of its nodes."""
    workflow, version = job.metadata.get("workflow", ""), job.metadata.get("version", "")
    if job.status is not JobStatus.SUCCEEDED or not workflow or not version.isdecimal():
        return {}
    try:
        reference = Reference.parse(f"{workflow}@{version}")
        found = visit.services.named.find(reference, owner=visit.caller.owner, key="")
    except ComfyError:  # labels of the caller's own, or the workflow is gone
        return {}
    return {output.node_id: output.name for output in found.outputs}


def _cancel(job_id: str, visit: Visit) -> ToolResult:
    jobs = visit.services.jobs
    state = jobs.cancel(find_job(job_id, visit.caller, visit.services, read=jobs.read))
    if state.status is JobStatus.CANCELED:
        visit.services.care.call_webhook(state)
    return of_job(state.document(), visit.services, inline_bytes=0)


def _outputs(asked: GetOutputs, visit: Visit) -> ToolResult:
    page = outputs_page(asked.job_id, visit.caller, visit.services, start=int(asked.cursor or 0), limit=asked.limit)
    found = of_outputs(page.outputs, visit.services, inline_bytes=asked.inline_bytes)
    words = found.texts[0] or "The job has made nothing (yet): get_job says how it is."
    if page.end is None:
        return ToolResult(**_parts(found) | {"texts": (words, *found.texts[1:])})
    more = f'There are more: call get_outputs with "cursor": "{page.end}".'
    data = {**found.data, "next_cursor": str(page.end)}
    return ToolResult(**_parts(found) | {"texts": (f"{words}\n{more}", *found.texts[1:]), "data": data})


def _parts(result: ToolResult) -> dict[str, Any]:
    return {"texts": result.texts, "data": result.data, "pictures": result.pictures, "links": result.links}


def _jobs(asked: ListJobs, visit: Visit) -> ToolResult:
    entries, _ = visit.services.jobs.page(
        visit.caller.owner,
        labels={"workflow": asked.workflow} if asked.workflow else {},
        status=asked.status,
        limit=asked.limit,
        before=None,
    )
    return of_jobs(
        {
            "job_id": entry.id,
            "status": str(entry.status),
            "created_at": entry.created_at,
            "workflow": dict(entry.labels).get("workflow"),
        }
        for entry in entries
    )


def _upload(file: UploadFile, visit: Visit) -> ToolResult:
    """Keep a file, or tell where its bytes go, or take over what has come there."""
    behind, owner = visit.services, visit.caller.owner
    if file.upload_id is not None:
        _refuse_beside(file, "upload_id", "name", "data", "content_type", "size_bytes")
        return _kept(behind.uploads.complete(behind.uploads.get(owner, file.upload_id.lower())))
    if file.name is None:
        raise InvalidRequest("give the `name` of the file, or the `upload_id` of one that was sent by a link.")
    if file.data is not None:
        _refuse_beside(file, "data", "size_bytes")
        content = _bytes_of(file.data)
        naming = _body(file, size_bytes=max(1, len(content)))
        stored = Naming(file_path=naming.file_path, content_type=naming.content_type, tags=(), expires_in_s=None)
        return _kept(behind.assets.store(owner, io.BytesIO(content), digest_of(io.BytesIO(content)), stored))
    if file.size_bytes is None:
        raise InvalidRequest("give the bytes as `data`, or `size_bytes` for a link that they are sent to.")
    if file.size_bytes > behind.settings.max_upload_bytes:
        raise TooLarge(
            f"the file has {file.size_bytes:,} bytes; at most {behind.settings.max_upload_bytes:,} may be uploaded "
            "(MAX_UPLOAD_BYTES)."
        )
    body = _body(file, size_bytes=file.size_bytes)
    announced = Naming(file_path=body.file_path, content_type=body.content_type, tags=(), expires_in_s=None)
    target = target_of(behind.uploads.begin(owner, announced, size_bytes=body.size_bytes, expected=None), behind)
    data = target.model_dump(include={"method", "url", "headers", "expires_at"}) | {"upload_id": target.id}
    headers = ", ".join(f"{name}: {value}" for name, value in target.headers.items())
    words = (
        f"{target.method} the bytes, with the headers {headers}, to this address until {target.expires_at}; then call "
        f'upload with {{"upload_id": "{target.id}"}}:\n{target.url}'
    )
    return ToolResult(texts=(words,), data=data)


def _refuse_beside(file: UploadFile, given: str, *others: str) -> None:
    beside = [name for name in others if getattr(file, name) is not None]
    if beside:
        raise InvalidRequest(f"`{given}` goes without {', '.join(f'`{name}`' for name in beside)}.")


def _bytes_of(data: str) -> bytes:
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"`data` is not base64: {error}.") from error
    if len(content) > MAX_SENT_BYTES:
        raise TooLarge(f"`data` has {len(content):,} bytes; at most {MAX_SENT_BYTES:,}: give `size_bytes` for a link.")
    return content


def _body(file: UploadFile, *, size_bytes: int) -> UploadBody:
    """The name, type and size of a file, as the API takes them. Raises InvalidRequest."""
    kind = file.content_type or type_of_name(file.name or "") or UNKNOWN_TYPE
    try:
        return UploadBody(file_path=file.name, content_type=kind, size_bytes=size_bytes)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [
            {
                "field": {"file_path": "name"}.get(str(entry["loc"][0]), str(entry["loc"][0])),
                "problem": problem_in_words(entry["type"], entry["msg"]),
            }
            for entry in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidRequest("the file cannot be kept so.", details={"errors": problems}) from None


def _kept(asset: Asset) -> ToolResult:
    kept = f"Kept {asset.size_bytes:,} bytes as {asset.file_path!r}"
    data = {
        "asset_id": asset.id,
        "name": asset.file_path,
        "content_type": asset.content_type,
        "size_bytes": asset.size_bytes,
    }
    return ToolResult(texts=(f"{kept}: give this name to an input of a workflow that takes a file.",), data=data)
