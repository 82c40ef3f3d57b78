"""The Lambda function that looks after neglected jobs and expired assets, every minute."""

from __future__ import annotations

import functools
from typing import Any

from comfy_serverless.jobs import s3
from comfy_serverless.jobs.care import MAX_JOBS, Care
from comfy_serverless.jobs.dispatch import WebhookQueue, workers_of
from comfy_serverless.jobs.store.assets import AssetStore
from comfy_serverless.jobs.store.jobs import JobStore
from comfy_serverless.jobs.store.table import Table, create_client
from comfy_serverless.settings import InvalidSetting, Settings


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


def handler(_event: object, _context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """One round; answers how many jobs needed somebody, and how many assets had expired.

    Fails if one of them could not be looked after, and after all others were: then an alarm tells.
    """
    try:
        count = care().round()
    finally:
        removed = assets().remove_expired(limit=MAX_JOBS)
    return {"jobs": count, "assets": removed}
