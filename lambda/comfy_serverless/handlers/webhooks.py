"""The Lambda function that calls webhooks: messages of a queue, one for each job that has ended.

A call that fails is made again, after longer and longer pauses, as long as the queue allows; then its message is put
aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless import tracing
from comfy_serverless.aws.sqs import WebhookQueue, take_each
from comfy_serverless.handlers import again, wiring
from comfy_serverless.webhooks.calls import BACKOFF_S

wiring.at_start(wiring.webhook_caller)


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Call the webhook of each message; returns which messages must come again."""
    caller = wiring.webhook_caller()

    def call(message: Mapping[str, Any]) -> bool:
        return caller.call(WebhookQueue.job_of(message["body"]))

    answer = take_each(event.get("Records", ()), call, failing="a webhook was not called")
    tracing.flush(wiring.FLUSH_S)
    return again.put_off(event, answer, pauses_s=BACKOFF_S)
