"""One reader of what AWS delivers: an event, or the body of a message, becomes what is inside of it. No IO.

    S3 notification                    ┐
    EventBridge "Object Created"       ├──► objects that were dropped
    … of another kind, s3:TestEvent    ┘──► nothing
    SNS notification                   ┐
    Lambda's record of one that died   ├──► what is inside of that, as deep as it goes
    JSON in a JSON string              ┘
    an event of anything else          ───► an UnknownEvent, which says what it is
    anything that is no event          ───► a Letter: a job request or an order, or a text that nobody can read

Each may be the event of a Lambda function or the body of a message of SQS; whoever reads one here takes all of them.
Every shape is AWS's own; the fields that tell one from another are those of its documentation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from comfy_serverless.aws.s3 import Pin, S3Address, etag_of
from comfy_serverless.errors import NotJson
from comfy_serverless.jobs.drop_names import DropKind
from comfy_serverless.jobs.shapes import may_be_request
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.json_text import parse_json
from comfy_serverless.observability import log

#: What is taken, for people whose event is not.
TAKEN: Final = (
    "Taken are job requests, events of S3 (by themselves, through SNS or through EventBridge) and messages of SQS with "
    "any of these; the worker also takes HTTP requests of API Gateway, function URLs and load balancers."
)
#: As deep as envelopes are opened: a died invocation of an SNS notification of an S3 event is three.
MAX_DEPTH: Final = 8

_S3, _SNS, _SQS = "aws:s3", "aws:sns", "aws:sqs"
#: The fields that only an event of this kind has together, and what it is.
_OTHERS: Final[Sequence[tuple[tuple[str, ...], str]]] = (
    (("awslogs",), "log events of CloudWatch Logs"),
    (("AlarmName", "NewStateValue"), "an alarm of CloudWatch"),
    (("alarmArn", "alarmData"), "an alarm of CloudWatch"),
    (("deliveryStreamArn", "records"), "records of Firehose"),
    (("invocationSchemaVersion", "tasks"), "tasks of S3 Batch Operations"),
    (("getObjectContext",), "a request to S3 Object Lambda"),
    (("RequestType", "ResponseURL"), "a custom resource of CloudFormation"),
    (("triggerSource", "userPoolId"), "a trigger of Cognito"),
    (("invokingEvent", "ruleParameters"), "a rule of Config"),
    (("methodArn",), "a question to an authorizer of API Gateway"),
    (("routeArn",), "a question to an authorizer of API Gateway"),
    (("CodePipeline.job",), "a job of CodePipeline"),
    (("raw_path", "method"), "a request of VPC Lattice"),
    (("Type", "SubscribeURL"), "the question of SNS whether to subscribe (open its SubscribeURL to confirm)"),
)
#: In the `requestContext` of requests that are not answered here.
_OTHER_REQUESTS: Final[Sequence[tuple[str, str]]] = (
    ("connectionId", "a message of a WebSocket API"),
    ("serviceNetworkArn", "a request of VPC Lattice"),
)


@dataclass(frozen=True, slots=True)
class Letter:
    """What is no event: a job request, an order, or nothing that we know.

    Attributes:
        payload: as it came: a text, or JSON that is parsed already.
        body: the JSON in it; None if there is none.
        name: names it in whatever its envelope was; the same for every delivery. None if nothing did.
    """

    payload: object
    body: object
    name: str | None = None


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event that asks for nothing we do, or a broken one. `what` it is, for people."""

    what: str

    @property
    def refusal(self) -> str:
        """What is said to whoever sent it."""
        return f"this is {self.what}, not a job request. {TAKEN}"


Content = DroppedObject | Letter | UnknownEvent


def contents_of(event: object) -> list[Content]:
    """What is inside of an event or a message, opened as deep as it goes; nothing if it asks for nothing."""
    return list(_open(event, None, MAX_DEPTH))


def records_of(event: object, service: str) -> list[Mapping[str, Any]]:
    """The records of an event if there are some, and all are of this service: `aws:sqs`; else none."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        return []
    return records if all(_source_of(record) == service for record in records) else []


def died_invocation(body: object) -> tuple[str, Any] | None:
    """The id and the payload of an asynchronous invocation, if this is Lambda's record of one that it has given up.

    Lambda sends such records to the queue that a function names for them. None for anything else.
    """
    match body:
        case {"requestContext": {"requestId": str(request_id), "functionArn": str()}, "requestPayload": payload}:
            return request_id, payload
    return None


def _open(payload: object, name: str | None, depth: int) -> Iterator[Content]:
    """Open one envelope. `name` is that of the last one that had one."""
    if depth == 0:
        yield UnknownEvent(f"an envelope in {MAX_DEPTH} others")
        return
    body = _json_of(payload) if isinstance(payload, str) else payload
    if isinstance(body, str) and isinstance(_json_of(body), Mapping):  # JSON that was put into JSON as a text
        yield from _open(body, name, depth - 1)
        return
    if not isinstance(body, Mapping):
        found = _of_list(body, depth) if isinstance(body, list) else None
        yield from [Letter(payload, body, name)] if found is None else found
        return
    if body.get("Event") == "s3:TestEvent":
        return
    if (died := died_invocation(body)) is not None:
        yield from _open(died[1], f"sqs-{died[0]}", depth - 1)
    elif records := records_of(body, _S3):
        yield from (content for record in records if (content := _of_record(record)) is not None)
    elif records := records_of(body, _SNS):
        for record in records:
            yield from _open_notification(record.get("Sns"), depth)
    elif body.get("Type") == "Notification" and "TopicArn" in body:
        yield from _open_notification(body, depth)
    elif isinstance(body.get("detail-type"), str) and isinstance(body.get("source"), str):
        yield from _of_event_bus(body)
    elif (what := _other_event(body)) is not None:
        yield UnknownEvent(what)
    else:
        yield Letter(payload, body, name)


def _of_list(items: list[object], depth: int) -> list[Content] | None:
    """What is in a list of events, or of the records of a queue, as EventBridge Pipes sends them; None in any other."""
    if sources := _sources_in(items):
        piped = f"a list of records of {sources}, as EventBridge Pipes sends them: let Lambda read the queue itself"
        return [UnknownEvent(piped)]
    if pointer := _pointer_in(items):
        far = f"a message whose content is in S3, at {pointer}, as the SQS Extended Client Library sends it"
        return [UnknownEvent(f"{far}: send the request itself, or drop it into the input bucket")]
    if not items or not all(isinstance(item, Mapping) for item in items):
        return None
    found = [content for item in items for content in _open(item, None, depth - 1)]
    return None if any(isinstance(one, Letter) for one in found) else found


def _pointer_in(items: list[object]) -> S3Address | None:
    """Where the content of a message is that was too large for SQS."""
    match items:
        case [str(kind), {"s3BucketName": str(bucket), "s3Key": str(key)}] if kind.endswith("S3Pointer"):
            return S3Address(bucket, key)
    return None


def _open_notification(notification: object, depth: int) -> Iterator[Content]:
    """What a notification of SNS brings. Much else is sent through topics: only a request counts as one."""
    if not isinstance(notification, Mapping) or not isinstance(notification.get("Message"), str):
        yield UnknownEvent("a notification of SNS without a message")
        return
    topic = str(notification.get("TopicArn", "")).rpartition(":")[2]
    name = f"sns-{notification.get('MessageId', '')}"
    for content in _open(notification["Message"], name, depth - 1):
        if isinstance(content, UnknownEvent):
            yield UnknownEvent(f"{content.what} (sent through the SNS topic {topic!r})")
        elif isinstance(content, Letter) and not may_be_request(content.body):
            yield UnknownEvent(f"a notification of the SNS topic {topic!r} about something else")
        else:
            yield content


def _of_event_bus(event: Mapping[str, Any]) -> Iterator[Content]:
    """The object that an event of EventBridge tells of; S3's other events ask for nothing, as its notifications do."""
    kind, source = event["detail-type"], event["source"]
    if source != "aws.s3" or not kind.startswith("Object "):
        yield UnknownEvent(f"the EventBridge event {kind!r} of {source!r}")
        return
    if kind != "Object Created":
        return
    try:
        item = event["detail"]["object"]
        yield from _drop(
            bucket=event["detail"]["bucket"]["name"],
            key=item["key"],  # as it is, unlike those of notifications
            version_id=item.get("version-id"),
            sequencer=item.get("sequencer"),
            etag=item.get("etag"),
            time=event.get("time"),
        )
    except (AttributeError, KeyError, TypeError):
        yield UnknownEvent("a broken event of EventBridge, without a bucket or a key")


def _of_record(record: Mapping[str, Any]) -> Content | None:
    """The object that a record of S3 names, if it was created."""
    if not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated"):
        return None
    try:
        item, key = record["s3"]["object"], record["s3"]["object"]["key"]
        drops = _drop(
            bucket=record["s3"]["bucket"]["name"],
            key=unquote_plus(key) if isinstance(key, str) else key,  # `a+b%C3%BC.json` is `a bü.json`
            version_id=item.get("versionId"),
            sequencer=item.get("sequencer"),
            etag=item.get("eTag"),
            time=record.get("eventTime"),
        )
        return next(drops, None)
    except (AttributeError, KeyError, TypeError):
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        return Letter(record, record, f"s3-{digest[:32]}")


def _drop(
    *, bucket: object, key: object, version_id: object, sequencer: object, etag: object, time: object
) -> Iterator[DroppedObject]:
    """One object, unless it is of those that are left alone.

    S3 numbers the writings of a key (`sequencer`), or gives each an id. Where it does neither, the time of the event
    tells one from another that wrote the same. Raises TypeError for a bucket or a key that is no text.
    """
    if not isinstance(bucket, str) or not isinstance(key, str):
        raise TypeError("an object has no bucket or no key")
    version = "" if version_id in (None, "null") else str(version_id)
    dropped = DroppedObject(
        address=S3Address(bucket, key),
        version=version or str(sequencer or "") or "@".join(str(part) for part in (etag, time) if part),
        pin=Pin(version, etag_of(str(etag or ""))),
    )
    if dropped.kind is DropKind.LEFT_ALONE:
        log.info("a dropped object is left alone", source=str(dropped.address))
        return
    yield dropped


def _other_event(body: Mapping[str, Any]) -> str | None:
    """What an event of something else is; None for what is no event."""
    if sources := _sources_in(body.get("Records")):
        return f"records of {sources}"
    if isinstance(source := body.get("eventSource"), str):  # Kafka, MQ and DocumentDB name it once
        return f"records of {source}"
    context = body.get("requestContext")
    if isinstance(context, Mapping):
        for field, what in _OTHER_REQUESTS:
            if field in context:
                return what
    return next((what for fields, what in _OTHERS if all(field in body for field in fields)), None)


def _sources_in(records: object) -> str:
    """The services that a list of records comes from; "" if it is no such list."""
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        return ""
    names = {"CloudFront" if "cf" in record else _source_of(record) for record in records}
    return ", ".join(sorted(filter(None, names)))


def _source_of(record: Mapping[str, Any]) -> str:
    """The service that a record comes from. SNS alone writes the name of the field with a capital."""
    return str(record.get("eventSource") or record.get("EventSource") or "")


def _json_of(text: str) -> object:
    """The JSON of a text; None if it is none."""
    try:
        return parse_json(text, source="the message")
    except NotJson:
        return None
