"""Routes of batches (ours): send lines, list, follow, pause, resume, cancel, run failed lines again, and all outputs.

A batch is its owner's: what another owner has is not there, whatever it is called. What becomes of the lines is
`ingest`'s work (`batches.keeper`), the same as for manifests that are dropped.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Path, Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import caller
from comfy_serverless.api.batch_bodies import (
    BatchBody,
    BatchDocument,
    BatchList,
    BatchOutputList,
    RetriedBatch,
    RetryBody,
    TakenBatch,
)
from comfy_serverless.api.batch_outputs import Place, page
from comfy_serverless.api.batch_submission import change, order, order_some, retry, submit
from comfy_serverless.api.batch_views import needs_counting, shown
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, UNREADABLE, ErrorEnvelope, documented
from comfy_serverless.api.budgets import check_budget
from comfy_serverless.api.jobs import IdempotencyKey
from comfy_serverless.api.paging import Cursor, page_of, read_cursor, write_cursor
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import services
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.budgets import BatchBudgets
from comfy_serverless.errors import BudgetExceeded, NotFound

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

LIST = "/api/v2/batches"
ONE = f"{LIST}/<name>"
MAX_PAGE, DEFAULT_PAGE = 50, 20
MAX_OUTPUTS, DEFAULT_OUTPUTS = 100, 50
#: How old the counts of a batch may be that somebody looks at alone, and of those in a list, in seconds.
_ONE_EVERY_S, _MANY_EVERY_S = 2.0, 10.0
#: A key of the table has 1,024 bytes.
_MAX_NAME_BYTES = 1000
_TAG = "batches"

Name = Annotated[str, Path(description="The batch's name, which means the newest of that name; or its id.")]
_WRONG_STATE = {409: documented("`batch_state`: it has ended, or has not yet.", ErrorEnvelope)}


@router.post(
    LIST,
    summary="Send a batch: many job requests at once (ours)",
    tags=[_TAG],
    description="One of `lines`, `manifest` and `upload_id`. All lines are checked before anything is written, as far "
    "as that is possible here. The same lines under the same name are the same batch, which is answered with 200.",
    responses={
        200: documented("These lines were sent under this name before: that batch.", TakenBatch),
        201: documented("The batch.", TakenBatch),
        **INVALID,
        **UNREADABLE,
        **REFUSALS,
    },
    status_code=201,
)
def post_batch(body: Annotated[BatchBody, Body()], idempotency_key: IdempotencyKey = None) -> Response[str]:
    """Take many job requests, durably."""
    behind, who = services(router), caller(router)
    warning = check_budget(who, behind.usage)
    batch, is_new = submit(body, who, behind, idempotency_key=idempotency_key)
    return _answer_taken(batch, is_new=is_new, warning=warning)


@router.get(
    LIST,
    summary="List batches, newest first (ours)",
    tags=[_TAG],
    responses={200: documented("A page of batches.", BatchList), **INVALID, **REFUSALS},
)
def list_batches(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE, cursor: Cursor = None
) -> Response[str]:
    """Return a page of the caller's batches."""
    behind = services(router)
    found, end = behind.batches.page(caller(router).owner, limit=limit, before=read_cursor(cursor))
    documents = [shown(batch, behind) for batch in found]
    order_some([batch for batch in found if needs_counting(batch, every_s=_MANY_EVERY_S)], behind)
    listed = [document.model_dump(mode="json") for document in documents]
    return answer(HTTPStatus.OK, page_of("batches", listed, end and write_cursor(end)))


@router.get(
    ONE,
    summary="How far a batch is (ours)",
    tags=[_TAG],
    description="Its lines are counted anew every few seconds while somebody asks.",
    responses={200: documented("The batch.", BatchDocument), **NOT_FOUND, **REFUSALS},
)
def get_batch(name: Name) -> Response[str]:
    """Return counts, rate, first failures, and links to the report once there is one."""
    batch = _find(name)
    if needs_counting(batch, every_s=_ONE_EVERY_S):
        order(batch, services(router))
    return _answer(batch)


@router.post(
    f"{ONE}/pause",
    summary="Begin no more jobs of a batch (ours)",
    tags=[_TAG],
    responses={200: documented("The batch.", BatchDocument), **_WRONG_STATE, **NOT_FOUND, **REFUSALS},
)
def pause_batch(name: Name) -> Response[str]:
    """Pause it; running jobs finish. Done twice, it is the same."""
    return _answer(change(_find(name), BatchStatus.PAUSED, services(router)))


@router.post(
    f"{ONE}/resume",
    summary="Go on with a paused batch (ours)",
    tags=[_TAG],
    responses={200: documented("The batch.", BatchDocument), **_WRONG_STATE, **NOT_FOUND, **REFUSALS},
)
def resume_batch(name: Name) -> Response[str]:
    """Go on where it was. Done twice, it is the same."""
    behind = services(router)
    batch = _find(name)
    check_budget(caller(router), behind.usage)
    why = BatchBudgets(behind.keys, behind.usage).reason_to_pause(batch)  # the key may be another one
    if why is not None and batch.status is BatchStatus.PAUSED:
        raise BudgetExceeded(f"the batch {batch.called} would be paused again: {why}.")
    return _answer(change(batch, BatchStatus.RUNNING, behind))


@router.post(
    f"{ONE}/cancel",
    summary="End a batch (ours)",
    tags=[_TAG],
    responses={200: documented("The batch.", BatchDocument), **_WRONG_STATE, **NOT_FOUND, **REFUSALS},
)
def cancel_batch(name: Name) -> Response[str]:
    """End it; running jobs finish. Done twice, it is the same."""
    return _answer(change(_find(name), BatchStatus.CANCELED, services(router)))


@router.post(
    f"{ONE}/retry",
    summary="Run failed lines again, as a new batch (ours)",
    tags=[_TAG],
    description="It is called `NAME-again`. By default it has the lines that another try can cure.",
    responses={
        200: documented("These lines run again already, or have: that batch.", RetriedBatch),
        201: documented("The new batch.", RetriedBatch),
        **_WRONG_STATE,
        **NOT_FOUND,
        **INVALID,
        **UNREADABLE,
        **REFUSALS,
    },
    status_code=201,
)
def retry_batch(name: Name, body: Annotated[RetryBody | None, Body()] = None) -> Response[str]:
    """Choose lines of a batch that has ended, and begin a batch of them."""
    behind, who = services(router), caller(router)
    batch = _find(name)
    warning = check_budget(who, behind.usage)
    again, is_new, left_out = retry(batch, (body or RetryBody()).only, who, behind)
    return _answer_taken(again, is_new=is_new, warning=warning, left_out=left_out)


@router.get(
    f"{ONE}/outputs",
    summary="All outputs of a batch, line by line (ours)",
    tags=[_TAG],
    description="Of the lines that have succeeded so far, with fresh links. A page may be short, or empty, before the "
    "last one: `next_cursor` goes on.",
    responses={200: documented("A page of outputs.", BatchOutputList), **NOT_FOUND, **INVALID, **REFUSALS},
)
def get_batch_outputs(
    name: Name, limit: Annotated[int, Query(ge=1, le=MAX_OUTPUTS)] = DEFAULT_OUTPUTS, cursor: Cursor = None
) -> Response[str]:
    """Return a page of outputs, each with its line."""
    place = Place.parse(cursor)
    outputs, end = page(_find(name), place, services(router), limit=limit)
    return answer(HTTPStatus.OK, page_of("outputs", outputs, end.to_cursor() if end else None))


def _find(name: str) -> Batch:
    """A batch of the caller. Raises NotFound for another's, as for none."""
    called = unquote(name)
    is_name = 0 < len(called.encode("utf-8", "replace")) <= _MAX_NAME_BYTES
    found = services(router).batches.named(caller(router).owner, called) if is_name else None
    if found is None:
        raise NotFound(f"there is no batch {called[:100]!r} of yours; batches are forgotten after 30 days.")
    return found


def _answer(batch: Batch, status: int = HTTPStatus.OK) -> Response[str]:
    return answer(status, shown(batch, services(router)).model_dump(mode="json"))


def _answer_taken(batch: Batch, *, is_new: bool, warning: str | None, **more: object) -> Response[str]:
    document = shown(batch, services(router)).model_dump(mode="json")
    told = {**document, "warnings": [] if warning is None else [warning], **more}
    return answer(HTTPStatus.CREATED if is_new else HTTPStatus.OK, told)
