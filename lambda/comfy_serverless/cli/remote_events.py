"""The live events of a job, as the API's `urls.events` tells them: server-sent events, with ids to go on from.

A link to another origin carries its own right, and is asked without the key. An API that cannot stream answers with a
snapshot of what is new, which reads the same and ends sooner.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

import requests

from comfy_serverless.cli.habits import one_line
from comfy_serverless.cli.remote_answers import Document, object_in, reason_of
from comfy_serverless.cli.remote_api import Api

_CHUNK_BYTES = 4096


class Event(NamedTuple):
    """One event. `id` says what its reader has seen up to here; "" if the stream does not say it."""

    kind: str
    data: Document
    id: str = ""


class NoStream(Exception):
    """There are no events to be had, or no more for now; the text says why."""


def events(api: Api, job: Mapping[str, Any], *, last_id: str = "") -> Iterator[Event]:
    """The events of a job as they come, until the API ends the stream.

    Args:
        job: as the API has just told it: links in it expire.
        last_id: of the last event that was seen; what comes is what is new since.

    Raises:
        NoStream: the API has answered something else, or the connection has broken off.
    """
    url = urljoin(f"{api.base_url}/", _link_of(api, job))
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    try:
        with api.send("GET", url, with_key=api.is_own(url), stream=True, headers=headers) as answer:
            if answer.status_code == HTTPStatus.NO_CONTENT:  # everything was seen
                return
            kind = answer.headers.get("content-type", "")
            if answer.status_code != HTTPStatus.OK or not kind.startswith("text/event-stream"):
                raise NoStream(_refusal(answer))
            # What is not chunked is read byte by byte: else a frame would wait until a buffer is full.
            size = _CHUNK_BYTES if getattr(answer.raw, "chunked", False) else 1
            yield from frames(line.decode("utf-8", "replace") for line in answer.iter_lines(chunk_size=size))
    except requests.RequestException as error:
        raise NoStream(f"the connection has broken off: {reason_of(error)}") from error


def frames(lines: Iterable[str]) -> Iterator[Event]:
    """The events in the lines of a stream; comments, and data that is no JSON object, are passed over. No IO."""
    kind, data, id_ = "message", [], ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            id_ = value
        elif not line:
            if (document := object_in("\n".join(data))) is not None:
                yield Event(kind, document, id_)
            kind, data = "message", []


def _link_of(api: Api, job: Mapping[str, Any]) -> str:
    """Where the events are: as the job says, else where the contract has them."""
    urls = job.get("urls")
    link = urls.get("events") if isinstance(urls, Mapping) else None
    if isinstance(link, str) and link.startswith("http"):
        return link
    # A path is from the root of the contract, and the API may be mounted below one.
    return f"{api.base_url}/api/v2/jobs/{quote(str(job['id']), safe='')}/events"


def _refusal(answer: requests.Response) -> str:
    error = (object_in(answer.text) or {}).get("error")
    if isinstance(error, Mapping) and isinstance(error.get("message"), str):
        return one_line(error["message"].rstrip("."))
    return f"the API has answered {answer.status_code}"
