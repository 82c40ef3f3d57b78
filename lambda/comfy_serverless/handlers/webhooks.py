"""The Lambda function that calls webhooks: messages of a queue, one for each job that has ended.

A call that fails is made again, later and later, as long as the queue allows; then its message is put aside.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from comfy_serverless.aws import s3
from comfy_serverless.aws import sqs as queues
from comfy_serverless.aws.dynamodb import Table, create_client
from comfy_serverless.aws.sqs import WebhookQueue
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.links import Links
from comfy_serverless.observability import log
from comfy_serverless.settings import Settings
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.webhooks.calls import Caller


@functools.cache
def caller() -> Caller:
    """The caller of this process."""
    settings = Settings.from_environment()
    if settings.jobs_table is None or settings.webhook_queue_url is None:
        raise InvalidSetting("JOBS_TABLE and WEBHOOK_QUEUE_URL must be set on this function")
    table = Table(create_client(), settings.jobs_table)
    return Caller(
        jobs=JobStore(table, lease_s=settings.lease_s, max_runs=settings.max_runs),
        links=Links(s3.create_client(), settings.link_expiry_s),
        network=Network(allow_private=settings.allow_private_addresses),
        sqs=queues.create_client(),
        queue_url=settings.webhook_queue_url,
    )


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Call the webhooks of a batch; answers which messages are to come again."""
    failed = []
    for record in event.get("Records", ()):
        try:
            is_done = caller().call(WebhookQueue.job_of(record["body"]))
        except Exception:  # noqa: BLE001  (one bad message must not cost the others their calls)
            log.exception("a webhook was not called")
            is_done = False
        if not is_done:
            failed.append({"itemIdentifier": record["messageId"]})
            _call_later(record)
    return {"batchItemFailures": failed}


def _call_later(record: Mapping[str, Any]) -> None:
    try:
        caller().call_later(record)
    except Exception:  # noqa: BLE001  (it comes again all the same, when the queue's own time is over)
        log.exception("a webhook's message was not put off")
