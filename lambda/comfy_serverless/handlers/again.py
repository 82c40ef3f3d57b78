"""When messages of SQS come again that a function gives back: the more often one has come, the later.

What says so is the message's own visibility, set by the function. A queue's `VisibilityTimeout` (six times the
function's timeout) is only for messages that no function says anything of. Lambda hides those that it has taken and
cannot hand over, because the account's concurrency is used up, for that long, and each time counts as a delivery: a
shorter timeout would make dead letters of messages that no function has ever seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.sqs import AGAIN_AFTER_S, pause_s, queue_url, receive_count
from comfy_serverless.handlers import wiring
from comfy_serverless.observability import log

#: How much longer than their invocation can last messages stay hidden, in seconds: Lambda deletes them after its end.
AFTER_THE_END_S = 30
#: The pauses before the second, third, … delivery of a job's message, in seconds: the five that queues of jobs allow
#: outlast an outage of some hours.
JOBS_AGAIN_AFTER_S = (30, 4 * 60, 32 * 60, 4 * 3600)


def put_off(
    event: Mapping[str, Any], answer: dict[str, Any], *, pauses_s: Sequence[int] = AGAIN_AFTER_S
) -> dict[str, Any]:
    """Put off the messages of an event that a partial batch response gives back; returns the response.

    `pauses_s` are those before the second, third, … delivery, as `aws.sqs.pause_s` takes them.
    """
    given_back = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    for message in event.get("Records", ()):
        if message["messageId"] in given_back:
            _hide(message, pause_s(receive_count(message), pauses_s))
    return answer


def hold(event: Mapping[str, Any], *, left_s: float) -> None:
    """Hide the messages of an event for as long as this invocation can last: if it dies, they come again then."""
    for message in event["Records"]:
        _hide(message, math.ceil(left_s) + AFTER_THE_END_S)


def _hide(message: Mapping[str, Any], for_s: int) -> None:
    try:
        sqs = wiring.sqs()
        sqs.change_message_visibility(
            QueueUrl=queue_url(sqs, message["eventSourceARN"]),
            ReceiptHandle=message["receiptHandle"],
            VisibilityTimeout=for_s,
        )
    except (ClientError, BotoCoreError):  # it comes again all the same, when the queue's own time is over
        log.exception("when a message comes again could not be said", message_id=message["messageId"])
