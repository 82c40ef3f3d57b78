"""The HTTP of the container on SageMaker: one event loop reads all requests, threads run invocations.

    connection ──► waits: head, then body ──► /ping         answered by the loop, at once
                                          └──► /invocations  a place, if one is free, and a thread

Whoever has not sent a whole request has no place and no thread, so slow ones take nothing from others. There is a limit
to how many wait: with one more, the one that has waited longest is cut off.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import ClientError, web
from aiohttp.http import HttpProcessingError

from comfy_serverless import tracing
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound, PayloadTooLarge, QueueFull
from comfy_serverless.jobs.document import error_envelope
from comfy_serverless.jobs.sources import MAX_PAYLOAD_BYTES
from comfy_serverless.observability import count_refusal
from comfy_serverless.redaction import redacted

#: How many connections may wait for the rest of a request. Each may hold a body of MAX_PAYLOAD_BYTES.
MOST_WAITING = 64
#: How long a body may be on its way, in seconds.
BODY_S = 60.0
#: How long a connection is kept for its next request, in seconds: longer than SageMaker keeps it.
_KEEP_ALIVE_S = 65.0
#: How long more of a body that was refused is taken, so that its sender gets to read the answer, in seconds.
_LINGER_S = 2.0
_ASK_EVERY_S = 1.0
_BACKLOG = 2048
_INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"

#: A status, and what is said as JSON.
Answer = tuple[int, dict[str, Any]]


class Application(Protocol):
    """What answers.

    Attributes:
        places: how many invocations it takes at once.
    """

    places: int

    def ping(self) -> Answer:
        """Answer at once."""

    def take_place(self) -> int | None:
        """Take a place for an invocation. Returns None, or how many are in hand if there is no place left."""

    def invoke(self, body: bytes, inference_id: str) -> Answer:
        """Answer an invocation, after minutes perhaps, and give its place back."""


class FrontDoor(web.Server):
    """Answers the requests of all connections. Made in its event loop.

    Args:
        threads: runs invocations; has a thread for each place.
    """

    def __init__(self, application: Application, threads: ThreadPoolExecutor) -> None:
        super().__init__(
            self._serve,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEEP_ALIVE_S,
            lingering_time=_LINGER_S,
        )
        self._application = application
        self._threads = threads
        #: The connections without a whole request, the one that has waited longest first.
        self._waiting: dict[web.RequestHandler, None] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """A connection has come: it waits."""
        super().connection_made(handler, transport)
        self._wait(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """A connection has gone."""
        super().connection_lost(handler, exc)
        self._waiting.pop(handler, None)

    def _wait(self, connection: web.RequestHandler) -> None:
        self._waiting[connection] = None
        if len(self._waiting) > MOST_WAITING:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.force_close()
            if longest.transport is not None:
                longest.transport.abort()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            status, body = await self._answer(request)
        except ComfyError as error:
            count_refusal(error)
            status, body = _encoded((error.http_status, error_envelope(error)))
        finally:
            if request.transport is not None:
                self._waiting.pop(request.protocol, None)
                self._wait(request.protocol)  # for its next request
        response = web.Response(status=status, body=body, content_type="application/json")
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            response.headers["Retry-After"] = "10"
        if not request.content.is_eof():
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> tuple[int, bytes]:
        match request.method, request.path:
            case "GET", "/ping":
                return _encoded(self._application.ping())
            case "POST", "/invocations":
                body = await _body_of(request)
                if (in_hand := self._application.take_place()) is not None:
                    raise QueueFull(f"{in_hand} invocations are in hand: send it again later.")
                self._waiting.pop(request.protocol, None)
                inference_id = request.headers.get(_INFERENCE_ID, "")
                loop = asyncio.get_running_loop()
                caller = tracing.Trace.of(request.headers)

                def invoke() -> tuple[int, bytes]:
                    with (
                        tracing.span("invocation", kind=tracing.Kind.SERVER, parent=caller) if caller else nullcontext()
                    ):
                        return _encoded(self._application.invoke(body, inference_id))

                return await loop.run_in_executor(self._threads, invoke)
        raise NotFound("there are GET /ping and POST /invocations here.")


async def _body_of(request: web.BaseRequest) -> bytes:
    """The body of a request; it is refused before it is read if its length is told, else as soon as it is too long."""
    length = request.content_length
    if length is not None and length > MAX_PAYLOAD_BYTES:
        raise _too_large(f"{length:,}")
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_PAYLOAD_BYTES:
                    raise _too_large(f"more than {MAX_PAYLOAD_BYTES:,}")
    except TimeoutError as error:
        raise InvalidRequest(f"the body did not come within {BODY_S:g} s") from error
    except (OSError, ClientError, HttpProcessingError) as error:
        raise InvalidRequest(f"the body broke off: {redacted(error)}") from error
    return bytes(body)


def _too_large(size: str) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body has {size} bytes; at most {MAX_PAYLOAD_BYTES:,} can be sent. Upload images to S3 and name them as "
        "s3:// inputs."
    )


def _encoded(answer: Answer) -> tuple[int, bytes]:
    status, document = answer
    return status, json.dumps(document).encode()


async def serve(application: Application, sockets: Sequence[socket.socket], *, goes_on: Callable[[], bool]) -> None:
    """Serve an application at listening sockets while it goes on, which is asked once a second."""
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(application.places, thread_name_prefix="invocation")
    door = FrontDoor(application, threads)
    servers = [await loop.create_server(door, sock=each, backlog=_BACKLOG) for each in sockets]
    while goes_on():
        await asyncio.sleep(_ASK_EVERY_S)
    for server in servers:
        server.close()
