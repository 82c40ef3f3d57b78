"""Routes of jobs: submit, follow by polling, cancel, the workflow behind one; and `POST /generate`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Path
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.api.auth import Caller, caller
from comfy_serverless.api.bodies import (
    INVALID,
    JOB,
    NOT_FOUND,
    REFUSALS,
    ErrorEnvelope,
    GenerateBody,
    JobWorkflow,
    SubmitBody,
    documented,
)
from comfy_serverless.api.body_reader import left_out
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.api.submission import Submission, submit
from comfy_serverless.api.waiting import age_s, wait_for
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import (
    AssetUnavailable,
    ComfyError,
    Forbidden,
    InvalidRequest,
    InvalidWorkflow,
    MissingAsset,
    NotFound,
    UpstreamError,
)
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES, Job, JobStatus, shorten_job
from comfy_serverless.jobs.lines import LineAddress
from comfy_serverless.jobs.named import expanded
from comfy_serverless.jobs.request import JOB_ID_PATTERN, JobRequest
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.stored_request import read_line, read_stored_line, submitted_workflow
from comfy_serverless.jobs.workflow_source import resolve_workflow
from comfy_serverless.observability import log
from comfy_serverless.table.job_state import JobExists, JobState

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

#: The part of an invocation that is kept back for the answer.
ANSWER_RESERVE_S = 2.0

JobId = Annotated[str, Path(description="The job's id.")]
IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", description="Single-use for 24 h. A UUID is best.")
]
_JOB_ID = re.compile(JOB_ID_PATTERN)


@router.post(
    "/api/v2/jobs",
    summary="Submit a workflow for execution",
    tags=["jobs"],
    responses={201: documented("The job, queued.", Job), **INVALID, **REFUSALS},
    status_code=201,
)
def post_job(body: Annotated[SubmitBody, Body()], idempotency_key: IdempotencyKey = None) -> Response[str]:
    """Take a workflow, durably."""
    extra_data = body.extra_data.model_dump(exclude_none=True) if body.extra_data else None
    request = JobRequest.parse({"workflow": body.workflow, "metadata": body.metadata, "extra_data": extra_data})
    request = request.with_warnings((*left_out(router), *request.warnings))
    try:
        return answer_job(HTTPStatus.CREATED, _submit(request, body, idempotency_key))
    except JobExists as error:
        raise UpstreamError("there is a job of the id that was drawn for this one: send it again.") from error


@router.get(
    "/api/v2/jobs/<id>",
    summary="Job status (the polling workhorse)",
    tags=["jobs"],
    responses={**JOB, **NOT_FOUND, **REFUSALS},
)
def get_job(id: JobId) -> Response[str]:  # noqa: A002  (the contract's name)
    """Return everything known of a job: one read of the table.

    A job that is young is answered when it ends or is no longer young: an SDK that has seen it run pauses for half a
    second before it asks again. One that no worker has begun is young for a quarter of that time: many may wait, and
    each answer that is held back holds one of the function's invocations.
    """
    jobs, young_s = services(router).jobs, services(router).settings.poll_hold_s
    state = find_job(id, caller(router), services(router), read=jobs.read)

    def is_enough(seen: JobState) -> bool:
        return seen.is_over or (seen.status is JobStatus.QUEUED and age_s(seen) > young_s / 4)

    until = moment_in(young_s - age_s(state))
    return answer_job(HTTPStatus.OK, wait_for(state, look=jobs.read, enough=is_enough, until=until))


@router.get(
    "/api/v2/jobs/<id>/workflow",
    summary="The workflow behind a job, as it was submitted",
    tags=["jobs"],
    responses={200: documented("The workflow.", JobWorkflow), **NOT_FOUND, **REFUSALS},
)
def get_workflow(id: JobId) -> Response[str]:  # noqa: A002
    """Return what was submitted, and its format; never with its `extra_data`."""
    state = find_job(id, caller(router), services(router), read=services(router).jobs.read_alone)
    workflow = _workflow_of(state, services(router))
    kind: Literal["save", "api"] = "save" if is_of_editor(workflow) else "api"
    return answer(HTTPStatus.OK, JobWorkflow(workflow=dict(workflow), format=kind).model_dump())


def _workflow_of(state: JobState, behind: Services) -> Mapping[str, Any]:
    """The workflow that was submitted for a job, or that its request names. Raises NotFound if it cannot be read."""
    address = S3Address.parse(state.request)
    try:
        given = _submitted(address, state, behind)
        if isinstance(given, str):
            Reserved.of(behind.settings).check_addresses(given)  # it may be why the job was refused
        return resolve_workflow(given, s3=behind.s3, settings=behind.settings)
    except AssetUnavailable:
        raise
    except (ValueError, KeyError, TypeError, InvalidRequest, InvalidWorkflow, MissingAsset) as error:
        reason = error.message if isinstance(error, ComfyError) else "its request is no JSON with a workflow."
        raise NotFound(f"the workflow of job {state.id} cannot be shown: {reason}") from error


def _submitted(address: S3Address, state: JobState, behind: Services) -> dict[str, Any] | str:
    """The workflow of a request; of a named one, that of the version that its line is pinned to, or that is live."""
    if (line := LineAddress.parse(address)) is not None:
        if line.is_stored:
            return read_stored_line(behind.s3, line)["workflow"]  # type: ignore[no-any-return]  # any JSON of ours
        request = read_line(behind.s3, line)
    else:
        given: dict[str, Any] | str = submitted_workflow(behind.s3, address)
        if not isinstance(given, str):
            return given
        request = JobRequest.parse({"workflow": given})
    was_taken = was_judged(state, behind)
    return expanded(behind.named, request, owner=state.owner, key=state.id, was_taken=was_taken).workflow


def was_judged(state: JobState, behind: Services) -> bool:
    """Whether a job's request was found good. One that was refused is a job that failed before any run.

    That is as it came, in a manifest or a file that was dropped: all that it says was chosen by who sent it.
    """
    if state.status is not JobStatus.FAILED or state.runs > 0:
        return True
    address = S3Address.parse(state.request)
    line = LineAddress.parse(address)
    return line.is_stored if line is not None else address.bucket == behind.assets_bucket


@router.post(
    "/api/v2/jobs/<id>/cancel",
    summary="Request cancellation",
    tags=["jobs"],
    responses={**JOB, **NOT_FOUND, **REFUSALS},
)
def cancel_job(id: JobId) -> Response[str]:  # noqa: A002
    """End a waiting job at once, and a running one at its worker's next report. Ended jobs stay as they are."""
    jobs = services(router).jobs
    state = jobs.cancel(find_job(id, caller(router), services(router), read=jobs.read))
    if state.status is JobStatus.CANCELED:
        services(router).care.call_webhook(state)
    return answer_job(HTTPStatus.OK, state)


@router.post(
    "/generate",
    summary="Submit a job and wait for its end",
    tags=["generate"],
    description="Takes a job request with `set`, `inputs`, `models`, `deadline_s`; a workflow in any wrapper, or the "
    "name of one with its inputs by name. "
    "The same `job_id` never runs twice.",
    responses={
        200: documented("The job has ended; `status` says how.", Job),
        202: documented("It has not yet: poll `urls.self`.", Job),
        403: documented("`forbidden`: the job_id is another owner's.", ErrorEnvelope),
        **INVALID,
        **REFUSALS,
    },
)
def generate(body: Annotated[GenerateBody, Body()], idempotency_key: IdempotencyKey = None) -> Response[str]:
    """Submit, and wait up to `wait_s` seconds."""
    until, jobs = moment_in(body.wait_s), services(router).jobs
    document = body.model_dump(by_alias=True, include=set(JobRequest.model_fields))
    request = JobRequest.model_validate(document, strict=False).with_warnings(left_out(router))
    try:
        state = _submit(request, body, idempotency_key)
    except (JobExists, InvalidRequest) as refusal:
        # A name may lead elsewhere, or nowhere, when the request is sent again: its job stands.
        may_stand = isinstance(refusal, JobExists) or (request.is_named and request.job_id is not None)
        standing = jobs.read_alone(str(request.job_id)) if may_stand else None
        if standing is None or standing.owner != caller(router).owner:
            if not isinstance(refusal, JobExists):
                raise
            raise Forbidden(f"the job_id {body.job_id!r} is taken: choose another.") from None
        return answer_at_end(standing, until=until, tell=_telling(standing, request, refusal))
    return answer_at_end(state, until=until)


def _telling(standing: JobState, request: JobRequest, refusal: Exception) -> Callable[[Job], Job]:
    """What a job that stands says to a request that came under its id: whether it was made of another one."""
    if standing.asked_sha256 is not None:
        return Job.of_another if standing.is_of_another(request.digest()) else lambda job: job
    # Its item is of an older release, or of a door that keeps none: what its worker got is known once it has ended.
    asked = refusal.asked_sha256 if isinstance(refusal, JobExists) else None
    return lambda job: job.answering(asked)


def answer_at_end(state: JobState, *, until: float, tell: Callable[[Job], Job] = lambda job: job) -> Response[str]:
    """A job when it is over: 200; or as it is at a moment, on the monotonic clock: 202.

    Args:
        tell: adds to it what this answer has to say.
    """
    jobs = services(router).jobs
    # Without outputs, which may be thousands.
    state = wait_for(state, look=jobs.read_alone, enough=_is_over, until=until)
    state = jobs.read(state.id) or state
    status = HTTPStatus.OK if state.is_over else HTTPStatus.ACCEPTED
    return answer_job(status, state, tell=tell)


def moment_in(seconds: float) -> float:
    """The moment in so many seconds on the monotonic clock, or before that when this invocation must answer."""
    left_s: float = router.lambda_context.get_remaining_time_in_millis() / 1000 - ANSWER_RESERVE_S
    return time.monotonic() + min(seconds, left_s)


def _is_over(state: JobState) -> bool:
    return state.is_over


def _submit(request: JobRequest, body: SubmitBody | GenerateBody, idempotency_key: str | None) -> JobState:
    submission = Submission(
        request=request,
        caller=caller(router),
        idempotency_key=idempotency_key,
        webhook_url=body.webhook_url,
        webhook_secret=body.webhook_secret,
    )
    return submit(submission, services(router))


def find_job(job_id: str, who: Caller, behind: Services, *, read: Callable[[str], JobState | None]) -> JobState:
    """A job of the caller; one whose keeper has not acted in time gets care now. Raises NotFound for another's.

    `read` is the method of `JobReader` that reads as much of it as is needed.
    """
    state = job_of(who.owner, job_id, read=read)
    if state.lease_ended:
        try:
            behind.care.attend(state)
        except (ClientError, BotoCoreError, ComfyError):
            log.exception("the job could not be looked after", job_id=job_id)  # the caretaker does it
        state = read(job_id) or state
    return state


def job_of(owner: str, job_id: str, *, read: Callable[[str], JobState | None]) -> JobState:
    """A job of this owner, as it stands. Raises NotFound for another's."""
    state = read(job_id) if _JOB_ID.fullmatch(job_id) else None
    if state is None or state.owner != owner:
        raise NotFound(f"there is no job {job_id[:100]!r} of yours; jobs are forgotten 30 days after their submission.")
    return state


def answer_job(status: int, state: JobState, *, tell: Callable[[Job], Job] = lambda job: job) -> Response[str]:
    """A job as the contract has it, with links that work for a while; `tell` as in `answer_at_end`."""
    behind = services(router)
    job = tell(behind.links.of_job(state.document()))
    if behind.event_links is not None:
        link = behind.event_links.of_job(state.id, owner=state.owner)
        job = job.model_copy(update={"urls": job.urls.model_copy(update={"events": link})})
    if _size_bytes(job) > REPLY_LIMIT_BYTES:
        # Some thousand outputs with a link each. All of them are in the list of the result, and among the assets.
        job = shorten_job(job, size=_size_bytes, limit_bytes=REPLY_LIMIT_BYTES)
    return answer(status, job.to_json())


def _size_bytes(job: Job) -> int:
    return len(json.dumps(job.to_json()))
