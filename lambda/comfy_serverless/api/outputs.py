"""The route of a job's outputs, page by page: a job's own document lists the first ones only."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import Caller, caller
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, OutputList, documented
from comfy_serverless.api.jobs import JobId, find_job
from comfy_serverless.api.paging import Cursor, checked_cursor, page_of
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.output_list import Page, read_page
from comfy_serverless.table.job_state import JobState

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
    cursor: Cursor = None,
) -> Response[str]:
    """Return a page of a job's outputs."""
    behind = services(router)
    page = outputs_page(id, caller(router), behind, start=int(checked_cursor(cursor, _CURSOR) or 0), limit=limit)
    outputs = behind.links.of_outputs(page.outputs)
    end = None if page.end is None else str(page.end)
    return answer(HTTPStatus.OK, page_of("outputs", [output.to_json() for output in outputs], end))


def outputs_page(job_id: str, who: Caller, behind: Services, *, start: int, limit: int) -> Page:
    """Some outputs of a job of the caller, without links. Raises NotFound for another's, InvalidCursor."""
    return outputs_of(find_job(job_id, who, behind, read=behind.jobs.read_alone), behind, start=start, limit=limit)


def outputs_of(state: JobState, behind: Services, *, start: int, limit: int) -> Page:
    """The same of a job that was read without its outputs."""
    if (listed_in := state.document().outputs_uri) is not None:
        return read_page(behind.s3, S3Address.parse(listed_in), start=start, limit=limit)
    return Page.of((behind.jobs.read(state.id) or state).outputs, start=start, limit=limit)
