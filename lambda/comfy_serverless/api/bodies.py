"""The bodies that the API's routes take, and those of their answers that `jobs.document` does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from pydantic import BaseModel, ConfigDict, Field, RootModel

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.wrappers import Unwrapped, unwrap
from comfy_serverless.jobs.document import Job, Output, Progress
from comfy_serverless.jobs.request import JobRequest, Labels
from comfy_serverless.jobs.shapes import MAX_ADDRESSES, cleaned, may_be_request, shape

#: API Gateway waits 30 s for an answer, and ours takes a while to get there.
MAX_WAIT_S = 25
DEFAULT_WAIT_S = 20


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Key = Annotated[str, Field(max_length=1024)]


class ExtraData(_Body):
    """Data for ComfyUI, beside the workflow. Keys travel in the job's message only: not in the table, S3 or a log.

    What comes after the first is ours; `POST /generate` passes on whatever there is.
    """

    api_key_comfy_org: Annotated[_Key | None, Field(description="API key for partner (API) nodes.")] = None
    auth_token_comfy_org: Annotated[_Key | None, Field(description="Token for partner (API) nodes. Ours.")] = None
    extra_pnginfo: Annotated[
        dict[str, Any] | None, Field(description="Written into the pictures that ComfyUI saves. Ours.")
    ] = None
    preview_method: Annotated[str | None, Field(max_length=100, description="Of the previews. Ours.")] = None


WEBHOOK_URL = Field(max_length=2048, description="Called when the job has ended; a public https address. Ours.")
WEBHOOK_SECRET = Field(max_length=256, description="Signs the call, as Standard Webhooks has it: `whsec_…`. Ours.")


class SubmitBody(_Body):
    """A workflow to run. `metadata` and the fields after it are ours."""

    workflow: Annotated[
        dict[str, Any],
        Field(description="API-format workflow graph, verbatim; or the editor's file, which is converted (ours)."),
    ]
    extra_data: ExtraData | None = None
    metadata: Labels = Field(default_factory=dict, description="Labels, to find the job again by.")
    webhook_url: Annotated[str, WEBHOOK_URL] | None = None
    webhook_secret: Annotated[str, WEBHOOK_SECRET] | None = None


class ConvertBody(_Body):
    """A workflow to convert to API format."""

    workflow: Annotated[
        dict[str, Any], Field(description="As the editor saves it. One in API format comes back as it is.")
    ]
    values: Annotated[
        dict[str, Any],
        Field(alias="set", max_length=MAX_ADDRESSES, description="Put into the graph, as in a job request."),
    ] = Field(default_factory=dict)
    seed: Annotated[
        str | None,
        Field(max_length=256, description="Decides what `{a|b}` becomes; without it, the first of the choices."),
    ] = None


class Converted(BaseModel):
    """A workflow in API format.

    Attributes:
        warnings: what was guessed, left out or rolled.
        nodes_told_at: when workers have told last which nodes they have; absent if nothing had to be converted.
    """

    workflow: dict[str, Any]
    warnings: list[str]
    nodes_told_at: str | None = None


class GenerateBody(JobRequest):
    """A job request, and how long to wait for its end."""

    wait_s: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = DEFAULT_WAIT_S
    webhook_url: Annotated[str, WEBHOOK_URL] | None = None
    webhook_secret: Annotated[str, WEBHOOK_SECRET] | None = None


def read_generate(document: object) -> tuple[object, Sequence[str]]:
    """The fields of a body of `POST /generate`, in whatever shape it came, and what was left out."""
    shaped = shape(document, known=GenerateBody.field_names())
    return shaped.fields, shaped.warnings


def read_submit(document: object) -> tuple[object, Sequence[str]]:
    """A body of `POST /api/v2/jobs`, as the contract has it. Raises InvalidRequest for what only `/generate` takes."""
    workflow = document.get("workflow") if isinstance(document, Mapping) else None
    if isinstance(workflow, str):
        raise InvalidRequest(
            "`workflow` is a text: here it is the graph itself. POST /generate takes JSON in a text, names and s3://."
        )
    found = unwrap(document)
    if kind := _other_shape(document, found):
        raise InvalidRequest(
            f'{kind}: here it goes into a field, {{"workflow": {{…}}}}. POST /generate takes it as it is.'
        )
    if found is not None and (fields := sorted(found.within.keys() & set(GenerateBody.field_names()))):
        raise InvalidRequest(
            f"`workflow` has fields of a request in it ({', '.join(map(repr, fields))}): here it has a workflow, and "
            "what ComfyUI gets with it. POST /generate takes a request with all of its fields."
        )
    if not isinstance(document, Mapping):
        return document, ()
    shaped = cleaned(document)
    return shaped.fields, shaped.warnings


def _other_shape(document: object, found: Unwrapped | None) -> str:
    """What a document is, that has a workflow elsewhere than in `workflow`; "" for any other one."""
    if found is None or not isinstance(document, Mapping):
        has_workflow = isinstance(document, Mapping) and document.get("workflow") is not None
        return "" if has_workflow or not may_be_request(document) else "this is a request in an envelope"
    if found.place == "prompt" and document.get("workflow") is None:
        return "this is a body of ComfyUI's /prompt"
    return {"": "this is a bare workflow", "workflow": ""}.get(found.place, f"the graph is in {found.place!r}")


class ListedError(BaseModel):
    """Why a job failed, in short."""

    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None


class JobListEntry(BaseModel):
    """A job in a list. What follows `metadata` is ours, and there if `expand` asks for it.

    Attributes:
        outputs: the first 8 of a job that has ended, with links.
        error: without its traceback and details.
    """

    id: str
    status: str
    create_time: str
    update_time: str
    created_at: str
    completed_at: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    started_at: str | None = None
    outputs: list[Output] | None = None
    outputs_total: int | None = None
    progress: Progress | None = None
    error: ListedError | None = None


class JobList(BaseModel):
    """Jobs, newest first. `next_cursor` is absent on the last page."""

    jobs: list[JobListEntry]
    next_cursor: str | None = None


class OutputList(BaseModel):
    """Outputs as a job lists them. `next_cursor` is absent on the last page."""

    outputs: list[Output]
    next_cursor: str | None = None


class GalleryOutput(Output):
    """An output, with what is known of its job.

    Attributes:
        created_at: when the job was submitted.
        metadata: its labels.
        seeds: those that were drawn for it, by `node.input`.
        batch: the name of the batch that it is a line of.
    """

    created_at: str
    metadata: dict[str, str]
    seeds: dict[str, int]
    batch: str | None


class GalleryList(BaseModel):
    """Outputs of jobs, newest job first. `next_cursor` is absent on the last page."""

    outputs: list[GalleryOutput]
    next_cursor: str | None = None


class ObjectInfo(RootModel[dict[str, dict[str, Any]]]):
    """Declarations of node classes, by their names, as ComfyUI's `/object_info` has them."""


class JobLog(BaseModel):
    """What ComfyUI wrote while it ran a job.

    Attributes:
        is_complete: whether these are all lines of the run.
        note: why there are none; null if there are.
    """

    lines: list[str]
    is_complete: bool
    note: str | None = None


class JobWorkflow(BaseModel):
    """The workflow behind a job, as it was submitted: `save` is the editor's format, `api` a graph of nodes."""

    workflow: dict[str, Any]
    format: Literal["save", "api"]


class Health(BaseModel):
    """The API answers. With `?detail`, also how many packs of custom nodes the workers lack, and their release."""

    status: Literal["ok"] = "ok"
    version: str
    nodes_not_loaded: int | None = None
    release: str | None = None
    release_version: str | None = None


class LostPack(BaseModel):
    """A pack of custom nodes that did not import on the workers."""

    pack: str
    reason: str


class WorkersHealth(BaseModel):
    """What the workers have told lately, and the release that jobs go to now, if it has a name."""

    release: str | None = None
    release_version: str | None = None
    nodes_not_loaded: list[LostPack]


class ErrorBody(BaseModel):
    """Why a request was refused."""

    code: str
    message: str
    details: dict[str, Any] | None = None


class ErrorEnvelope(BaseModel):
    """The form of all refusals."""

    error: ErrorBody


def documented(description: str, model: type[BaseModel]) -> OpenAPIResponse:
    """The OpenAPI entry of one of a route's answers."""
    return {"description": description, "content": {"application/json": {"model": model}}}


#: Answers that every route can give.
REFUSALS: dict[int, OpenAPIResponse] = {
    401: documented("`unauthorized`: no key, or not a good one.", ErrorEnvelope),
    429: documented("`rate_limited`, `queue_full`: wait as long as `Retry-After` says.", ErrorEnvelope),
    500: documented("`upstream_error`: try again.", ErrorEnvelope),
}
NOT_FOUND: dict[int, OpenAPIResponse] = {
    404: documented("`not_found`: it does not exist, or is another owner's.", ErrorEnvelope)
}
INVALID: dict[int, OpenAPIResponse] = {
    422: documented("The request cannot be used; `details` says why.", ErrorEnvelope)
}
#: Of a body that is no JSON, or too much of it.
UNREADABLE: dict[int, OpenAPIResponse] = {
    400: documented("The body is no JSON.", ErrorEnvelope),
    413: documented("`payload_too_large`.", ErrorEnvelope),
    415: documented("`unsupported_media_type`: send application/json.", ErrorEnvelope),
}
JOB: dict[int, OpenAPIResponse] = {200: documented("The job.", Job)}
