"""Live events on this machine: what answers behind the streaming REST API, in the name of that function's role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from comfy_serverless.api.event_streams import EventStreams
from comfy_serverless.api.live import Pace
from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.jobs.links import Links
from comfy_serverless.settings import Settings
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.table.event_keys import EventKeys
from comfy_serverless.table.reader import JobReader
from comfy_serverless.table.watchers import WatcherPlaces
from local.aws.roles import role_of
from local.aws.server import local_client
from local.aws.stack import LocalStack
from local.aws.template import TABLE

#: The function whose place it takes.
FUNCTION = "EventsFunction"
#: The gateway has a hundred threads, one owner, and tabs that are opened again and again.
STREAMS_PER_OWNER = 50


def quick_pace() -> Pace:
    """That of a machine where reads cost nothing."""
    return Pace(shortest_s=0.02, running_s=0.25, longest_s=1.0, burst=60.0, reads_a_second=10.0)


def event_streams(
    stack: LocalStack, variables: Mapping[str, str], *, wait: Callable[[float], object], pace: Callable[[], Pace]
) -> EventStreams:
    """The events of a stack, with these settings.

    Args:
        wait: waits for so many seconds, and returns whether all is to end.
    """
    settings, role, url = Settings.from_environment(variables), role_of(FUNCTION), stack.aws.endpoint_url
    table = Table(local_client("dynamodb", url, role=role), TABLE)
    return EventStreams(
        jobs=JobReader(table),
        keys=ApiKeyStore(table),
        event_keys=EventKeys(table),
        places=WatcherPlaces(table, max(settings.streams_per_owner, STREAMS_PER_OWNER)),
        links=Links(local_client("s3", url, role=role), settings.link_expiry_s),
        beside=ThreadPoolExecutor(4, thread_name_prefix="beside"),
        cors_origins=settings.cors_origins,
        pace=pace,
        wait=wait,
    )
