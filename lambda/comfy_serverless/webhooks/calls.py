"""Calls webhooks: signed, and again later if a call fails."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_serverless.aws.dynamodb import now_s, now_text
from comfy_serverless.aws.sqs import WebhookQueue
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.web import Network, post
from comfy_serverless.jobs.links import Links
from comfy_serverless.observability import log
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.webhooks.signing import headers_of, message_of

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

#: How long one receiver may take, in seconds: it should answer before it begins any work.
CALL_S = 15.0
#: The pauses before the second, third, … call, in seconds; the last counts for all further ones. SQS hides a message
#: for at most 12 hours, and each pause may become a tenth longer.
BACKOFF_S = (5, 30, 120, 900, 3600, 3 * 3600, 6 * 3600, 10 * 3600)
_GONE = 410


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls the webhooks of ended jobs."""

    jobs: JobStore
    links: Links
    network: Network
    sqs: SQSClient
    queue_url: str

    def call(self, job_id: str) -> bool:
        """Call a job's webhook; returns False if it should be called again."""
        state = self.jobs.read(job_id)
        webhook = self.jobs.webhook_of(state) if state is not None and state.is_over else None
        if state is None or webhook is None:
            log.warning("there is no webhook to call", job_id=job_id)
            return True
        try:
            status = self._send(state, webhook)
        except Unusable as error:
            log.warning("a webhook could not be called", job_id=job_id, reason=str(error))
            return False
        if status == _GONE:
            log.warning("a webhook's receiver wants no more calls (410)", job_id=job_id)
        elif not 200 <= status < 300:
            log.warning("a webhook's receiver has refused the call", job_id=job_id, status=status)
            return False
        return True

    def take(self, message: Mapping[str, Any]) -> bool:
        """Call the webhook that a message of the queue asks for; returns False if the message comes again, later."""
        is_done = False
        try:
            is_done = self.call(WebhookQueue.job_of(message["body"]))
        finally:
            if not is_done:
                self._call_later(message)
        return is_done

    def _call_later(self, message: Mapping[str, Any]) -> None:
        """Have a message come again: the more often it has come, the later."""
        try:
            received = int(message.get("attributes", {}).get("ApproximateReceiveCount", "1"))
            pause_s = BACKOFF_S[min(received, len(BACKOFF_S)) - 1]
            self.sqs.change_message_visibility(
                QueueUrl=self.queue_url,
                ReceiptHandle=message["receiptHandle"],
                VisibilityTimeout=round(pause_s * random.uniform(0.9, 1.1)),  # noqa: S311  (spreads calls only)
            )
        except Exception:  # noqa: BLE001  (it comes again all the same, when the queue's own time is over)
            log.exception("a webhook's message was not put off")

    def _send(self, state: JobState, webhook: Webhook) -> int:
        document = self.links.of_job(state.document()).to_json()
        body = message_of(document, timestamp=state.completed_at or now_text())
        headers = headers_of(body, message_id=f"msg_{state.id}", timestamp_s=now_s(), secret=webhook.secret or None)
        return post(webhook.url, body=body, headers=headers, network=self.network, deadline=time.monotonic() + CALL_S)
