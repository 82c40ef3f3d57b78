"""A job's document: `Job`, `Output`, `Progress` and `JobError` of the Comfy API v2, with additions of ours. No IO."""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from operator import itemgetter
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from comfy_serverless.errors import Canceled, ComfyError
from comfy_serverless.files import OutputKind
from comfy_serverless.moments import moment_text

#: How long a result counts as kept. The bucket's lifecycle rule does the deleting.
RETENTION = timedelta(days=30)

#: Lambda's limit is 6,291,556 bytes for the reply as JSON. The difference is our margin.
REPLY_LIMIT_BYTES = 6_000_000
#: Texts in an error (messages, tracebacks, each of the details) are cut to this many characters.
MAX_ERROR_TEXT = 20_000
MAX_ERROR_DETAILS = 200_000
#: Levels of containers in those details. Readers and writers of JSON give up at some hundred.
MAX_ERROR_LEVELS = 32
#: Warnings of a job; of the others it has the number.
MAX_WARNINGS = 100
MAX_WARNING_CHARACTERS = 1000
#: Nodes whose times a job lists, and how long their ids may be: a graph may have 50,000 nodes.
MAX_NODES_TIMED, MAX_NODE_ID = 200, 100
_MORE_WARNINGS = re.compile(r"and (\d{1,9}) more")

#: Fields of an output that hold for one answer: links expire, and the file is in S3.
_OF_ONE_ANSWER = ("url", "url_expires_at", "data_base64", "thumb_url")

Moment = Annotated[datetime, PlainSerializer(moment_text, return_type=str, when_used="json")]


class JobStatus(StrEnum):
    """The Comfy API v2's states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELING = "canceling"
    CANCELED = "canceled"
    FAILED = "failed"
    EXPIRED = "expired"


class _Document(BaseModel):
    # Built with the first job, because every start imports this; ComfyUI is still starting then.
    model_config = ConfigDict(frozen=True, defer_build=True)


class Output(_Document):
    """One file a job made. `s3_uri` and what follows it are ours.

    Attributes:
        url: a presigned link, made anew for every response; null in the stored result and without a bucket.
        hash: the API's blake3 hash; we give `sha256` instead.
        type: a kind that we know; a result that a newer release has written may have others.
        index: position among the outputs of its node.
        data_base64: the file itself, if it fits into the reply.
        thumb_uri: a small WebP of a picture, or of a video's first frame, beside the file; null if there is none.
        thumb_url: a presigned link to that, as `url`.
    """

    node_id: str
    name: str
    type: Annotated[str, Field(json_schema_extra={"enum": list(OutputKind)})]
    content_type: str
    size_bytes: int
    id: str
    hash: str | None = None
    url: str | None = None
    url_expires_at: Moment | None = None
    job_id: str
    s3_uri: str | None = None
    class_type: str = ""
    title: str = ""
    index: int = 0
    sha256: str
    width: int | None = None
    height: int | None = None
    data_base64: str | None = None
    thumb_uri: str | None = None
    thumb_url: str | None = None

    def without_link(self) -> Self:
        """The output as it is kept: links expire, and the file is in S3."""
        return self.model_copy(update=dict.fromkeys(_OF_ONE_ANSWER))

    def to_json(self) -> dict[str, Any]:
        """The output as it is sent. One that is not inline has no `data_base64`."""
        return self.model_dump(mode="json", exclude=None if self.data_base64 is not None else {"data_base64"})

    def to_line(self) -> str:
        """The output as a line of `outputs.jsonl`."""
        absent = _OF_ONE_ANSWER if self.thumb_uri is not None else {*_OF_ONE_ANSWER, "thumb_uri"}
        return self.model_dump_json(exclude=set(absent))


class Progress(_Document):
    """How far a job is."""

    model_config = ConfigDict(frozen=True, from_attributes=True, defer_build=True)

    value: Annotated[float, Field(ge=0, le=1)]
    nodes_done: int
    nodes_total: int
    current_node: str | None = None
    current_node_class: str | None = None
    step: int | None = None
    steps: int | None = None
    message: str | None = None


class JobError(_Document):
    """Why a job failed. `retryable` (may the same request succeed when sent again?) and `details` are ours."""

    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None
    traceback: str | None = None
    retryable: bool = False
    details: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: ComfyError, *, retryable: bool | None = None) -> Self:
        """The reportable form of a failure, long texts cut."""
        details = shorten(error.details)
        traceback = details.pop("traceback", None)
        node_id, class_type = _node_of(error.details)
        return cls(
            code=error.code,
            message=clean(error.message[:MAX_ERROR_TEXT]),
            node_id=_text(node_id),
            class_type=_text(class_type),
            traceback="".join(map(str, traceback)) if isinstance(traceback, list | tuple) else _text(traceback),
            retryable=error.retryable if retryable is None else retryable,
            details=details,
        )


class JobUrls(_Document):
    """The job's addresses in the API of this deployment: host-relative references, as the contract has them."""

    self: str
    events: str
    cancel: str

    @classmethod
    def of(cls, job_id: str) -> Self:
        """Make them for a job."""
        path = f"/api/v2/jobs/{job_id}"
        return cls(self=path, events=f"{path}/events", cancel=f"{path}/cancel")


class Job(_Document):
    """One execution of a workflow, and everything it made. `warnings` and what follows it are ours.

    Attributes:
        warnings: outputs that were not made or not delivered although the job went on, and other notes.
        seeds: the seeds that were drawn, by `node.input`.
        engine: name and version of the engine that executed it.
        release_version: what the image of its worker was built from (`release_file`); null if the image does not say.
        timings_ms: the duration of each step (docs/usage.md says what each means).
        nodes_ms: how long each node ran, by its id: the `MAX_NODES_TIMED` longest; cached nodes are absent.
        cost_usd: what it cost, estimated from the operator's prices; null if there are none, or no worker had it.
        result_uri: where this document is kept; null if it is not kept (see `worker.worker`).
        outputs_total: how many outputs there are, if `outputs` has only the first of them.
        outputs_uri: where all of them are listed then, an `Output` a line.
        request_sha256: of what was asked for (`JobRequest.digest`), in the stored document: a job id counts once, and
            who sends another request under it is told.
    """

    id: str
    status: JobStatus
    created_at: Moment
    started_at: Moment | None = None
    completed_at: Moment | None = None
    expires_at: Moment
    queue_position: int | None = None
    progress: Progress | None = None
    outputs: tuple[Output, ...] = ()
    error: JobError | None = None
    metrics: dict[str, int | None] = Field(default_factory=dict)
    urls: JobUrls
    warnings: tuple[str, ...] = ()
    seeds: dict[str, int] = Field(default_factory=dict)
    engine: str | None = None
    release_version: str | None = None
    timings_ms: dict[str, int] = Field(default_factory=dict)
    nodes_ms: dict[str, int] = Field(default_factory=dict)
    cost_usd: float | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    result_uri: str | None = None
    outputs_total: int | None = None
    outputs_uri: str | None = None
    request_sha256: str | None = None

    @property
    def outputs_made(self) -> int:
        """How many outputs there are, listed here or not."""
        return len(self.outputs) if self.outputs_total is None else self.outputs_total

    def answering(self, asked_sha256: str | None) -> Job:
        """The job as the answer to a request that asks for this: it says so if it was made of something else."""
        if self.request_sha256 is None or asked_sha256 is None or self.request_sha256 == asked_sha256:
            return self
        return self.of_another()

    def of_another(self) -> Job:
        """The job as the answer to another request than it was made of: it says so."""
        what = "job" if self.completed_at is None else "outcome"
        other = (
            f"job_id {self.id} has been used for another request: this is the {what} of that one, and nothing was "
            "run. Send the request again with another job_id, or without one."
        )
        return self.model_copy(update={"warnings": first_warnings([other, *self.warnings])})

    def to_json(self) -> dict[str, Any]:
        """The document as it is sent."""
        document = self.model_dump(mode="json", exclude={"outputs"})
        document["outputs"] = [output.to_json() for output in self.outputs]
        for name in ("release_version", "outputs_total", "outputs_uri", "request_sha256"):
            if document[name] is None:
                del document[name]
        return document

    def to_stored_bytes(self) -> bytes:
        """The document as it is kept: without links, which expire, and without the files themselves."""
        bare = tuple(output.without_link() for output in self.outputs)
        text = json.dumps(self.model_copy(update={"outputs": bare}).to_json(), ensure_ascii=False, indent=1)
        return text.encode("utf-8", errors="replace")


def longest_nodes(node_ms: Mapping[str, int]) -> dict[str, int]:
    """The nodes that took longest, the longest first, with ids that can be written."""
    named = ((node, took_ms) for node, took_ms in node_ms.items() if len(node) <= MAX_NODE_ID and clean(node) == node)
    return dict(heapq.nlargest(MAX_NODES_TIMED, named, key=itemgetter(1)))


def worked_s(timings_ms: Mapping[str, int]) -> float:
    """How long a worker worked on a job, in seconds: all the time that it had it, but for its wait for other jobs."""
    return max(0, timings_ms.get("total", 0) - timings_ms.get("queued", 0)) / 1000


def status_of(error: ComfyError | None) -> JobStatus:
    """The state a job ends in."""
    if error is None:
        return JobStatus.SUCCEEDED
    return JobStatus.CANCELED if isinstance(error, Canceled) else JobStatus.FAILED


def error_envelope(error: ComfyError) -> dict[str, Any]:
    """`{"error": {"code", "message", "details"}}`: the Comfy API v2's response to a request that it refuses."""
    return {
        "error": {
            "code": error.code,
            "message": clean(error.message[:MAX_ERROR_TEXT]),
            "details": shorten(error.details) or None,
        }
    }


def shorten(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details that fit into any reply: JSON values only, long texts cut in the middle, limited in all."""
    short: dict[str, Any] = {}
    left = MAX_ERROR_DETAILS
    for name, value in details.items():
        try:
            plain = _cut(clean(value)) if isinstance(value, str) else _plain(value, _Room(left))
            size = len(json.dumps(plain))
        except _TooLong:
            size = left + 1
        if size > left:
            short["left_out"] = [*short.get("left_out", []), clean(str(name)[:100])][:20]
            continue
        left -= size
        short[clean(str(name)[:100])] = plain
    return short


class _TooLong(Exception):
    """There is no room for a value."""


class _Room:
    """How much of a value's JSON may still come. A workflow may have errors at each of its 50,000 nodes."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def take(self, characters: int) -> None:
        """Count what is at least needed. Raises _TooLong."""
        self._left -= characters
        if self._left < 0:
            raise _TooLong


def _plain(value: object, room: _Room, levels: int = MAX_ERROR_LEVELS) -> object:
    """A value as plain JSON: engines and nodes may report anything. Raises _TooLong as soon as there is no room."""
    room.take(1)
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping() | list() | tuple() if not levels:
            return "…"
        case Mapping():
            return {_text_in(str(key), room): _plain(item, room, levels - 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, room, levels - 1) for item in value]
    return _text_in(str(value), room)


def _text_in(text: str, room: _Room) -> str:
    room.take(len(text))
    return clean(text)


def _cut(text: str) -> str:
    if len(text) <= MAX_ERROR_TEXT:
        return text
    half = MAX_ERROR_TEXT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _node_of(details: Mapping[str, Any]) -> tuple[object, object]:
    """The node that a failure is about, and its class: the one that is named, or the only one with errors."""
    errors = details.get("node_errors")
    if "node_id" not in details and isinstance(errors, Mapping) and len(errors) == 1:
        ((node_id, entry),) = errors.items()
        return node_id, entry.get("class_type") if isinstance(entry, Mapping) else None
    return details.get("node_id"), details.get("class_type")


def _text(value: object) -> str | None:
    return None if value is None else clean(_cut(str(value)))


def first_warnings(warnings: Iterable[str]) -> tuple[str, ...]:
    """The first warnings, none of them too long, and how many more there are. Of what it returns, the same again."""
    more, texts = 0, list[str]()
    for text in warnings:
        if counted := _MORE_WARNINGS.fullmatch(text):
            more += int(counted[1])
        elif len(texts) < MAX_WARNINGS:
            texts.append(text[:MAX_WARNING_CHARACTERS])
        else:
            more += 1
    return (*texts, f"and {more} more") if more else tuple(texts)


def clean(text: str) -> str:
    """Text that can be written as UTF-8: JSON may contain halves of characters."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def shorten_job(job: Job, *, size: Callable[[Job], int], limit_bytes: int) -> Job:
    """A job that is too long, cut to fit: the last outputs are left out first, then all but the error's message."""
    where = "the reply has no room for more"
    if job.result_uri:
        where = f"all are in {'outputs.jsonl, `outputs_uri`' if job.outputs_uri else 'result.json, `result_uri`'}"
    fits, too_many = 0, len(job.outputs)
    shortened = job
    while too_many - fits > 1:
        count = (fits + too_many) // 2
        shortened = _first_outputs(job, count, where)
        fits, too_many = (count, too_many) if size(shortened) <= limit_bytes else (fits, count)
    shortened = _first_outputs(job, fits, where)
    if size(shortened) <= limit_bytes:
        return shortened
    error = job.error and job.error.model_copy(
        update={"message": job.error.message[:2000], "details": {}, "traceback": None}
    )
    return job.model_copy(
        update={"outputs": (), "seeds": {}, "metadata": {}, "error": error, "warnings": (f"shortened; {where}",)}
    )


def _first_outputs(job: Job, count: int, where: str) -> Job:
    note = f"this reply lists {count} of {job.outputs_made} outputs: {where}"
    return job.model_copy(update={"outputs": job.outputs[:count], "warnings": (note, *job.warnings)})
