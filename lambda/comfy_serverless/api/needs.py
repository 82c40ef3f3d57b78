"""`POST /api/v2/workflows/needs`: what a workflow lacks on the workers, before anybody pays for a job.

It keeps nothing and fetches nothing. What is there is told by what workers, and who deploys them, publish of
their ComfyUI, in which no job's files stand: see `jobs.declarations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from comfy_serverless.api.bodies import INVALID, REFUSALS, ExtraData, documented
from comfy_serverless.api.body_reader import left_out
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import services
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.wrappers import unwrap
from comfy_serverless.jobs.request import ModelList, ModelRequest

if TYPE_CHECKING:
    from comfy_serverless.graph.needs import Model

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

PATH = "/api/v2/workflows/needs"
_NOT_TOLD = (
    "no worker has told yet what its ComfyUI has: one does so when it runs a job, of any workflow (and `make "
    "declarations` before that)"
)


class NeedsBody(BaseModel):
    """A workflow to be looked at. Nothing of it is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    workflow: Annotated[dict[str, Any], Field(description="In the editor's format, or in API format.")]
    models: Annotated[ModelList, Field(description="What the job would bring.")] = ()
    extra_data: Annotated[
        ExtraData | None,
        Field(description="`extra_pnginfo.workflow`: the editor's workflow of a graph in API format, for addresses."),
    ] = None


class Use(BaseModel):
    """An input that names a model."""

    node_id: str
    class_type: str
    input_name: str


class NeededModel(BaseModel):
    """A model. `there` is null where that is not known, and `folder` where nothing says which."""

    folder: str | None
    name: str
    url: str | None
    sha256: str | None
    size_bytes: int | None
    there: bool | None
    near: str | None
    source: str | None
    used_by: list[Use]


class Pack(BaseModel):
    """Where a class of nodes comes from, as the editor wrote it down."""

    cnr_id: str | None
    aux_id: str | None
    ver: str | None


class NeededClass(BaseModel):
    """A class of nodes. `known` is null where that is not known."""

    class_type: str
    node_ids: list[str]
    count: int
    pack: Pack | None
    known: bool | None


class Missing(BaseModel):
    """How much is surely not there."""

    models: int
    nodes: int


class NeedsAnswer(BaseModel):
    """What a workflow needs."""

    models: list[NeededModel]
    nodes: list[NeededClass]
    partner_nodes: Annotated[list[str], Field(description="Classes that need a key in `extra_data` of the job.")]
    inputs: Annotated[list[dict[str, Any]], Field(description="What `set` and `inputs` of a job can change.")]
    missing: Missing
    notes: list[str]
    nodes_told_at: Annotated[str | None, Field(description="When a worker has told last what is there.")] = None


def read_needs(document: object) -> tuple[object, Sequence[str]]:
    """A body of the route, in whatever wrapper its workflow came. Raises InvalidRequest for a name or an address."""
    found = unwrap(document)
    if found is None:
        if isinstance(document, Mapping) and isinstance(document.get("workflow"), str):
            raise InvalidRequest("`workflow` is a name or an address: send the workflow itself.")
        return document, ()
    models = document.get("models") if isinstance(document, Mapping) and found.place else None
    saved = (found.extra_data.get("extra_pnginfo") or {}).get("workflow")
    fields = {
        "workflow": dict(found.workflow),
        "models": models,
        "extra_data": {"extra_pnginfo": {"workflow": saved}} if isinstance(saved, Mapping) else None,
    }
    return {name: value for name, value in fields.items() if value is not None}, ()


@router.post(
    PATH,
    summary="What a workflow needs, and what of it is not there (ours)",
    tags=["workflows"],
    description="Models with their addresses, node classes with their packs, partner nodes, and the inputs that can be "
    "set. Takes the editor's format and the API's, in any wrapper. Nothing is kept, and no job is made.",
    responses={200: documented("What it needs.", NeedsAnswer), **INVALID, **REFUSALS},
)
def post_needs(body: Annotated[NeedsBody, Body()]) -> Response[str]:
    """Look at a workflow."""
    from comfy_serverless.graph.needs import needs_of  # and what converts: no other start of the API waits for it

    object_info, told_at = services(router).declarations.newest(), services(router).declarations.told_at()
    info = (body.extra_data.extra_pnginfo if body.extra_data else None) or {}
    needs = needs_of(
        body.workflow, object_info, saved=info.get("workflow"), brought=[_brought(model) for model in body.models]
    )
    document = needs.to_json()
    notes = document["notes"] if object_info is not None else [_NOT_TOLD]
    document["notes"] = [*notes, *left_out(router)]
    return answer(HTTPStatus.OK, document | {"nodes_told_at": None if told_at is None else told_at.isoformat()})


def _brought(model: ModelRequest) -> Model:
    """A model of a request, by the name that a workflow calls it by."""
    from comfy_serverless.graph.needs import Model

    folder, _, name = model.called.partition("/")
    return Model(folder=folder, name=name, url=model.url, sha256=model.sha256 or "", source="request")
