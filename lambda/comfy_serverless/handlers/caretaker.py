"""The Lambda function that looks after neglected jobs and expired assets, every minute."""

from __future__ import annotations

import functools
from typing import Any

from comfy_serverless.aws import s3
from comfy_serverless.aws.dynamodb import Table, create_client
from comfy_serverless.aws.sqs import JobQueue, WebhookQueue
from comfy_serverless.aws.sqs import create_client as create_queue_client
from comfy_serverless.batches.orders import Order
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.settings import Settings
from comfy_serverless.table.assets import AssetStore
from comfy_serverless.table.care import MAX_JOBS, Care
from comfy_serverless.table.dispatch import workers_of
from comfy_serverless.table.jobs import JobStore


@functools.cache
def care() -> Care:
    """The table and the queues of this process."""
    settings = Settings.from_environment()
    if settings.jobs_table is None:
        raise InvalidSetting("JOBS_TABLE must be set on this function")
    jobs = JobStore(Table(create_client(), settings.jobs_table), lease_s=settings.lease_s, max_runs=settings.max_runs)
    return Care(jobs, workers_of(settings), WebhookQueue.at(settings.webhook_queue_url), s3.create_client())


@functools.cache
def assets() -> AssetStore:
    """The assets of this process."""
    settings = Settings.from_environment()
    if settings.jobs_table is None or settings.assets_bucket is None:
        raise InvalidSetting("JOBS_TABLE and ASSETS_BUCKET must be set on this function")
    return AssetStore(Table(create_client(), settings.jobs_table), s3.create_client(), bucket=settings.assets_bucket)


def wake_stale_batches() -> int:
    """Tell `ingest` of batches that nobody has looked at for a minute; answers how many."""
    settings = Settings.from_environment()
    if settings.manifest_queue_url is None:
        return 0
    batches = BatchStore(Table(create_client(), str(settings.jobs_table))).neglected(limit=MAX_JOBS)
    if batches:
        queue = JobQueue(create_queue_client(), settings.manifest_queue_url)
        queue.send_many([Order(batch_id=batch_id).to_text() for batch_id in batches])
    return len(batches)


def handler(_event: object, _context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """One round; answers how many jobs needed somebody, and how many assets had expired.

    Fails if one of them could not be looked after, and after all others were: then an alarm tells.
    """
    try:
        count = care().round()
    finally:
        try:
            looked_at = wake_stale_batches()
        finally:
            removed = assets().remove_expired(limit=MAX_JOBS)
    return {"jobs": count, "batches": looked_at, "assets": removed}
