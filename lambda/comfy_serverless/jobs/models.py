"""A job from request to result, as data: what comes in (`JobRequest`) and what goes out (`Job`).

`Job`, `Output`, `Progress` and `JobError` are the Comfy API v2's, field for field, with additions of ours. Nothing
here does IO.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, field_validator

from comfy_serverless.errors import Canceled, ComfyError, InvalidRequest

JOB_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
#: How long a result counts as kept. The bucket's lifecycle rule does the deleting.
RETENTION = timedelta(days=30)

#: S3 takes keys of 1,024 bytes, and what comes after the prefix may have half of them.
MAX_PREFIX_BYTES = 512
MAX_LABELS = 50
MAX_LABEL_CHARACTERS = 1024
#: Texts in an error (messages, tracebacks, each of the details) are cut to this many characters.
MAX_ERROR_TEXT = 20_000
MAX_ERROR_DETAILS = 200_000
#: Containers inside containers in those details. Readers and writers of JSON give up at some hundred.
MAX_ERROR_LEVELS = 32

#: Wrong fields that are named; the others of a huge request only cost time.
MAX_REQUEST_ERRORS = 100

Label = Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)]
ReplyMode = Literal["auto", "inline", "links"]


def _utc_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_utc_text, return_type=str, when_used="json")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OutputTarget(_Request):
    """Where results go instead of `OUTPUT_BUCKET` and `OUTPUT_PREFIX`."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    prefix: str | None = None

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str | None) -> str | None:
        if prefix is None:
            return None
        if len(prefix.encode()) > MAX_PREFIX_BYTES:
            raise ValueError(f"should have at most {MAX_PREFIX_BYTES} bytes")
        if not prefix.isprintable() or any(part in {".", ".."} for part in prefix.split("/")) or "//" in prefix:
            raise ValueError("must be a plain folder like 'team/results': no '.', '..', '//' or control characters")
        return prefix


class JobRequest(_Request):
    """What somebody wants done.

    Attributes:
        job_id: names the job; the same id never runs twice. Drawn, or derived from the event, when absent.
        workflow: an API-format graph, `s3://bucket/key.json`, or the name of a file in `WORKFLOWS_DIR`.
        values: `set` in JSON: `{"3.seed": 42}`, put into the graph before it runs.
        inputs: `{"10.image": "s3://…"}`, fetched and given to the node.
        deadline_s: seconds the job may take, from the moment it is taken up.
        reply: whether the reply carries the outputs themselves ("inline"), links to them ("links"), or small
            images and texts inline and links to everything ("auto").
        metadata: labels that come back with the job.
    """

    job_id: Annotated[str, Field(pattern=JOB_ID_PATTERN)] | None = None
    workflow: dict[str, Any] | str
    values: dict[str, Any] = Field(default_factory=dict, alias="set")
    inputs: dict[str, str] = Field(default_factory=dict)
    output: OutputTarget = Field(default_factory=OutputTarget)
    deadline_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    reply: ReplyMode = "auto"
    metadata: Annotated[dict[Label, Label], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)

    @field_validator("workflow", mode="before")
    @classmethod
    def _check_workflow(cls, workflow: object) -> object:
        if isinstance(workflow, dict) or (isinstance(workflow, str) and workflow):
            return workflow
        raise ValueError("must be an API-format workflow, an s3:// address of one, or the name of one in WORKFLOWS_DIR")

    @classmethod
    def parse(cls, payload: object) -> Self:
        """Read a request. A workflow standing alone is taken as a request to run it.

        Raises:
            InvalidRequest: naming every field that is wrong, in `details["errors"]` too.
        """
        if not isinstance(payload, Mapping):
            raise InvalidRequest(
                'A job request is a JSON object: {"workflow": …, "set": {…}, "inputs": {…}},'
                f" not {_json_kind(payload)}."
            )
        if is_bare_workflow(payload):
            payload = {"workflow": dict(payload)}
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            raise _invalid_request(error, payload) from None


def is_bare_workflow(payload: Mapping[str, Any]) -> bool:
    """Whether a payload is a workflow rather than a request: API format, the editor's, or a /prompt body."""
    if "workflow" in payload:
        return False
    if isinstance(payload.get("nodes"), list) or isinstance(payload.get("prompt"), Mapping):
        return True
    return any(isinstance(node, Mapping) and "class_type" in node for node in payload.values())


def _invalid_request(error: ValidationError, payload: Mapping[str, Any]) -> InvalidRequest:
    entries = error.errors(include_url=False, include_context=False, include_input=False)
    told = {  # a field may be wrong in several ways: one is enough
        _field_name(entry["loc"]): _problem(entry["type"], entry["msg"], entry["loc"])
        for entry in entries[:MAX_REQUEST_ERRORS]
    }
    problems = [{"field": field, "problem": problem} for field, problem in told.items()]
    listing = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems[:20])
    job_id = payload.get("job_id")
    return InvalidRequest(
        f"The job request cannot be used: {listing}."[:MAX_ERROR_TEXT],
        details={"errors": problems, **({"job_id": job_id} if isinstance(job_id, str) else {})},
    )


def _field_name(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location if part not in {"dict[str,any]", "str", "[key]"}]
    return ".".join(parts)[:200] or "request"


def _problem(kind: str, message: str, location: tuple[int | str, ...]) -> str:
    if kind == "missing":
        return "is required"
    if kind != "extra_forbidden":
        return message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")[:300]
    model = OutputTarget if location[0] == "output" else JobRequest
    names = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1])[:100], names, n=1, cutoff=0.5)
    return (
        f"is not a field of a request; did you mean {near[0]!r}?"
        if near
        else (f"is not a field of a request; it has {', '.join(names)}")
    )


def _json_kind(value: object) -> str:
    kinds = {str: "a string", list: "a list", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


class JobStatus(StrEnum):
    """The Comfy API v2's states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELING = "canceling"
    CANCELED = "canceled"
    FAILED = "failed"
    EXPIRED = "expired"


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Output(_Answer):
    """One file a job made. `s3_uri` and what follows it are ours.

    Attributes:
        url: a presigned link, made anew with every answer; null in the stored result and without a bucket.
        hash: the API's blake3 hash; we give `sha256` instead.
        index: position among the outputs of its node.
        data_base64: the file itself, where it fits into the reply.
    """

    node_id: str
    name: str
    type: Literal["image", "video", "audio", "text", "file", "latent"]
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


class Progress(_Answer):
    """How far a job is."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    value: Annotated[float, Field(ge=0, le=1)]
    nodes_done: int
    nodes_total: int
    current_node: str | None = None
    current_node_class: str | None = None
    step: int | None = None
    steps: int | None = None
    message: str | None = None


class JobError(_Answer):
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
        return cls(
            code=error.code,
            message=clean(error.message[:MAX_ERROR_TEXT]),
            node_id=_text(details.get("node_id")),
            class_type=_text(details.get("class_type")),
            traceback="".join(map(str, traceback)) if isinstance(traceback, list | tuple) else _text(traceback),
            retryable=error.retryable if retryable is None else retryable,
            details=details,
        )


class JobUrls(_Answer):
    """Where the API of this deployment answers for the job: host-relative references, as the API has them."""

    self: str
    events: str
    cancel: str

    @classmethod
    def of(cls, job_id: str) -> Self:
        """The references for a job."""
        path = f"/api/v2/jobs/{job_id}"
        return cls(self=path, events=f"{path}/events", cancel=f"{path}/cancel")


class Job(_Answer):
    """One execution of a workflow, and everything it made. `warnings` and what follows it are ours.

    Attributes:
        warnings: what was not made or not delivered although the job went on, and what to know.
        seeds: the seeds that were drawn, by `node.input`.
        engine: name and version of what executed it.
        timings_ms: where the time went.
        result_uri: where this document is kept; null where it is not (see `jobs.worker`).
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
    timings_ms: dict[str, int] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict)
    result_uri: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The document as it is sent. Outputs that are not inline have no `data_base64`."""
        document = self.model_dump(mode="json")
        for output in document["outputs"]:
            if output["data_base64"] is None:
                del output["data_base64"]
        return document

    def to_stored_bytes(self) -> bytes:
        """The document as it is kept: without links, which expire, and without the files themselves."""
        bare = tuple(
            output.model_copy(update={"url": None, "url_expires_at": None, "data_base64": None})
            for output in self.outputs
        )
        text = json.dumps(self.model_copy(update={"outputs": bare}).to_json(), ensure_ascii=False, indent=1)
        return text.encode("utf-8", errors="replace")


def status_of(error: ComfyError | None) -> JobStatus:
    """The state a job ends in."""
    if error is None:
        return JobStatus.SUCCEEDED
    return JobStatus.CANCELED if isinstance(error, Canceled) else JobStatus.FAILED


def error_envelope(error: ComfyError) -> dict[str, Any]:
    """`{"error": {"code", "message", "details"}}`: the Comfy API v2's answer to a request it refuses."""
    return {
        "error": {
            "code": error.code,
            "message": clean(error.message[:MAX_ERROR_TEXT]),
            "details": shorten(error.details) or None,
        }
    }


def shorten(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details that fit into any reply: JSON values only, long texts cut in the middle, and never too many."""
    short: dict[str, Any] = {}
    left = MAX_ERROR_DETAILS
    for name, value in details.items():
        plain = _plain(value)
        if isinstance(plain, str):
            plain = _cut(plain)
        size = len(json.dumps(plain))
        if size > left:
            short["left_out"] = [*short.get("left_out", []), clean(str(name)[:100])][:20]
            continue
        left -= size
        short[clean(str(name)[:100])] = plain
    return short


def _plain(value: object, levels: int = MAX_ERROR_LEVELS) -> object:
    """A value as JSON that everybody can write and read again: what engines and nodes report may be anything."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping() | list() | tuple() if not levels:
            return "…"
        case Mapping():
            return {clean(str(key)): _plain(item, levels - 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, levels - 1) for item in value]
    return clean(str(value))


def _cut(text: str) -> str:
    if len(text) <= MAX_ERROR_TEXT:
        return text
    half = MAX_ERROR_TEXT // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _text(value: object) -> str | None:
    return None if value is None else clean(_cut(str(value)))


def clean(text: str) -> str:
    """Text that can be written as UTF-8: JSON may smuggle halves of characters in."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
