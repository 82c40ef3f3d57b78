"""Answers requests for live events: in whose name, of what, and with which stream. It knows no server.

    a request ──► a signed link, or a key ──► the job, or the list, is looked at ──► headers, and frames as they come

The function behind the streaming REST API (`handlers.stream`) and the gateway of the local stack answer with this.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.api.auth import caller_by_header
from comfy_serverless.api.event_links import LIST_PATH, TOKEN, owner_of
from comfy_serverless.api.jobs import job_of
from comfy_serverless.api.live import EVENT_STREAM, Pace, Seen, SeenJobs
from comfy_serverless.api.query import check_parameters
from comfy_serverless.api.responses import NOT_KEPT, refuse, security_headers
from comfy_serverless.api.watching import JobWatch, ListWatch, Watch, stream
from comfy_serverless.errors import ComfyError, InternalError, NotFound, TooManyStreams, UpstreamError
from comfy_serverless.jobs.links import Links
from comfy_serverless.observability import log
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.table.event_keys import EventKeys
from comfy_serverless.table.reader import JobReader
from comfy_serverless.table.watchers import Place, WatcherPlaces

_PATH = re.compile(r"/api/v2/jobs/(?P<id>[^/]+)/events")
LAST_EVENT_ID = "last-event-id"
#: How long browsers remember what a page may send, in seconds.
_CORS_MAX_AGE_S = 600
#: A place is kept so much longer than its stream may last, for the end of it, in seconds.
_PLACE_RESERVE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for events.

    Attributes:
        headers: by their names in lower case.
        origins: web pages that may ask, beside those of the settings.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """An answer whose body comes bit by bit. Whoever has sent it, or cannot send it, closes it.

    Attributes:
        leave: gives back what the stream has taken.
    """

    status: int
    headers: Mapping[str, str]
    body: Iterable[str] = ()
    leave: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Stop watching. Done twice, it is the same."""
        self.leave()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStreams:
    """The events of one stack.

    Attributes:
        event_keys: those that links are signed with.
        places: those of each owner's watchers.
        beside: reads jobs of older releases.
        pace: makes the pace of a watcher.
        clock, wait: as `watching.stream` has them.
    """

    jobs: JobReader
    keys: ApiKeyStore
    event_keys: EventKeys
    places: WatcherPlaces
    links: Links
    beside: Executor
    cors_origins: tuple[str, ...] = ()
    pace: Callable[[], Pace] = Pace
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], object] = time.sleep

    def answer(self, asked: Asked, *, until: float) -> Streamed:
        """Answer a request, with a stream that ends at a moment on the clock. A refusal is the contract's envelope."""
        headers = {**security_headers(asked.headers), **_cors(asked, self.cors_origins)}
        if asked.method == "OPTIONS":
            return Streamed(status=HTTPStatus.NO_CONTENT, headers=headers)
        try:
            owner = self._owner(asked)
            watch = self._watch(asked, owner)
            first = watch.look()
            place = None if watch.is_over else self._place(owner, until)
        except ComfyError as error:
            return _refused(error, headers)
        except (ClientError, BotoCoreError, TimeoutError):
            log.exception("AWS did not do its part")
            return _refused(
                UpstreamError("a service behind these events does not answer as it should: try again."), headers
            )
        except Exception:  # noqa: BLE001  (as all routes: the log has it)
            log.exception("bug: the request failed in our own code")
            return _refused(
                InternalError("the request failed because of a mistake of ours; the log has the details."), headers
            )
        if watch.is_over and not first and asked.headers.get(LAST_EVENT_ID):
            # A browser that has seen all connects again after each end; this answer alone stops it.
            return Streamed(status=HTTPStatus.NO_CONTENT, headers={**headers, **NOT_KEPT})
        return Streamed(
            status=HTTPStatus.OK,
            headers={**headers, **NOT_KEPT, "content-type": EVENT_STREAM, "x-accel-buffering": "no"},
            body=stream(watch, first, until=until, clock=self.clock, wait=self.wait),
            leave=lambda: None if place is None else self._leave(place),
        )

    def _place(self, owner: str, until: float) -> Place:
        """A place for a stream. Raises TooManyStreams."""
        place = self.places.take(owner, for_s=until - self.clock() + _PLACE_RESERVE_S)
        if place is None:
            raise TooManyStreams(
                f"{self.places.each} streams of your events are open already, which is as many as an owner may have: "
                "close one, or ask for the job itself."
            )
        return place

    def _leave(self, place: Place) -> None:
        try:
            self.places.leave(place)
        except (ClientError, BotoCoreError, TimeoutError):
            log.exception("a watcher's place is not given back: it is free when its stream would have ended")

    def _watch(self, asked: Asked, owner: str) -> Watch:
        found = _PATH.fullmatch(asked.path)
        last = asked.headers.get(LAST_EVENT_ID, "")
        if found is None:
            return ListWatch(owner, self.jobs, self.links, self.beside, SeenJobs.parse(last))
        state = job_of(owner, found["id"], read=self.jobs.read_with_preview)
        return JobWatch(state, self.jobs, self.links, Seen.parse(last), self.pace())

    def _owner(self, asked: Asked) -> str:
        """In whose name the request is made.

        Raises:
            NotFound: that is no address of events.
            InvalidRequest: it has a parameter that no such address has.
            Unauthorized, RateLimited: no right comes with it, or its key has sent too many.
        """
        if asked.method != "GET" or (asked.path != LIST_PATH and not _PATH.fullmatch(asked.path)):
            raise NotFound(f"there is nothing at {asked.method[:10]} {asked.path[:200]}: only events are here.")
        check_parameters(asked.query, [TOKEN])
        if token := asked.query.get(TOKEN):
            return owner_of(token, asked.path, self.event_keys)
        return caller_by_header(asked.headers.get("authorization", ""), self.keys).owner


def _refused(error: ComfyError, headers: Mapping[str, str]) -> Streamed:
    refusal = refuse(error)
    told: dict[str, Any] = {**headers, **refusal.headers, "content-type": refusal.content_type}
    return Streamed(status=refusal.status_code, headers=told, body=(str(refusal.body),))


def _cors(asked: Asked, origins: tuple[str, ...]) -> dict[str, str]:
    """What lets the console's page, and those of the settings, read the answer."""
    origin, allowed = asked.headers.get("origin", ""), {*origins, *asked.origins}
    told = {"vary": "Origin"}
    if origin and (origin in allowed or "*" in allowed):
        told["access-control-allow-origin"] = origin
        told["access-control-expose-headers"] = "Retry-After"
        if asked.method == "OPTIONS":
            told["access-control-allow-methods"] = "GET"
            told["access-control-allow-headers"] = "Authorization,Last-Event-ID"
            told["access-control-max-age"] = str(_CORS_MAX_AGE_S)
    return told
