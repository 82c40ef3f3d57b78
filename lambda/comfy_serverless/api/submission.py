"""From a request to a job in the queue.

    a name becomes a graph, which is judged as the caller's
    checked, and is there room? ─┬─► request to S3 ──────────────────────────┬─► message ──► marked as sent
     └─ assets resolved          └─► job and idempotency key to the table ───┘

The two are written at once, and the message is sent when both stand. Each step leaves things so that nothing is lost
if it is the last: a request without a job is deleted by the bucket's lifecycle; a job whose request was not written is
taken back; one whose message was not sent is sent by the caretaker.
"""

from __future__ import annotations

import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless import tracing
from comfy_serverless.api.budgets import check_budget
from comfy_serverless.aws.dynamodb import ConditionFailed
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest, KeyFull, QueueFull, UpstreamError
from comfy_serverless.fetch.addresses import is_aws_here
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.extra_data import split
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.named import expanded
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.result_file import result_address
from comfy_serverless.jobs.runnable import runnable
from comfy_serverless.jobs.stored_request import StoredRequest
from comfy_serverless.observability import log
from comfy_serverless.table.job_state import JobExists, JobState, NewJob
from comfy_serverless.table.jobs import check_idempotency_key
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.webhooks.signing import check_webhook

if TYPE_CHECKING:
    from comfy_serverless.api.auth import Caller
    from comfy_serverless.api.services import Services

#: How long S3 may take for a request before the job is taken back, in seconds: while this invocation can still do so.
WRITTEN_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request for a job, and who sends it.

    Attributes:
        request: its workflow may hold `core/ASSET` references and names of uploaded files.
    """

    request: JobRequest
    caller: Caller
    idempotency_key: str | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)


def submit(submission: Submission, services: Services) -> JobState:
    """Take a job.

    Raises:
        ComfyError: it is refused; nothing was queued, and the idempotency key can be used again.
        JobExists: the request's own `job_id` is taken.
    """
    job_id = submission.request.job_id or str(uuid.uuid4())
    with tracing.span("submit job", kind=tracing.Kind.PRODUCER, job_id=job_id):
        return _submit(submission, services, job_id=job_id)


def _submit(submission: Submission, services: Services, *, job_id: str) -> JobState:
    check_idempotency_key(submission.idempotency_key)
    webhook = _webhook(submission, services)
    owner = submission.caller.owner
    room = services.beside.submit(_check_room, submission.caller, services)
    key = submission.idempotency_key or job_id
    whole = expanded(services.named, submission.request, owner=owner, key=key)
    stored = runnable(whole, owner, services, job_id=job_id)
    return _take(stored, room, submission, services, webhook=webhook)


def submit_again(stored: StoredRequest, caller: Caller, services: Services, *, idempotency_key: str | None) -> JobState:
    """Take a job whose request was judged before; it has its new id. Raises as `submit`."""
    submission = Submission(request=stored.request, caller=caller, idempotency_key=idempotency_key)
    with tracing.span("submit job", kind=tracing.Kind.PRODUCER, job_id=stored.request.job_id):
        check_idempotency_key(idempotency_key)
        room = services.beside.submit(_check_room, caller, services)
        return _take(stored, room, submission, services, webhook=None)


def _take(
    stored: StoredRequest,
    room: Future[str | None],
    submission: Submission,
    services: Services,
    *,
    webhook: Webhook | None,
) -> JobState:
    """Write the job and its request if there is room, and send it."""
    if (warning := _wait_for_room(room)) is not None:
        told = stored.request.with_warnings((warning, *stored.request.warnings))
        stored = replace(stored, request=told)
    owner, job_id = submission.caller.owner, str(stored.request.job_id)
    _, secrets = split(submission.request.extra_data)
    address = S3Address(services.assets_bucket, f"requests/{owner}/{job_id}-{uuid.uuid4().hex[:8]}.json")
    job = NewJob(
        job_id=job_id,
        owner=owner,
        request_uri=str(address),
        result_uri=str(result_address(job_id, stored.request.output, services.settings)),
        labels=stored.request.metadata,
        idempotency_key=submission.idempotency_key,
        webhook=webhook,
        is_rerunnable=not secrets,
        trace=tracing.current(),
        key_id=submission.caller.key_id,
        asked_sha256=submission.request.digest() if submission.request.job_id is not None else None,
    )
    writing = services.beside.submit(stored.write, services.s3, address)
    try:
        state = services.jobs.submit(job)
    except JobExists as taken:
        # What the editor's file becomes differs with who converts it, and when (dates, newer nodes): no other request.
        is_as_sent = isinstance(stored.workflow, str) or not is_of_editor(stored.workflow)
        taken.asked_sha256 = stored.request.digest() if is_as_sent else None
        raise
    _wait_for_request(writing, job, services)
    log.info("the job is taken", job_id=job_id, owner=owner)
    message = JobMessage(
        job_id=job_id,
        address=address,
        owner=owner,
        content=stored.in_message(),
        result=S3Address.parse(job.result_uri),
        extra_data=secrets,
        trace=job.trace,
    )
    _send(services, job, message)
    return state


def _webhook(submission: Submission, services: Services) -> Webhook | None:
    if submission.webhook_url is None:
        if submission.webhook_secret is not None:
            raise InvalidRequest("webhook_secret signs the call of webhook_url, and there is none.")
        return None
    check_webhook(
        submission.webhook_url,
        submission.webhook_secret,
        allow_private=services.settings.allow_private_addresses,
        allow_own_host=services.settings.allow_private_addresses and is_aws_here(),
    )
    return Webhook(url=submission.webhook_url, secret=submission.webhook_secret or "")


def _check_room(caller: Caller, services: Services) -> str | None:
    """Raise if there is no room for a job of this key. Returns a warning for the job, if it needs one."""
    warning = check_budget(caller, services.usage)
    limit = caller.max_in_flight
    if limit is not None and services.jobs.open_jobs(caller.owner) >= limit:
        raise KeyFull(f"this key may have {limit} jobs waiting and running at once, and has: wait for one to end.")
    if services.workers.depth() >= services.settings.max_queued_jobs:
        raise QueueFull(f"{services.settings.max_queued_jobs} jobs wait already: try again when some have run.")
    return warning


def _wait_for_room(room: Future[str | None]) -> str | None:
    """Return or raise as `_check_room`; raise UpstreamError, if requests that wait for S3 keep it from looking."""
    try:
        return room.result(timeout=WRITTEN_WITHIN_S)
    except TimeoutError as error:
        raise UpstreamError("whether there is room for the job could not be learned in time: send it again.") from error


def _wait_for_request(writing: Future[None], job: NewJob, services: Services) -> None:
    """Wait until S3 has the request; without it there is no job."""
    try:
        writing.result(timeout=WRITTEN_WITHIN_S)
    except Exception as error:
        log.exception("the job's request could not be stored", job_id=job.job_id)
        services.jobs.withdraw(job)
        if not isinstance(error, ClientError | BotoCoreError | TimeoutError):
            raise
        raise UpstreamError(
            "the job's request could not be stored, and the job was not taken: send it again."
        ) from error


def _send(services: Services, job: NewJob, message: JobMessage) -> None:
    try:
        services.workers.send(message)
    except (ClientError, BotoCoreError) as error:
        log.exception("the job could not be sent to the queue", job_id=job.job_id)
        try:
            services.jobs.withdraw(job)
        except ConditionFailed:
            return  # it was sent, only the answer was lost: a worker has begun it
        raise UpstreamError("the job could not be queued, and was not taken: send it again.") from error
    try:
        services.jobs.dispatched(job.job_id)
    except (ClientError, BotoCoreError):
        # It is in the queue. The caretaker will send it once more, and the second message will find it begun.
        log.exception("the job is not marked as sent", job_id=job.job_id)
