"""The kinds of events a Lambda function gets, each one a small class.

A kind recognises its events, returns the jobs they ask for (`sources`), and makes the answer that Lambda's caller
expects out of how those ended (`answer`). It decides nothing else.

    direct payload                         the job
    HTTP API, `POST /generate`             status code and JSON body
    S3 event                               a summary; the report is `result.json`
    SQS batch: S3 events, job requests,    the messages to deliver again
    records of invocations that died

`queued_jobs` reads the messages of the job queue, which are none of these: the table decides about those jobs.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from comfy_serverless.errors import STATUSES, InvalidRequest
from comfy_serverless.jobs.document import error_envelope
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import (
    RequestSource,
    SentRequest,
    died_invocation,
    drops_of,
    has_records_of,
    is_s3_event,
)
from comfy_serverless.worker.replies import Replies

if TYPE_CHECKING:
    from comfy_serverless.worker.worker import Outcome


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
    """The kind of an event. One that is of no other kind is a direct payload."""
    if isinstance(event, Mapping):
        for kind in (HttpEvent, SqsEvent, S3Event):
            if kind.recognises(event):
                return kind(event)
    return DirectEvent(event)


@dataclass(frozen=True, slots=True)
class DirectEvent(Event):
    """A job request as the payload itself. The answer is the job, failed or not."""

    payload: object
    is_heard: bool = True

    def sources(self) -> Sequence[RequestSource]:
        return [SentRequest(payload=self.payload, default_id=str(uuid.uuid4()))]

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:
        return replies.write(outcomes[0])


@dataclass(frozen=True, slots=True)
class HttpEvent(Event):
    """A request through API Gateway's HTTP API (payload format 2.0) or a function URL; the body is a job request.

    The answer is the job, with status 200 or that of its error; or, for a request that was refused, the error envelope.
    API Gateway waits 30 seconds: a longer job goes on, and the same request with the same job id gets its result later.
    """

    event: Mapping[str, Any]
    is_heard: bool = True

    @classmethod
    def recognises(cls, event: Mapping[str, Any]) -> bool:
        context = event.get("requestContext")
        return isinstance(context, Mapping) and isinstance(context.get("http"), Mapping)

    def sources(self) -> Sequence[RequestSource]:
        """One, or none for anything but POST."""
        if self._method != "POST":
            return []
        return [SentRequest(payload=self._body(), default_id=str(uuid.uuid4()), what="the body")]

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:
        if not outcomes:
            refusal = InvalidRequest(f"{self._method} is not possible here: send the job request with POST.")
            return _http(405, error_envelope(refusal), {"allow": "POST"})
        outcome = outcomes[0]
        error = outcome.error
        headers = {"retry-after": "10"} if _may_be_cured(outcome) else {}
        if error is not None and not outcome.has_run:
            return _http(error.http_status, error_envelope(error), headers)
        document = replies.write(outcome, lambda document: _http(500, document, headers))
        failure = document["error"]  # also of an earlier run, or that the outputs do not fit into the reply
        return _http(200 if failure is None else STATUSES.get(failure["code"], 500), document, headers)

    @property
    def _method(self) -> str:
        return str(self.event["requestContext"]["http"].get("method", "")).upper()

    def _body(self) -> str | bytes:
        body = str(self.event.get("body") or "")
        if not self.event.get("isBase64Encoded"):
            return body
        try:
            return base64.b64decode(body)
        except ValueError:
            return body  # which is not JSON either: the worker says so


@dataclass(frozen=True, slots=True)
class S3Event(Event):
    """Objects appeared in a bucket; S3 invoked the function itself, asynchronously.

    No caller hears the answer, so every outcome is a `result.json`. One that is not written down makes the invocation
    fail, so that Lambda repeats it, and at last sends it to the function's dead-letter queue.
    """

    event: Mapping[str, Any]
    is_heard: bool = False

    @classmethod
    def recognises(cls, event: Mapping[str, Any]) -> bool:
        return is_s3_event(event)

    def sources(self) -> Sequence[RequestSource]:
        return drops_of(self.event)

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:  # noqa: ARG002
        """What became of each object. Raises the error of the first job that must be repeated."""
        for outcome in outcomes:
            if not outcome.is_recorded and outcome.error is not None:
                raise outcome.error
        return {"jobs": [_summary(outcome) for outcome in outcomes]}


@dataclass(frozen=True, slots=True)
class SqsEvent(Event):
    """Messages of a queue: S3 events, job requests, or records of asynchronous invocations that died.

    The answer names the messages to deliver again: those with a job whose outcome is not written down because there is
    no place to write, or that another try may cure; after its last delivery the queue puts such a message aside, and
    the job's failure is written down as well. A job that failed for good is reported in its `result.json` and its
    message is done: delivered again it would fail again, hours later, while the GPU waits.
    """

    event: Mapping[str, Any]
    is_heard: bool = False

    @classmethod
    def recognises(cls, event: Mapping[str, Any]) -> bool:
        return has_records_of(event, "aws:sqs")

    def sources(self) -> Sequence[RequestSource]:
        return [source for message in self.event["Records"] for source in _sources_of(message)]

    def deliveries(self) -> Sequence[int]:
        from comfy_serverless.aws.sqs import receive_count  # which no other kind of event needs

        return [receive_count(message) for message in self.event["Records"] for _ in _sources_of(message)]

    def answer(self, outcomes: Sequence[Outcome], replies: Replies) -> dict[str, Any]:  # noqa: ARG002
        from comfy_serverless.aws.sqs import come_again

        rest = iter(outcomes)
        again = []
        for message in self.event["Records"]:
            own = [next(rest) for _ in _sources_of(message)]
            if not all(outcome.is_recorded and not _may_be_cured(outcome) for outcome in own):
                again.append(message["messageId"])
        return come_again(again)


def queued_jobs(event: object) -> dict[str, JobMessage]:
    """The jobs of the API that the job queue's messages ask for, by the messages' ids; none in any other event."""
    if not isinstance(event, Mapping) or not has_records_of(event, "aws:sqs"):
        return {}
    found = {}
    for message in event["Records"]:
        job = JobMessage.parse(str(message.get("body") or ""))
        if job is None:
            return {}
        found[message["messageId"]] = job
    return found


def _may_be_cured(outcome: Outcome) -> bool:
    return outcome.job.error is not None and outcome.job.error.retryable


def _sources_of(message: Mapping[str, Any]) -> list[RequestSource]:
    """The jobs one SQS message asks for. A request that has no name itself is named by the message's id.

    The record of an asynchronous invocation that died, moved here from the dead letters, asks for what that one was to
    do.
    """
    payload: Any = str(message.get("body") or "")
    name = str(message["messageId"])
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        body = None
    if (died := died_invocation(body)) is not None:
        name, body = died
        payload = body
    if isinstance(body, Mapping) and is_s3_event(body):
        return list(drops_of(body))
    default_id = f"sqs-{re.sub(r'[^A-Za-z0-9_-]', '-', name)[:60]}"
    return [SentRequest(payload=payload, default_id=default_id, what="the message")]


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


def _http(status: int, document: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", **headers},
        "body": json.dumps(document),
        "isBase64Encoded": False,
    }
