"""The Lambda function that takes dropped objects and looks after batches: events of S3, and our own messages.

SQS: S3 events ──► a job, or a batch          SQS: orders ──► see `batches.orders`
Step Functions: orders to read a range, for large manifests
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from comfy_serverless.aws.sqs import take_each
from comfy_serverless.batches.drops import NotThere
from comfy_serverless.batches.orders import Order
from comfy_serverless.handlers import again, wiring
from comfy_serverless.jobs.sources import died_invocation, dropped_objects
from comfy_serverless.observability import log

#: The part of an invocation that is kept back for the chunk in hand, and to pass the rest on.
RESERVE_S = 60.0

wiring.at_start(wiring.ingest)


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Do what each message asks for. One that fails comes again, and does not hold up the others."""
    left_s = context.get_remaining_time_in_millis() / 1000
    until = time.monotonic() + max(0.0, left_s - min(RESERVE_S, left_s / 2))
    if "Records" not in event:  # of the state machine: it tries again by itself
        return {"is_read": wiring.ingest().keeper.read(event["batch"], event["start"], until=until)}

    again.hold(event, left_s=left_s)  # a dropped object has no other trace than its message

    def take(message: Mapping[str, Any]) -> bool:
        try:
            _take(json.loads(message["body"]), until)
        except NotThere:
            log.exception("the object is no longer there")
        return True

    answer = take_each(event["Records"], take, failing="a message could not be dealt with, and comes again")
    return again.put_off(event, answer)


def _take(body: Any, until: float) -> None:  # noqa: ANN401
    keeper = wiring.ingest().keeper
    match Order.parse(body):
        case Order(batch_id=batch_id, start=int(start), is_resume=True):
            keeper.resume(batch_id, start=start, until=until)
        case Order(batch_id=batch_id, start=int(start)):
            keeper.read_or_pass_on(batch_id, start, until=until)
        case Order(batch_id=batch_id):
            keeper.advance(batch_id, until=until)
        case None:
            # Of the release before, the dead letters of drops may have records of invocations too.
            _, event = died_invocation(body) or ("", body)
            for dropped in dropped_objects(event):
                wiring.ingest().drop(dropped)
