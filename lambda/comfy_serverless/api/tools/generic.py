"""The tools that everybody has: what they are called, say, and take. No IO."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from comfy_serverless.api.field_problems import field_problems
from comfy_serverless.api.tools.catalogue import Tool
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.request import JOB_ID_PATTERN

#: How long a call waits for its job, in seconds: API Gateway ends a request after 30, of which a start takes some.
WAIT_S: Final = 20
#: Bytes of pictures and sounds that come with an answer, unless `get_outputs` is asked for more: clients take 1 MB.
INLINE_BYTES, MOST_INLINE_BYTES = 600_000, 3_000_000
#: Bytes of a file that comes as base64; a larger one goes to S3 itself, by a link.
MAX_SENT_BYTES: Final = 3_000_000
MAX_PAGE, DEFAULT_PAGE = 50, 20

JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN, description="The job's id, as the tool that runs it answered it.")]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GetJob(_Arguments):
    """The arguments of `get_job`."""

    job_id: JobId
    wait_s: Annotated[int, Field(ge=0, le=WAIT_S, description="How long to wait for the job's end, in seconds.")] = (
        WAIT_S
    )


class CancelJob(_Arguments):
    """The arguments of `cancel_job`."""

    job_id: JobId


class GetOutputs(_Arguments):
    """The arguments of `get_outputs`."""

    job_id: JobId
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description="How many outputs to list.")] = DEFAULT_PAGE
    cursor: Annotated[str | None, Field(pattern=r"^[0-9]{1,12}$", description="`next_cursor` of the page before.")] = (
        None
    )
    inline_bytes: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_INLINE_BYTES,
            description="Pictures, sounds and texts come with the answer while they have no more bytes together.",
        ),
    ] = INLINE_BYTES


class ListJobs(_Arguments):
    """The arguments of `list_jobs`."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description="How many jobs to list.")] = DEFAULT_PAGE
    status: Annotated[
        Literal["queued", "running", "succeeded", "canceling", "canceled", "failed", "expired"] | None,
        Field(description="Only jobs in this state."),
    ] = None
    workflow: Annotated[str | None, Field(max_length=64, description="Only jobs of this named workflow.")] = None


class UploadFile(_Arguments):
    """The arguments of `upload`: a file's bytes, the size of one that will be sent by a link, or the end of that."""

    name: Annotated[
        str | None, Field(max_length=255, description="The file's name: what an input of a workflow takes afterwards.")
    ] = None
    data: Annotated[
        str | None,
        Field(
            max_length=MAX_SENT_BYTES // 3 * 4 + 4,
            description=f"The bytes as base64, up to {MAX_SENT_BYTES:,} of them. Without it a link is answered.",
        ),
    ] = None
    content_type: Annotated[
        str | None, Field(max_length=100, pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$")
    ] = None
    size_bytes: Annotated[
        int | None, Field(ge=1, description="Of a file that goes to S3 by the link: its exact size.")
    ] = None
    upload_id: Annotated[
        str | None, Field(max_length=64, description="Of a file that was sent by the link: this makes it usable.")
    ] = None


MODELS: Final[dict[str, type[_Arguments]]] = {
    "get_job": GetJob,
    "cancel_job": CancelJob,
    "get_outputs": GetOutputs,
    "list_jobs": ListJobs,
    "upload": UploadFile,
}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, without what says nothing: titles, and that what may be null is null."""
    schema = model.model_json_schema()
    properties = {name: _plain(entry) for name, entry in schema["properties"].items()}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": schema["required"]} if "required" in schema else {}),
    }


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in entry.items() if key not in ("title", "anyOf") and value is not None}
    given = [way for way in entry.get("anyOf", ()) if way != {"type": "null"}]
    return told | (given[0] if given else {})


def arguments_of(name: str, given: dict[str, Any]) -> _Arguments:
    """The arguments of a tool. Raises InvalidRequest, with every problem in `details.errors`, if they do not fit."""
    model = MODELS[name]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = field_problems(error.errors(include_url=False, include_input=False), model)
        raise InvalidRequest(f"the arguments of {name} do not fit.", details={"errors": problems}) from None


_ABOUT_JOBS: Final = "Jobs are those of this key's owner."
TOOLS: Final[tuple[Tool, ...]] = (
    Tool(
        name="get_job",
        title="Ask after a job",
        description="Waits for a job's end for some seconds, and returns its state, and its outputs once it has "
        f"succeeded: small pictures, sounds and texts themselves, all of them as links. {_ABOUT_JOBS}",
        input_schema=schema_of(GetJob),
        is_read_only=True,
    ),
    Tool(
        name="cancel_job",
        title="Cancel a job",
        description=f"Ends a job that waits, and interrupts one that runs. {_ABOUT_JOBS}",
        input_schema=schema_of(CancelJob),
        is_destructive=True,
    ),
    Tool(
        name="get_outputs",
        title="Get the outputs of a job",
        description="Lists everything that a job has made, page by page, with fresh links; pictures, sounds and texts "
        f"come with it up to `inline_bytes`. {_ABOUT_JOBS}",
        input_schema=schema_of(GetOutputs),
        is_read_only=True,
    ),
    Tool(
        name="list_jobs",
        title="List jobs",
        description=f"Lists jobs, newest first. {_ABOUT_JOBS}",
        input_schema=schema_of(ListJobs),
        is_read_only=True,
    ),
    Tool(
        name="upload",
        title="Upload a file",
        description="Keeps a file, which inputs of workflows then take by its `name`. Send small ones as `data`, in "
        "base64. For others give `name` and `size_bytes`: the answer has a link that the bytes are PUT to; then call "
        "this again with `upload_id`. A file that has an https address needs no upload: inputs take addresses.",
        input_schema=schema_of(UploadFile),
    ),
)
