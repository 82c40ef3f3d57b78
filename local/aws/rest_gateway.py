"""A REST API of API Gateway on this machine, with integrations that stream: the routes of `EventsApi` in template.yaml.

Events are those of REST APIs (v1). A client hears each part when it comes; one that has left ends its invocation with
the next part; a stream without a part is cut after the idle timeout.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from local.aws.http_server import LocalServer
from local.aws.processes import LOOPBACK
from local.aws.runtime_api import FunctionFailed, Prelude, ProtocolBroken, StreamingFunction, Throttled
from local.aws.template import properties_of

API: Final = "EventsApi"
#: Of regional APIs, in seconds.
IDLE_S: Final = 300.0


class RestGateway:
    """Serves the API at a free port, from `start` to `stop`.

    Args:
        variables: those of the stage.
    """

    def __init__(
        self, function: StreamingFunction, *, variables: Mapping[str, str] | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._function, self._variables, self._idle_s = function, dict(variables or {}), idle_s
        properties = properties_of(API)
        self._stage = f"/{properties['StageName']}"
        self._routes = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path, methods)
            for path, methods in properties["DefinitionBody"]["paths"].items()
        ]
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner._answer(self)

            def do_OPTIONS(self) -> None:
                owner._answer(self)

            def do_POST(self) -> None:
                owner._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = LocalServer((LOOPBACK, 0), Handler)

    @property
    def url(self) -> str:
        """Its address, as EVENTS_URL has it."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}{self._stage}"

    def start(self) -> None:
        """Serve requests in a thread."""
        threading.Thread(target=self._server.serve_forever, name="rest gateway", daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        event = self._event(request)
        if event is None:
            return _refuse(request, 403, "Missing Authentication Token")
        try:
            running = self._function.invoke(event)
        except Throttled:
            return _refuse(request, 500, "Internal server error")
        try:
            head = running.head(timeout_s=self._idle_s)
        except (FunctionFailed, ProtocolBroken, TimeoutError):
            return _refuse(request, 502, "Internal server error")
        try:
            _begin(request, head)
            while (part := running.part(timeout_s=self._idle_s)) is not None:
                request.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            request.wfile.write(b"0\r\n\r\n")
        except (OSError, FunctionFailed, ProtocolBroken, TimeoutError):
            running.is_abandoned.set()  # the connection is cut: its client sees that the stream has no end
        return None

    def _event(self, request: BaseHTTPRequestHandler) -> dict[str, Any] | None:
        """The event of a request; None if there is no such route."""
        parts = urlsplit(request.path)
        path = parts.path.removeprefix(self._stage)
        method = request.command
        route = next(
            (
                resource
                for pattern, resource, methods in self._routes
                if parts.path.startswith(self._stage) and pattern.fullmatch(path) and method.lower() in methods
            ),
            None,
        )
        if route is None:
            return None
        many: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            many.setdefault(name, []).append(value)
        query = parse_qs(parts.query, keep_blank_values=True)
        return {
            "resource": route,
            "path": path,
            "httpMethod": method,
            "headers": {name: values[-1] for name, values in many.items()},
            "multiValueHeaders": many,
            "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
            "multiValueQueryStringParameters": query or None,
            "pathParameters": {"id": path.split("/")[4]} if "{id}" in route else None,
            "stageVariables": self._variables or None,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "local",
                "stage": self._stage.strip("/"),
                "path": parts.path,
                "httpMethod": method,
                "resourcePath": route,
                "requestId": str(uuid.uuid4()),
                "identity": {"sourceIp": request.client_address[0]},
            },
            "body": None,
            "isBase64Encoded": False,
        }


def _begin(request: BaseHTTPRequestHandler, head: Prelude) -> None:
    request.send_response(head.status)
    for name, value in head.headers.items():
        request.send_header(name, value)
    request.send_header("Transfer-Encoding", "chunked")
    request.send_header("Connection", "close")
    request.end_headers()


def _refuse(request: BaseHTTPRequestHandler, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.send_header("Connection", "close")
    request.end_headers()
    request.wfile.write(body)
