"""Live events in this process: the streams over moto's table, and a clock that only their pauses move."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.api.event_streams import Asked, EventStreams, Streamed
from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.links import Links
from comfy_serverless.table.event_keys import EventKeys
from comfy_serverless.table.watchers import WatcherPlaces
from tests.unit.api_world import ApiWorld

URL = "https://events.example/live"
CONSOLE = "https://api.example"


def output(number: int, *, job_id: str = "fox") -> Output:
    """The picture at a place of a job."""
    return Output(
        node_id="9",
        name=f"{number}.png",
        type="image",
        content_type="image/png",
        size_bytes=1,
        id=f"output-{number}",
        job_id=job_id,
        s3_uri=f"s3://comfy-local-output/{job_id}/{number}.png",
        sha256="0" * 64,
    )


@dataclass
class Clock:
    """A clock that stands still, but for pauses; something may happen in each."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)
    happens: Callable[[int], object] = lambda _number: None

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.pauses.append(seconds)
        self.happens(len(self.pauses))


class EventWorld:
    """The events of an `ApiWorld`."""

    def __init__(self, api: ApiWorld, *, each: int = 10, **options: Any) -> None:
        self.api, self.clock = api, Clock()
        self.keys = EventKeys(api.services.table)
        self.streams = EventStreams(
            jobs=api.services.jobs,
            keys=api.services.keys,
            event_keys=self.keys,
            places=WatcherPlaces(api.services.table, each),
            links=Links(api.services.s3, 60),
            beside=ThreadPoolExecutor(1),
            clock=lambda: self.clock.now,
            wait=self.clock.wait,
            **options,
        )

    def open(self, url: str, *, until_s: float = 840.0, method: str = "GET", **headers: str) -> Streamed:
        """Ask for an address: a signed link, or a path with a key among the headers (`last_event_id=…`)."""
        address, _, query = url.removeprefix(URL).partition("?")
        asked = Asked(
            method=method,
            path=address,
            query=dict(pair.split("=", 1) for pair in query.split("&") if pair),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            origins=(CONSOLE,),
        )
        return self.streams.answer(asked, until=self.clock.now + until_s)


@dataclass(frozen=True)
class Frame:
    """A frame as a client reads it."""

    event: str
    data: Any
    id: str | None


def frames(text: str) -> list[Frame]:
    """The frames in a text; comments and `retry` are none."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append(Frame(fields["event"], json.loads(fields["data"]), fields.get("id")))
    return found


def body(answer: Streamed) -> str:
    """The whole body, after which its sender closes the answer."""
    try:
        return "".join(answer.body)
    finally:
        answer.close()


def parts(answer: Streamed) -> Iterator[str]:
    return iter(answer.body)
