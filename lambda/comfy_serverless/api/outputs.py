"""The route of a job's outputs, page by page: a job's own document lists the first ones only."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import Caller, caller
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, OutputList, documented
from comfy_serverless.api.jobs import JobId, find_job
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidCursor
from comfy_serverless.jobs.links import Links
from comfy_serverless.jobs.output_list import Page, read_page

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

MAX_PAGE, DEFAULT_PAGE = 1000, 100
_CURSOR = re.compile(r"[0-9]{1,12}")


@router.get(
    "/api/v2/jobs/<id>/outputs",
    summary="All outputs of a job, page by page",
    tags=["jobs"],
    description="With fresh links; also those that the job itself does not list (`outputs_total`). Ours.",
    responses={200: documented("A page of outputs.", OutputList), **NOT_FOUND, **INVALID, **REFUSALS},
)
def get_outputs(
    id: JobId,  # noqa: A002  (the contract's name)
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> Response[str]:
    """Return a page of a job's outputs."""
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise InvalidCursor("the cursor is none of ours; send the `next_cursor` of the page before, unchanged.")
    behind = services(router)
    page = outputs_page(id, caller(router), behind, start=int(cursor or 0), limit=limit)
    outputs = Links(behind.s3, behind.settings.link_expiry_s).of_outputs(page.outputs)
    document: dict[str, Any] = {"outputs": [output.to_json() for output in outputs]}
    if page.end is not None:
        document["next_cursor"] = str(page.end)
    return answer(HTTPStatus.OK, document)


def outputs_page(job_id: str, who: Caller, behind: Services, *, start: int, limit: int) -> Page:
    """Some outputs of a job of the caller, without links. Raises NotFound for another's, InvalidCursor."""
    state = find_job(job_id, who, behind, read=behind.jobs.read_alone)
    if (listed_in := state.document().outputs_uri) is not None:
        return read_page(behind.s3, S3Address.parse(listed_in), start=start, limit=limit)
    outputs = (behind.jobs.read(job_id) or state).outputs
    end = start + limit
    return Page(list(outputs[start:end]), end if end < len(outputs) else None)
