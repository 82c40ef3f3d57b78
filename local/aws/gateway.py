"""API Gateway on this machine: HTTP to events and back, the authorizer before, and its limits.

Three things are better than on AWS. Events are live streams at the API's own address: an HTTP API can only send what a
function has returned, a snapshot, and the streams of AWS have an address of their own (docs/live-events.md); their code
is the same. So goes on the call of an agent's tool on `/mcp`, whose client hears of the progress. And a request without
a key is told in the contract's envelope what it lacks, beside API Gateway's own words.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from comfy_serverless.errors import ComfyError, Unauthorized
from comfy_serverless.jobs.document import error_envelope
from local.aws.processes import LOOPBACK

if TYPE_CHECKING:
    from comfy_serverless.api.event_streams import Asked, EventStreams, Streamed

Invoke = Callable[[Any], "Future[Any]"]

MAX_BODY_BYTES = 10 * 1024 * 1024
#: Of an event, as JSON: Lambda's limit.
MAX_EVENT_BYTES = 6 * 1024 * 1024
TIMEOUT_S = 30.0
AUTHORIZER_CACHE_S = 60.0
#: An HTTP API answers such a request itself, and lets nobody shape that; its functions hear nothing of it.
WITHOUT_KEY = (
    "the request has no API key: send `Authorization: Bearer <key>`. Comfy's SDK for Python reads COMFY_API_KEY; that "
    "for TypeScript has to be given the key: new Comfy({ apiKey: process.env.COMFY_API_KEY })."
)
PUBLIC = (
    ("GET", "/api/v2/health"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/"),
    ("GET", "/console/{proxy+}"),
)
#: What the console asks of an API on this machine, and no API on AWS has.
DEVELOPMENT_KEY = "/console/development-key"
_OF_THIS_MACHINE = re.compile(r"(127(\.[0-9]{1,3}){3}|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)
WITH_OTHER_NAME = (
    "everybody knows the development key, so it works at 127.0.0.1 and localhost alone: make one for other names with "
    "`comfy-serverless keys create`."
)
_EVENTS = re.compile(r"/api/v2/(jobs/[^/]+/)?events")
#: As on AWS, where 15 minutes are the limit; and how many watchers there may be at once.
LONGEST_STREAM_S, MAX_WATCHERS = 14 * 60.0, 100
#: The path of agents, and what its function and this gateway tell each other of a call that goes on (`api.tools`).
AGENTS = "/mcp"
STREAMS, GOES_ON = "streams", "goesOn"
_KEEP_ALIVE_S = 15.0
_TEXT_TYPES = re.compile(
    r"text/|application/(json|xml|javascript|x-www-form-urlencoded)|[^;]*\+(json|xml)", re.IGNORECASE
)
#: What a client has done: it has left, or sends what is no HTTP. Nobody has to read a trace of it.
_DONE_BY_CLIENTS = (ConnectionError, HttpProcessingError, web.RequestPayloadError)


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """API Gateway's own error response; the function is not invoked."""

    status: int
    message: str
    hint: ComfyError | None = None

    def response(self) -> web.Response:
        """As it is sent."""
        told = error_envelope(self.hint) if self.hint else {}
        return web.json_response({"message": self.message, **told}, status=self.status)


class PortTaken(RuntimeError):
    """Another program listens at the port."""


@dataclass(slots=True)
class Gateway:
    """Serves HTTP requests by invoking functions.

    Attributes:
        api: begins an invocation of the API's function.
        authorizer: the same of the authorizer.
        agents: the same of the function behind /mcp.
        events: makes what answers with live events, which takes a moment; later calls return the same.
        development_key: a key that everybody knows: the console offers it on a button. It opens nothing to who calls
            this machine by another name: so does a foreign page that has its own name lead here.
    """

    api: Invoke
    authorizer: Invoke
    agents: Invoke
    events: Callable[[], EventStreams]
    development_key: str | None = None
    _watchers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(MAX_WATCHERS, "watcher"))
    _known: dict[str, tuple[float, Mapping[str, Any]]] = field(default_factory=dict)
    #: A browser asks for all files of the console at once, and each takes a millisecond: one after the other they need
    #: one process of the API, which is there, and together one each, which would have to load the API first.
    _page_files: asyncio.Lock = field(default_factory=asyncio.Lock)

    def application(self) -> web.Application:
        """As aiohttp serves it."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_route("*", "/{path:(?s:.*)}", self.answer)
        return application

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request, from its first byte to its last."""
        try:
            if self.development_key is not None:
                _refuse_other_names(request, self.development_key)
            if request.method == "GET" and _EVENTS.fullmatch(request.path):
                return await self._stream(request)
            if (request.method, request.path) == ("GET", DEVELOPMENT_KEY) and self.development_key is not None:
                return web.json_response({"key": self.development_key}, headers={"cache-control": "no-store"})
            context = await self._authorize(request)
            event = await event_of(request, context)
            if request.path == AGENTS and request.method != "OPTIONS":
                return await self._answer_agent(request, event)
            async with self._page_files if _is_of_page(request) else contextlib.nullcontext():
                result = await self._invoke(self.api, event)
            return response_of(result, with_body=request.method != "HEAD")
        except Refused as refused:
            return refused.response()

    async def _answer_agent(self, request: web.Request, event: dict[str, Any]) -> web.StreamResponse:
        """Answer an agent. While its call goes on, the function is asked again, and what it tells is passed on."""
        event["requestContext"][STREAMS] = True
        result = await self._invoke(self.agents, event)
        if not isinstance(result, Mapping) or GOES_ON not in result:
            return response_of(result, with_body=request.method != "HEAD")
        response = web.StreamResponse(headers={**result["headers"], "x-accel-buffering": "no"})
        await response.prepare(request)
        last_sent = time.monotonic()
        while True:
            if result.get("body"):
                await response.write(str(result["body"]).encode())
                last_sent = time.monotonic()
            elif time.monotonic() - last_sent > _KEEP_ALIVE_S:
                await response.write(b": keep-alive\n\n")
                last_sent = time.monotonic()
            transport = request.transport
            if GOES_ON not in result or transport is None or transport.is_closing():
                break
            event["requestContext"][GOES_ON] = result[GOES_ON]
            try:
                result = await self._invoke(self.agents, event)
            except Refused:
                break  # its client sees that the stream has no end
        await response.write_eof()
        return response

    async def _authorize(self, request: web.Request) -> Mapping[str, Any]:
        """What the authorizer knows of the caller."""
        if _is_public(request.method, request.path):
            return {}
        header = ",".join(request.headers.getall("Authorization", []))  # as the event has a header that came twice
        if not header:
            raise Refused(HTTPStatus.UNAUTHORIZED, "Unauthorized", hint=Unauthorized(WITHOUT_KEY))
        known_until, context = self._known.get(header, (0.0, {}))
        if known_until > time.monotonic():
            return context
        event = {**await event_of(request, {}, with_body=False), "type": "REQUEST", "identitySource": [header]}
        answer = await self._invoke(self.authorizer, event)
        if not answer.get("isAuthorized"):
            raise Refused(HTTPStatus.FORBIDDEN, "Forbidden")
        context = answer.get("context") or {}
        self._known[header] = (time.monotonic() + AUTHORIZER_CACHE_S, context)
        return context

    async def _invoke(self, function: Invoke, event: Any) -> Any:  # noqa: ANN401
        try:
            return await asyncio.wait_for(asyncio.wrap_future(function(event)), TIMEOUT_S)
        except TimeoutError:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "Service Unavailable") from None
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  (API Gateway does not say why)
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error") from None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Answer with live events, which a thread waits for: the code that answers behind the streaming REST API."""
        asked = await _asked(request)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._watchers, self._begin_stream, asked)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        try:
            await response.prepare(request)
            parts = iter(answer.body)
            while (part := await loop.run_in_executor(self._watchers, next, parts, None)) is not None:
                await response.write(part.encode())
            await response.write_eof()
        finally:
            self._watchers.submit(answer.close)
        return response

    def _begin_stream(self, asked: Asked) -> Streamed:
        streams = self.events()
        return streams.answer(asked, until=streams.clock() + LONGEST_STREAM_S)


class GatewayServer:
    """A gateway at a port, with a thread and an event loop of its own."""

    def __init__(self, gateway: Gateway, *, port: int) -> None:
        self._gateway = gateway
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._is_up: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Return when it listens.

        Raises:
            PortTaken: another program listens there.
        """
        self._thread.start()
        try:
            self._is_up.result(timeout=10)
        except OSError as error:
            raise PortTaken(
                f"port {self._port} cannot be used ({error.strerror or error}): end what listens there, or choose "
                "another with PORT=…"
            ) from error

    def stop(self) -> None:
        """Close all connections. Safe to call twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        except BaseException as error:  # noqa: BLE001  (`start` raises it)
            self._is_up.set_exception(error)
            return
        self._is_up.set_result(None)
        self._loop.run_forever()
        if self._runner is not None:
            self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _listen(self) -> None:
        log = logging.getLogger(__name__)
        log.addFilter(_is_ours)
        self._runner = web.AppRunner(self._gateway.application(), access_log=None, logger=log, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self._port).start()


def _refuse_other_names(request: web.Request, key: str) -> None:
    """Refuse a request that has, or wants, the key that everybody knows, if it does not call this machine by its name.

    Raises Refused.
    """
    is_meant = request.path == DEVELOPMENT_KEY or key in request.headers.get("Authorization", "")
    if is_meant and not _OF_THIS_MACHINE.fullmatch(request.host):
        raise Refused(HTTPStatus.UNAUTHORIZED, "Unauthorized", hint=Unauthorized(WITH_OTHER_NAME))


def _is_of_page(request: web.Request) -> bool:
    """Whether a file of the console is asked for."""
    return request.method == "GET" and (request.path == "/" or request.path.startswith("/console/"))


def _is_public(method: str, path: str) -> bool:
    """Whether a route lets requests without a key pass; API Gateway's `{proxy+}` is any path of at least one sign."""
    routes = {path, re.sub(r"^(/[^/]+/).+", r"\1{proxy+}", path)}
    return method == "OPTIONS" or any((method, route) in PUBLIC for route in routes)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a report of aiohttp is about this program, and not about what a client has done."""
    return not (record.exc_info and isinstance(record.exc_info[1], _DONE_BY_CLIENTS))


async def event_of(request: web.Request, context: Mapping[str, Any], *, with_body: bool = True) -> dict[str, Any]:
    """The event of a request: API Gateway's payload format 2.0.

    Raises:
        Refused: it is larger than API Gateway or Lambda take, or its body is not what its headers say.
    """
    try:
        body = await request.read()
    except (HttpProcessingError, web.RequestPayloadError):
        raise Refused(HTTPStatus.BAD_REQUEST, "Bad Request") from None
    except web.HTTPRequestEntityTooLarge:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large") from None
    now = datetime.now(UTC)
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name.lower()] = f"{headers[name.lower()]},{value}" if name.lower() in headers else value
    cookies = headers.pop("cookie", "")
    query: dict[str, str] = {}
    for name, value in request.query.items():
        query[name] = f"{query[name]},{value}" if name in query else value
    raw_path = request.path
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw_path,
        "rawQueryString": request.rel_url.raw_query_string,
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": request.host,
            "http": {
                "method": request.method,
                "path": raw_path,
                "protocol": f"HTTP/{request.version.major}.{request.version.minor}",
                "sourceIp": request.remote or "127.0.0.1",
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": round(now.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    if query:
        event["queryStringParameters"] = query
    if context:
        event["requestContext"]["authorizer"] = {"lambda": dict(context)}
    if body and with_body:
        is_text = bool(_TEXT_TYPES.match(headers.get("content-type", "")))
        event["isBase64Encoded"] = not is_text
        event["body"] = body.decode("utf-8", "replace") if is_text else base64.b64encode(body).decode("ascii")
    if len(json.dumps(event)) > MAX_EVENT_BYTES:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large")
    return event


async def _asked(request: web.Request) -> Asked:
    """A request for events."""
    from comfy_serverless.api.event_streams import Asked  # what it stands on takes a moment to load

    headers = {name.lower(): value for name, value in request.headers.items()}
    return Asked(method=request.method, path=request.path, query=dict(request.query), headers=headers)


def response_of(result: Any, *, with_body: bool) -> web.Response:  # noqa: ANN401
    """The HTTP response that a function has returned."""
    if not isinstance(result, Mapping) or not isinstance(result.get("statusCode"), int):
        raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error")
    body = str(result.get("body") or "")
    content = base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()
    response = web.Response(status=result["statusCode"], body=content if with_body else None)
    for name, value in (result.get("headers") or {}).items():
        response.headers[name] = str(value)
    for cookie in result.get("cookies") or ():
        response.headers.add("set-cookie", str(cookie))
    return response
