"""The Lambda function that calls webhooks: messages of a queue, one for each job that has ended.

A call that fails is made again, after longer and longer pauses, as long as the queue allows; then its message is put
aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.aws.sqs import take_each
from comfy_serverless.handlers import wiring

wiring.at_start(wiring.caller)


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Call the webhook of each message; returns which messages must come again."""
    return take_each(event.get("Records", ()), wiring.caller().take, failing="a webhook was not called")
