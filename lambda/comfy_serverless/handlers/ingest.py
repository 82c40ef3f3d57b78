"""The Lambda function that takes dropped objects and looks after batches: events of S3, and our own messages.

SQS: S3 events ──► a job, or a batch          SQS: orders ──► see `batches.orders`
Step Functions: orders to read a range, for large manifests
S3, SNS and EventBridge themselves: as their messages
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from comfy_serverless import tracing
from comfy_serverless.aws.sqs import take_each
from comfy_serverless.batches.orders import Order
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.handlers import again, wiring, wiring_ingest
from comfy_serverless.handlers.envelopes import Content, Letter, UnknownEvent, contents_of, records_of
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.observability import Failures

#: The part of an invocation that is kept back for the chunk in hand, and to pass the rest on.
RESERVE_S = 60.0

wiring.at_start(wiring_ingest.ingest)


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Do what each message asks for. One that fails comes again, and does not hold up the others.

    Raises the error of what is no message: Lambda, or the state machine, tries that again by itself.
    """
    try:
        return _follow_all(event, context)
    finally:
        tracing.flush(wiring.FLUSH_S)


def _follow_all(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    left_s = context.get_remaining_time_in_millis() / 1000
    until = time.monotonic() + max(0.0, left_s - min(RESERVE_S, left_s / 2))
    messages = records_of(event, "aws:sqs")
    if not messages:
        order = Order.parse(event)
        if order is not None and order.start is not None and not order.is_resume:  # of the state machine
            return {"is_read": wiring_ingest.ingest().keeper.read(order.batch_id, order.start, until=until)}
        return {"drops": _take(event, until)}

    again.hold(event, left_s=left_s)  # a dropped object has no other trace than its message

    def take(message: Mapping[str, Any]) -> bool:
        _take(message["body"], until)
        return True

    answer = take_each(messages, take, failing="a message could not be dealt with, and comes again")
    return again.put_off(event, answer)


def _take(event: object, until: float) -> int:
    """Do what is inside of an event or a message; returns how many objects were dropped. Raises for what is unknown."""
    contents = contents_of(event)
    with Failures() as failures:
        for content in contents:
            with failures.logged("a part of a message could not be dealt with"):
                _take_one(content, until)
    return len(contents)


def _take_one(content: Content, until: float) -> None:
    match content:
        case DroppedObject():
            wiring_ingest.ingest().drop(content)
        case Letter(body=body):
            _follow(body, until)
        case UnknownEvent(refusal=refusal):
            raise InvalidRequest(refusal)


def _follow(body: Any, until: float) -> None:  # noqa: ANN401  (any JSON value)
    keeper = wiring_ingest.ingest().keeper
    match Order.parse(body):
        case Order(batch_id=batch_id, start=int(start), is_resume=True):
            keeper.resume(batch_id, start=start, until=until)
        case Order(batch_id=batch_id, start=int(start)):
            keeper.read_or_pass_on(batch_id, start, until=until)
        case Order(batch_id=batch_id):
            keeper.advance(batch_id, until=until)
        case None:
            raise InvalidRequest(
                "this is neither an event of S3 nor an order of our own: send job requests to the worker's function, "
                "or drop them into the input bucket."
            )
