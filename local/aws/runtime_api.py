"""Lambda's Runtime API on this machine, in the form that streams. The emulator of AWS (RIE) has none.

It is strict: what does not keep to the protocol fails here, and not for the first time on AWS.
"""

from __future__ import annotations

import base64
import binascii
import json
import queue
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, NamedTuple

from local.aws.http_server import LocalServer
from local.aws.lambda_emulator import SOURCE_ROOT
from local.aws.processes import LOOPBACK, LocalProcess, clean_environment

ROOT: Final = "/2018-06-01/runtime"
HTTP_STREAM: Final = "application/vnd.awslambda.http-integration-response"
SEPARATOR: Final = b"\0" * 8
MAX_PRELUDE_BYTES: Final = 16 * 1024
_TRAILERS: Final = frozenset({"lambda-runtime-function-error-type", "lambda-runtime-function-error-body"})
_IN_PRELUDE: Final = frozenset({"statusCode", "headers", "multiValueHeaders", "cookies"})
_CHUNK: Final = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_RESPONSE: Final = re.compile(rf"{ROOT}/invocation/([\w-]+)/(response|error)")


class ProtocolBroken(Exception):
    """A runtime has sent what Lambda would not take."""


class FunctionFailed(Exception):
    """An invocation has failed, before its response or in the middle; what the runtime told."""


class Throttled(Exception):
    """As many invocations as the function may have are running."""


class Prelude(NamedTuple):
    """The status and the headers of a response."""

    status: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class Running:
    """An invocation. What comes of it is in `parts`: the prelude, bytes, None at the end, or the failure."""

    id: str
    event: Any
    deadline_ms: int
    parts: queue.Queue[Any] = field(default_factory=queue.Queue)
    is_abandoned: threading.Event = field(default_factory=threading.Event)

    def head(self, *, timeout_s: float) -> Prelude:
        """The prelude. Raises what the invocation has failed with, or TimeoutError."""
        head: Prelude = self._next(timeout_s)
        return head

    def part(self, *, timeout_s: float) -> bytes | None:
        """The next part of the body, None at its end. Raises likewise."""
        part: bytes | None = self._next(timeout_s)
        return part

    def _next(self, timeout_s: float) -> Any:  # noqa: ANN401
        try:
            part = self.parts.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"nothing came of the invocation for {timeout_s:g} s") from None
        if isinstance(part, Exception):
            raise part
        return part


class RuntimeApi:
    """The Runtime API of one process, at a port of its own. `problems` has what was wrong.

    Args:
        host: the address to listen on; "0.0.0.0" for a process in a container.
    """

    def __init__(self, *, host: str = LOOPBACK) -> None:
        self.problems: list[str] = []
        self._waiting: queue.Queue[Running | None] = queue.Queue()
        self._running: dict[str, Running] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner._next(self)

            def do_POST(self) -> None:
                owner._post(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = LocalServer((host, 0), Handler)
        threading.Thread(target=self._server.serve_forever, name="runtime api", daemon=True).start()

    @property
    def address(self) -> str:
        """What AWS_LAMBDA_RUNTIME_API is."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """Its port."""
        return int(self._server.server_address[1])

    def invoke(self, event: object, *, timeout_s: float) -> Running:
        """Begin an invocation; the runtime gets it when it asks for the next one."""
        deadline_ms = round((time.time() + timeout_s) * 1000)
        running = Running(str(uuid.uuid4()), event, deadline_ms)
        self._running[running.id] = running
        self._waiting.put(running)
        return running

    @property
    def is_busy(self) -> bool:
        """Whether the runtime has an invocation that it has not ended."""
        return bool(self._running)

    def fail_all(self, failure: Exception) -> None:
        """The runtime is gone: so are its invocations."""
        for running in list(self._running.values()):
            running.parts.put(failure)

    def close(self) -> None:
        self._waiting.put(None)
        self._server.shutdown()
        self._server.server_close()

    def _next(self, request: BaseHTTPRequestHandler) -> None:
        if request.path != f"{ROOT}/invocation/next":
            return self._refuse(request, f"GET {request.path}")
        running = self._waiting.get()
        if running is None:
            request.close_connection = True
            return None
        body = json.dumps(running.event).encode()
        request.send_response(200)
        for name, value in {
            "Lambda-Runtime-Aws-Request-Id": running.id,
            "Lambda-Runtime-Deadline-Ms": str(running.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:123456789012:function:local",
            "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)
        return None

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == f"{ROOT}/init/error":
            self.fail_all(FunctionFailed(self._told(request)))
            return self._accept(request)
        found = _RESPONSE.fullmatch(request.path)
        running = self._running.get(found[1]) if found else None
        if found is None or running is None:
            return self._refuse(request, f"POST {request.path}")
        try:
            if found[2] == "error":
                running.parts.put(FunctionFailed(self._told(request)))
            else:
                self._receive(request, running)
        except ProtocolBroken as problem:
            running.parts.put(problem)
            return self._refuse(request, str(problem))
        finally:
            self._running.pop(running.id, None)
        if running.is_abandoned.is_set():
            request.close_connection = True
            request.connection.close()
            return None
        return self._accept(request)

    def _receive(self, request: BaseHTTPRequestHandler, running: Running) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        declared = {word.strip().lower() for word in headers.get("trailer", "").split(",") if word.strip()}
        _must(headers.get("lambda-runtime-function-response-mode") == "streaming", "the response mode is not streaming")
        _must(headers.get("transfer-encoding") == "chunked", "the response is not chunked")
        _must("content-length" not in headers, "a response in chunks has no length")
        _must(headers.get("content-type") == HTTP_STREAM, f"the content type is not {HTTP_STREAM}")
        trailers: dict[str, str] = {}
        beginning, is_begun = b"", False
        for chunk in _chunks(request, trailers):
            if running.is_abandoned.is_set():
                return
            if is_begun:
                running.parts.put(chunk)
                continue
            beginning += chunk
            head, separator, body = beginning.partition(SEPARATOR)
            _must(len(head) + len(SEPARATOR) <= MAX_PRELUDE_BYTES, "the prelude is longer than 16 KB")
            if separator:
                running.parts.put(_prelude(head))
                is_begun = True
                if body:
                    running.parts.put(body)
        _must(is_begun, "the response has no prelude")
        _must(trailers.keys() <= declared, f"trailers that were not declared: {sorted(trailers.keys() - declared)}")
        _must(trailers.keys() <= _TRAILERS, f"trailers that Lambda does not know: {sorted(trailers)}")
        running.parts.put(_failure(trailers) if trailers else None)

    @staticmethod
    def _told(request: BaseHTTPRequestHandler) -> str:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        document = json.loads(body)
        if not {"errorType", "errorMessage"} <= document.keys():
            raise ProtocolBroken("an error has errorType and errorMessage")
        return f"{request.headers['Lambda-Runtime-Function-Error-Type']}: {document['errorMessage']}"

    @staticmethod
    def _accept(request: BaseHTTPRequestHandler) -> None:
        request.send_response(202)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _refuse(self, request: BaseHTTPRequestHandler, problem: str) -> None:
        self.problems.append(problem)
        request.send_response(400)
        request.send_header("Content-Length", "0")
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True


class _Sandbox(NamedTuple):
    api: RuntimeApi
    process: LocalProcess


class StreamingFunction:
    """A function that streams, in processes that serve one invocation at a time each, as Lambda has them.

    Args:
        handler: its name, as the function's configuration has it.
        environment: all that it sees beside PATH and its like.
        concurrency: how many processes there may be.
        host: where their Runtime APIs listen.
    """

    def __init__(
        self,
        handler: str,
        environment: Mapping[str, str],
        *,
        concurrency: int = 1,
        timeout_s: float = 900.0,
        host: str = LOOPBACK,
    ) -> None:
        self._handler, self._environment = handler, environment
        self._concurrency, self._timeout_s, self._host = concurrency, timeout_s, host
        self._sandboxes: list[_Sandbox] = []
        self._lock = threading.Lock()

    @property
    def problems(self) -> list[str]:
        """What its runtimes have sent that Lambda would not take."""
        return [problem for sandbox in self._sandboxes for problem in sandbox.api.problems]

    @property
    def busy(self) -> int:
        """How many invocations there are."""
        return sum(sandbox.api.is_busy for sandbox in self._sandboxes)

    @property
    def log(self) -> str:
        """What its processes have printed."""
        return "".join(sandbox.process.log.tail() for sandbox in self._sandboxes)

    def invoke(self, event: object) -> Running:
        """Begin an invocation in a process that is free, or in a new one. Raises Throttled."""
        with self._lock:
            free = next((one for one in self._sandboxes if not one.api.is_busy), None)
            if free is None:
                if len(self._sandboxes) >= self._concurrency:
                    raise Throttled
                free = self._start()
                self._sandboxes.append(free)
            return free.api.invoke(event, timeout_s=self._timeout_s)

    def stop(self) -> None:
        """End all processes."""
        for sandbox in self._sandboxes:
            sandbox.process.stop()
            sandbox.api.close()

    def _start(self) -> _Sandbox:
        api = RuntimeApi(host=self._host)
        return _Sandbox(api, self.process(self._handler, self._environment, api))

    def process(self, handler: str, environment: Mapping[str, str], api: RuntimeApi) -> LocalProcess:
        """Start a process that serves invocations: of the code as it is here."""
        variables = {
            **clean_environment(),
            **environment,
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "PYTHONPATH": str(SOURCE_ROOT),
        }
        command = [sys.executable, "-m", "comfy_serverless.handlers.start", handler]
        return LocalProcess(command, variables, name="a function that streams")


def _chunks(request: BaseHTTPRequestHandler, trailers: dict[str, str]) -> Iterator[bytes]:
    """The chunks of a body; the trailers behind the last one are put into `trailers`."""
    while True:
        line = request.rfile.readline(64)
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise ProtocolBroken(f"not the beginning of a chunk: {line!r}")
        size = int(found[1], 16)
        if size == 0:
            break
        data = request.rfile.read(size)
        _must(len(data) == size and request.rfile.read(2) == b"\r\n", "a chunk has not the length that it says")
        yield data
    while (line := request.rfile.readline(1 << 20)) != b"\r\n":
        name, colon, value = line.decode("ascii").partition(":")
        _must(bool(colon) and line.endswith(b"\r\n"), f"not a trailer: {line!r}")
        trailers[name.lower()] = value.strip()


def _prelude(head: bytes) -> Prelude:
    try:
        document = json.loads(head)
    except ValueError:
        raise ProtocolBroken("the prelude is no JSON") from None
    _must(isinstance(document, dict) and document.keys() <= _IN_PRELUDE, "the prelude has unknown fields")
    headers = document.get("headers", {})
    _must(type(document.get("statusCode")) is int, "the prelude has no statusCode")
    _must(all(isinstance(value, str) for value in headers.values()), "headers are texts")
    return Prelude(document["statusCode"], headers)


def _failure(trailers: Mapping[str, str]) -> Exception:
    try:
        document = json.loads(base64.b64decode(trailers.get("lambda-runtime-function-error-body", ""), validate=True))
    except (ValueError, binascii.Error):
        raise ProtocolBroken("the error in the trailers is not JSON in base64") from None
    return FunctionFailed(f"{trailers.get('lambda-runtime-function-error-type')}: {document['errorMessage']}")


def _must(holds: bool, problem: str) -> None:
    if not holds:
        raise ProtocolBroken(problem)
