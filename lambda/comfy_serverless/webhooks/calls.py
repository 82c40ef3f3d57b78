"""Calls webhooks: signed. `handlers/webhooks` has those that fail called again later."""

from __future__ import annotations

import time
from dataclasses import dataclass

from comfy_serverless import tracing
from comfy_serverless.aws.dynamodb import now_s, now_text
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.web import Network, post
from comfy_serverless.jobs.links import Links
from comfy_serverless.observability import about, log
from comfy_serverless.redaction import redacted
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.webhooks.signing import headers_of, message_of

#: How long one receiver may take, in seconds: it should answer before it begins any work.
CALL_S = 15.0
#: The pauses before the second, third, … call, in seconds, as in `aws.sqs.pause_s`: a receiver that restarts gets the
#: call at once, and one that is away for a day gets it, too.
BACKOFF_S = (5, 30, 120, 900, 3600, 3 * 3600, 6 * 3600, 10 * 3600)
_GONE = 410


@dataclass(frozen=True, slots=True)
class WebhookCaller:
    """Calls the webhooks of ended jobs."""

    jobs: JobStore
    links: Links
    network: Network

    def call(self, job_id: str) -> bool:
        """Call a job's webhook; returns False if it should be called again."""
        with about(job_id):
            return self._call(job_id)

    def _call(self, job_id: str) -> bool:
        state = self.jobs.read(job_id)
        webhook = self.jobs.webhook_of(state) if state is not None and state.is_over else None
        if state is None or webhook is None:
            log.warning("there is no webhook to call")
            return True
        try:
            status = self._send(state, webhook)
        except Unusable as error:
            log.warning("a webhook could not be called", reason=redacted(error))
            return False
        if status == _GONE:
            log.warning("a webhook's receiver wants no more calls (410)")
        elif not 200 <= status < 300:
            log.warning("a webhook's receiver has refused the call", status=status)
            return False
        else:
            log.info("the webhook was called", status=status)
        return True

    def _send(self, state: JobState, webhook: Webhook) -> int:
        document = self.links.of_job(state.document()).to_json()
        body = message_of(document, timestamp=state.completed_at or now_text())
        headers = headers_of(body, message_id=f"msg_{state.id}", timestamp_s=now_s(), secret=webhook.secret or None)
        with tracing.span(
            "call webhook", kind=tracing.Kind.CLIENT, parent=state.place_in_trace, job_id=state.id
        ) as span:
            headers |= trace.fields() if (trace := tracing.current()) else {}
            deadline = time.monotonic() + CALL_S
            status = post(webhook.url, body=body, headers=headers, network=self.network, deadline=deadline)
            span.set(status=status)
            return status
