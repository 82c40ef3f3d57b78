"""Routes about workflows that are no jobs yet (ours): converted to API format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.bodies import INVALID, REFUSALS, ConvertBody, Converted, ErrorEnvelope, documented
from comfy_serverless.api.body_reader import left_out
from comfy_serverless.api.conversion import whole_of
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import services
from comfy_serverless.errors import PayloadTooLarge
from comfy_serverless.graph.wrappers import unwrap
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES
from comfy_serverless.jobs.request import JobRequest

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]


@router.post(
    "/api/v2/workflows/convert",
    summary="Convert what the editor saved to API format (ours)",
    tags=["workflows"],
    description="By the nodes that the workers have, as they have told it last. Nothing is run or fetched.",
    responses={
        200: documented("The workflow in API format.", Converted),
        503: documented("`engine_unavailable`: nobody has told yet which nodes the workers have.", ErrorEnvelope),
        **INVALID,
        **REFUSALS,
    },
)
def convert(body: Annotated[ConvertBody, Body()]) -> Response[str]:
    """Answer the graph that a job of this workflow would run, but for seeds of -1 and the choices that are rolled."""
    behind = services(router)
    request = JobRequest.parse({"workflow": body.workflow, "set": body.values})
    whole = whole_of(request, behind, seed=body.seed)
    told_at = behind.declarations.told_at() if whole.editors is not None else None
    converted = Converted(
        workflow=whole.graph,
        warnings=[*left_out(router), *request.warnings, *whole.warnings],
        nodes_told_at=told_at.isoformat() if told_at is not None else None,
    )
    response = answer(HTTPStatus.OK, converted.model_dump(exclude_none=True))
    if (size_bytes := len(response.body or "")) > REPLY_LIMIT_BYTES:  # a subgraph is in it once for each of its hosts
        raise PayloadTooLarge(
            f"the workflow in API format would be an answer of {size_bytes:,} bytes, and at most {REPLY_LIMIT_BYTES:,} "
            "can be sent: convert it where ComfyUI is (`comfy-serverless convert`)."
        )
    return response


def read_convert(document: object) -> tuple[object, Sequence[str]]:
    """The fields of a body: `{"workflow": …}`, or the workflow itself in any wrapper; and what was left out."""
    if not isinstance(document, Mapping) or isinstance(document.get("workflow"), Mapping):
        return document, ()
    found = unwrap(document)
    if found is None:
        return document, ()
    names = ("set", "seed")
    fields: dict[str, Any] = {name: found.rest[name] for name in names if name in found.rest}
    return {"workflow": dict(found.workflow), **fields}, found.left_out()
