"""What the functions behind HTTP work with: `api`, `mcp` and `stream`, made as in `wiring`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from comfy_serverless.handlers import wiring

if TYPE_CHECKING:
    from comfy_serverless.api.event_links import EventLinks
    from comfy_serverless.api.event_streams import EventStreams
    from comfy_serverless.api.services import Services


@functools.cache
def services() -> Services:
    """For `api` and `mcp`: everything behind their routes."""
    from concurrent.futures import ThreadPoolExecutor

    from comfy_serverless.api.services import Services
    from comfy_serverless.table.presigned_uploads import UploadStore
    from comfy_serverless.table.usage import UsageStore

    settings = wiring.settings()
    _, assets_bucket, output_bucket, _ = settings.require(
        "jobs_table", "assets_bucket", "output_bucket", "job_queue_url"
    )
    return Services(
        settings=settings,
        s3=wiring.s3(),
        table=wiring.table(),
        jobs=wiring.jobs(),
        assets=wiring.assets(),
        uploads=UploadStore(wiring.assets()),
        keys=wiring.keys(),
        usage=UsageStore(wiring.table()),
        node_list=wiring.node_list(),
        declarations=wiring.declarations(),
        workflows=wiring.workflow_store(),
        named=wiring.named_workflows(wiring.declarations().fresh),
        workers=wiring.workers(),
        batches=wiring.batches(),
        orders=wiring.manifest_queue() if settings.manifest_queue_url else None,
        care=wiring.care(),
        assets_bucket=assets_bucket,
        output_bucket=output_bucket,
        # One request at a time needs one or two; one that S3 keeps waiting must not hold up the next.
        beside=ThreadPoolExecutor(4, thread_name_prefix="beside"),
        event_links=event_links(),
    )


@functools.cache
def event_links() -> EventLinks | None:
    """Links to live events; None where nothing streams them."""
    from comfy_serverless.api.event_links import EventLinks
    from comfy_serverless.table.event_keys import EventKeys

    settings = wiring.settings()
    url = settings.events_url
    return EventLinks(EventKeys(wiring.table()), url, settings.events_link_s) if url else None


@functools.cache
def event_streams() -> EventStreams:
    """For `stream`: live events of jobs."""
    from concurrent.futures import ThreadPoolExecutor

    from comfy_serverless.api.event_streams import EventStreams
    from comfy_serverless.jobs.links import Links
    from comfy_serverless.table.event_keys import EventKeys
    from comfy_serverless.table.watchers import WatcherPlaces

    settings = wiring.settings()
    settings.require("jobs_table")
    return EventStreams(
        jobs=wiring.jobs(),
        keys=wiring.keys(),
        event_keys=EventKeys(wiring.table()),
        places=WatcherPlaces(wiring.table(), settings.streams_per_owner),
        links=Links(wiring.s3(), settings.link_expiry_s),
        beside=ThreadPoolExecutor(4, thread_name_prefix="beside"),
        cors_origins=settings.cors_origins,
    )
