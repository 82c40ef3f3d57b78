"""`POST /api/v2/jobs/{id}/again`: a job's request once more, as a job of its own.

    stored as a worker gets it, or a line that has become a job ──► the same, with a new id ──┐
    a line that was refused ──► judged as any request of its caller's                       ──┴──► submitted

What a worker got is what runs again: the version of a named workflow that it was, values in its graph, the same files.
What may be or hold a key is kept nowhere, so it is not there; webhook and Idempotency-Key were for the job before.
"""

from __future__ import annotations

import hashlib
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from comfy_serverless.api.auth import Caller, caller
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, UNREADABLE, documented
from comfy_serverless.api.budgets import is_of_budget
from comfy_serverless.api.jobs import IdempotencyKey, JobId, answer_job, find_job, was_judged
from comfy_serverless.api.services import Services, services
from comfy_serverless.api.submission import Submission, submit, submit_again
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound, UpstreamError
from comfy_serverless.graph.chance import with_seeds_to_draw
from comfy_serverless.graph.wrappers import is_of_editor, unwrap
from comfy_serverless.jobs.document import Job
from comfy_serverless.jobs.extra_data import KEPT
from comfy_serverless.jobs.lines import LineAddress
from comfy_serverless.jobs.named import expanded
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import StoredRequest, read_line, read_stored_line
from comfy_serverless.table.job_state import JobExists, JobState
from comfy_serverless.table.jobs import check_idempotency_key

if TYPE_CHECKING:
    from collections.abc import Iterable

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

#: What ComfyUI writes into pictures: people get their workflow back from them.
_IN_PICTURES: Final = "extra_pnginfo"


class AgainBody(BaseModel):
    """How a job runs again."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seed: Annotated[
        Literal["same", "new"],
        Field(description="`same`: as it was asked, so -1 is drawn again. `new`: all seeds are drawn."),
    ] = "same"


@router.post(
    "/api/v2/jobs/<id>/again",
    summary="Run a job's request again, as a new job (ours)",
    tags=["jobs"],
    description="With its values, inputs, models and labels, and the version of a named workflow that it ran; without "
    "its webhook, and without what is kept nowhere because it may be a key.",
    responses={
        200: documented("It was asked before with this Idempotency-Key: the job of then.", Job),
        201: documented("The new job, queued.", Job),
        **NOT_FOUND,
        **INVALID,
        **UNREADABLE,
        **REFUSALS,
    },
    status_code=201,
)
def run_again(
    id: JobId,  # noqa: A002  (the contract's name)
    body: Annotated[AgainBody | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[str]:
    """Take a new job with the request of one."""
    behind, who = services(router), caller(router)
    check_idempotency_key(idempotency_key)
    state = find_job(id, who, behind, read=behind.jobs.read_alone)
    seed = (body or AgainBody()).seed
    job_id = str(uuid.uuid4()) if idempotency_key is None else _id_of(state, seed, idempotency_key)
    try:
        made = _again(state, job_id, who, behind, has_new_seed=seed == "new", key=idempotency_key)
    except (ComfyError, JobExists) as refusal:
        standing = None if idempotency_key is None else behind.jobs.read_alone(job_id)
        if standing is not None and standing.owner == who.owner:
            return answer_job(HTTPStatus.OK, standing)
        if isinstance(refusal, JobExists):
            raise UpstreamError("there is a job of the id that was drawn for this one: send it again.") from refusal
        raise
    return answer_job(HTTPStatus.CREATED, made)


def _id_of(state: JobState, seed: str, key: str) -> str:
    """The id of the job that this key makes of this one, and of no other; nobody else's key makes it."""
    digest = hashlib.sha256("\0".join(("again", state.owner, state.id, seed, key)).encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def _again(
    state: JobState, job_id: str, who: Caller, behind: Services, *, has_new_seed: bool, key: str | None
) -> JobState:
    asked = _asked(state, behind)
    request, shown = (asked.request, asked.workflow) if isinstance(asked, StoredRequest) else (asked, None)
    request = request.model_copy(update={"job_id": job_id, "extra_data": _kept(request)})
    request = request.with_warnings(_warnings(state, request))
    if request.is_named:
        request, shown = _with_graph(request, state, behind), None
    if has_new_seed:
        request, shown = _with_new_seeds(request), _shown_with_new_seeds(shown)
    if not was_judged(state, behind):
        return submit(Submission(request=request, caller=who, idempotency_key=key), behind)
    if isinstance(request.workflow, dict) and not is_of_editor(request.workflow):
        behind.node_list.check(request.workflow)
    return submit_again(StoredRequest(request, shown or request.workflow), who, behind, idempotency_key=key)


def _asked(state: JobState, behind: Services) -> StoredRequest | JobRequest:
    """What a worker got of a job; of one that is named in a line, the line's request. Raises NotFound if it is gone."""
    address = S3Address.parse(state.request)
    line = LineAddress.parse(address)
    try:
        if line is None:
            return StoredRequest.read(behind.s3, address)
        return StoredRequest.parse(read_stored_line(behind.s3, line)) if line.is_stored else read_line(behind.s3, line)
    except ComfyError as error:
        if error.retryable:
            raise
        raise _gone(state, error) from error


def _with_graph(request: JobRequest, state: JobState, behind: Services) -> JobRequest:
    """The request with the graph of the version that its line was pinned to. Raises NotFound if that is gone."""
    try:
        return expanded(behind.named, request, owner=state.owner, key=state.id, was_taken=was_judged(state, behind))
    except InvalidRequest as error:
        raise _gone(state, error) from error


def _gone(state: JobState, error: ComfyError) -> NotFound:
    return NotFound(f"job {state.id} cannot be run again: {error.message}")


def _kept(request: JobRequest) -> dict[str, object] | None:
    """Of the data for ComfyUI no more than what it writes into pictures."""
    data = request.extra_data or {}
    return {_IN_PICTURES: data[_IN_PICTURES]} if _IN_PICTURES in data else None


def _warnings(state: JobState, request: JobRequest) -> Iterable[str]:
    """What was said of the request, and what is not there this time."""
    if not state.is_rerunnable:
        yield (
            f"job {state.id} was sent with `extra_data` that is kept nowhere (all but {KEPT}): it runs without, and "
            "nodes that need a key fail"
        )
    yield from (warning for warning in request.warnings if not is_of_budget(warning))


def _with_new_seeds(request: JobRequest) -> JobRequest:
    """The request with every seed to be drawn. Raises InvalidRequest if only a worker knows which there are."""
    found = None if isinstance(request.workflow, str) else unwrap(request.workflow)
    if found is None or is_of_editor(found.workflow):
        raise InvalidRequest(
            "`seed`: only a worker knows the seeds of this workflow: send it with `set` to `POST /generate` instead, "
            'as `{"KSampler.seed": -1}`.'
        )
    graph, values = with_seeds_to_draw(found.workflow, request.values)
    return request.model_copy(update={"workflow": graph, "values": values})


def _shown_with_new_seeds(shown: dict[str, Any] | str | None) -> dict[str, Any] | str | None:
    """What people see of it, likewise; what the editor saved is shown as it was."""
    return with_seeds_to_draw(shown, {})[0] if isinstance(shown, dict) and not is_of_editor(shown) else shown
