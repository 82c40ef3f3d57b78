"""The kinds of events the worker's function gets, each one a small class.

A kind returns the jobs that its event asks for (`sources`), and makes the answer that Lambda's caller expects out of
how those ended (`answer`). It decides nothing else. What is inside of an event, `envelopes` knows.

    direct payload                         the job
    HTTP request, `POST /generate`         status code and JSON body, in the form of its sender (`http_forms`)
    S3, SNS and EventBridge themselves     a summary; the report is `result.json`
    SQS batch: all of these, requests,     the messages to deliver again
    records of invocations that died
    any other event                        an error that says what it is

`queued_jobs` reads the messages of the job queue, which are none of these: the table decides about those jobs.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from comfy_serverless.errors import STATUSES, InvalidRequest
from comfy_serverless.handlers.envelopes import Content, Letter, UnknownEvent, contents_of, records_of
from comfy_serverless.handlers.http_forms import HttpRequest
from comfy_serverless.jobs.document import error_envelope
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import DroppedObject, RequestSource, SentRequest
from comfy_serverless.observability import log
from comfy_serverless.tracing import Trace
from comfy_serverless.worker.replies import Replies

if TYPE_CHECKING:
    from comfy_serverless.worker.outcomes import Outcome


class Event(Protocol):
    """An event, recognised."""

    @property
    def is_heard(self) -> bool:
        """Whether a caller waits for the answer and learns from it how the jobs ended."""

    def sources(self) -> Sequence[RequestSource]:
        """The jobs that the event asks for."""

    def deliveries(self) -> Sequence[int]:
        """How often each of the jobs has been delivered, this time included; 1 if nothing counts that."""
        return [1] * len(self.sources())

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> Any:  # noqa: ANN401  (any JSON value)
        """The function's answer, given how the jobs ended, in the order of `sources`."""


def recognise(event: object) -> Event:
    """The kind of an event. What is no event of AWS is a direct payload."""
    if (request := HttpRequest.of(event)) is not None:
        return HttpEvent(request)
    if messages := records_of(event, "aws:sqs"):
        return SqsEvent([(message, contents_of(_body_of(message))) for message in messages])
    contents = contents_of(event)
    match contents:
        case [Letter(name=None)]:
            return DirectEvent(event)
        case [UnknownEvent() as unknown]:
            return StrangeEvent(unknown)
    return NoticeEvent(contents)


@dataclass(frozen=True, slots=True)
class DirectEvent(Event):
    """A job request as the payload itself. The answer is the job, failed or not."""

    payload: object
    is_heard: bool = True

    def sources(self) -> Sequence[RequestSource]:
        return [SentRequest(payload=self.payload, default_id=str(uuid.uuid4()), trace=_trace_in(self.payload))]

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:
        return replies.write(outcomes[0])


@dataclass(frozen=True, slots=True)
class StrangeEvent(Event):
    """An event of AWS that asks for nothing we do. It fails, so that it is lost neither to a caller nor to a queue."""

    unknown: UnknownEvent
    is_heard: bool = True

    def sources(self) -> Sequence[RequestSource]:
        return []

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> Any:  # noqa: ANN401, ARG002
        """Raises InvalidRequest: Lambda repeats an asynchronous invocation, and keeps what has failed for good."""
        raise InvalidRequest(self.unknown.refusal)


@dataclass(frozen=True, slots=True)
class HttpEvent(Event):
    """A request through API Gateway, a function URL or a load balancer; the body is a job request.

    The answer is the job, with status 200 or that of its error; or, for a request that was refused, the error envelope.
    API Gateway waits 30 seconds: a longer job goes on, and the same request with the same job id gets its result later.
    """

    request: HttpRequest
    is_heard: bool = True

    def sources(self) -> Sequence[RequestSource]:
        """One, or none for anything but POST."""
        if self.request.method != "POST":
            return []
        request = self.request
        return [SentRequest(payload=request.body, default_id=str(uuid.uuid4()), what="the body", trace=request.trace)]

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:
        request = self.request
        if not outcomes:
            refusal = InvalidRequest(f"{request.method} is not possible here: send the job request with POST.")
            return request.answer(405, error_envelope(refusal), {"allow": "POST"})
        outcome = outcomes[0]
        error = outcome.error
        headers = {"retry-after": "10"} if _may_be_cured(outcome) else {}
        if error is not None and not outcome.has_run:
            return request.answer(error.http_status, error_envelope(error), headers)
        limited = replace(replies, limit_bytes=min(replies.limit_bytes, request.limit_bytes))
        document = limited.write(outcome, lambda document: request.answer(500, document, headers))
        failure = document["error"]  # also of an earlier run, or that the outputs do not fit into the reply
        return request.answer(200 if failure is None else STATUSES.get(failure["code"], 500), document, headers)


@dataclass(frozen=True, slots=True)
class NoticeEvent(Event):
    """S3, SNS or EventBridge has invoked the function itself, asynchronously: mostly, objects appeared in a bucket.

    No caller hears the answer, so every outcome is a `result.json`. One that is not written down makes the invocation
    fail, so that Lambda repeats it, and at last sends it to the function's dead-letter queue.
    """

    contents: Sequence[Content]
    is_heard: bool = False

    def sources(self) -> Sequence[RequestSource]:
        return _sources_of(self.contents, default_id="notice")

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:  # noqa: ARG002
        """What became of each object. Raises the error of the first job that must be repeated, or an unknown event."""
        for outcome in outcomes:
            if not outcome.is_recorded and outcome.error is not None:
                raise outcome.error
        for content in self.contents:
            if isinstance(content, UnknownEvent):
                raise InvalidRequest(content.refusal)
        return {"jobs": [_summary(outcome) for outcome in outcomes]}


@dataclass(frozen=True, slots=True)
class SqsEvent(Event):
    """Messages of a queue: events of S3, job requests, or records of asynchronous invocations that died.

    The answer names the messages to deliver again: those with a job whose outcome is not written down because there is
    no place to write, or that another try may cure; and those that are events of something else. After its last
    delivery the queue puts such a message aside, and the job's failure is written down as well. A job that failed for
    good is reported in its `result.json` and its message is done: delivered again it would fail again, hours later,
    while the GPU waits.

    Attributes:
        messages: each with what is inside of it.
    """

    messages: Sequence[tuple[Mapping[str, Any], Sequence[Content]]]
    is_heard: bool = False

    def sources(self) -> Sequence[RequestSource]:
        return [source for message, contents in self.messages for source in _sources_in(message, contents)]

    def deliveries(self) -> Sequence[int]:
        from comfy_serverless.aws.sqs import receive_count  # which no other kind of event needs

        return [receive_count(message) for message, contents in self.messages for _ in _sources_in(message, contents)]

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:  # noqa: ARG002
        from comfy_serverless.aws.sqs import come_again

        rest = iter(outcomes)
        again = []
        for message, contents in self.messages:
            own = [next(rest) for _ in _sources_in(message, contents)]
            unknown = [content for content in contents if isinstance(content, UnknownEvent)]
            for one in unknown:
                log.error("a message asks for no job", message_id=message["messageId"], reason=one.refusal)
            if unknown or not all(outcome.is_recorded and not _may_be_cured(outcome) for outcome in own):
                again.append(message["messageId"])
        return come_again(again)


def queued_jobs(event: object) -> dict[str, JobMessage]:
    """The jobs of the API that messages of the job queue ask for, by the ids of those messages that do."""
    jobs = {message["messageId"]: JobMessage.parse(_body_of(message)) for message in records_of(event, "aws:sqs")}
    return {message_id: job for message_id, job in jobs.items() if job is not None}


def _may_be_cured(outcome: Outcome) -> bool:
    return outcome.job.error is not None and outcome.job.error.retryable


def _body_of(message: Mapping[str, Any]) -> str:
    return str(message.get("body") or "")


def _sources_in(message: Mapping[str, Any], contents: Sequence[Content]) -> list[RequestSource]:
    """The jobs one message of SQS asks for."""
    attributes = message.get("messageAttributes")
    told = attributes if isinstance(attributes, Mapping) else {}
    values = {name: one.get("stringValue") for name, one in told.items() if isinstance(one, Mapping)}
    return _sources_of(contents, default_id=f"sqs-{message['messageId']}", trace=Trace.of(values))


def _trace_in(payload: object) -> Trace | None:
    """Where a caller without headers says to be in a trace: a label of the request."""
    labels = payload.get("metadata") if isinstance(payload, Mapping) else None
    return Trace.of(labels) if isinstance(labels, Mapping) else None


def _sources_of(contents: Sequence[Content], *, default_id: str, trace: Trace | None = None) -> list[RequestSource]:
    """The jobs in an envelope. A request that has no name itself is named by its envelope, or by the default."""
    found: list[RequestSource] = []
    for content in contents:
        match content:
            case DroppedObject():
                found.append(content)
            case Letter(payload=payload, name=name):
                job_id = re.sub(r"[^A-Za-z0-9_-]", "-", name or default_id)[:64]
                place = trace or _trace_in(payload)
                found.append(SentRequest(payload=payload, default_id=job_id, what="the message", trace=place))
    return found


def _summary(outcome: Outcome) -> dict[str, Any]:
    job = outcome.job
    return {
        "id": job.id,
        "status": job.status.value,
        "source": job.metadata.get("source"),
        "outputs": job.outputs_made,
        "result_uri": job.result_uri,
        "error": None if job.error is None else {"code": job.error.code, "message": job.error.message},
    }
