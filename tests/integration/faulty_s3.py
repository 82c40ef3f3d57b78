"""A proxy before the local S3 that fails as networks and S3 do, so that what survives it is known."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

#: Headers that belong to one connection, not to the answer.
_OF_THE_CONNECTION = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})


class Fault(StrEnum):
    """What goes wrong with one request."""

    NONE = "nothing"
    RESET = "the connection breaks in the middle of the body"
    LOST_ANSWER = "S3 does as it is asked, but its answer is lost"
    CUT_SHORT = "the answer ends early"
    SLOW_DOWN = "503 SlowDown"
    INTERNAL_ERROR = "500 InternalError"
    BAD_DIGEST = "400 BadDigest"
    CONFLICT = "409 ConditionalRequestConflict"


class FaultyS3:
    """`with FaultyS3(endpoint_url) as s3:` answers at `s3.endpoint_url`. What is not asked to fail goes through."""

    def __init__(self, target_url: str) -> None:
        self._target_url = target_url
        self._planned: list[tuple[str, str, list[Fault]]] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="faulty-s3")

    @property
    def endpoint_url(self) -> str:
        """Where to send requests."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, method: str, path_ends: str, *faults: Fault) -> None:
        """Let the next requests with that method, to paths that end so, go wrong, one fault after the other."""
        with self._lock:
            self._planned.append((method, path_ends, list(faults)))

    def next_fault(self, method: str, path: str) -> Fault:
        """What goes wrong with this request."""
        with self._lock:
            for planned_method, path_ends, faults in self._planned:
                if faults and planned_method == method and path.endswith(path_ends):
                    return faults.pop(0)
        return Fault.NONE

    def forward(self, method: str, path: str, *, headers: dict[str, str], body: bytes) -> http.client.HTTPResponse:
        """The real answer."""
        target = urlsplit(self._target_url)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
        connection.request(method, path, body=body, headers={**headers, "Connection": "close"})
        return connection.getresponse()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: FaultyS3) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.proxy = proxy


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        fault = self.server.proxy.next_fault(self.command, urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is Fault.RESET:
            self.rfile.read(length // 2)
            self._reset()
            return
        body = self.rfile.read(length)
        if fault[:3].isdigit():
            self._refuse(fault)
            return
        with self.server.proxy.forward(self.command, self.path, headers=dict(self.headers), body=body) as answer:
            content = answer.read()
        if fault is Fault.LOST_ANSWER:
            self._reset()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        size = answer.headers.get("Content-Length") if self.command == "HEAD" else None
        self._send(content, size or str(len(content)), is_cut=fault is Fault.CUT_SHORT)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _refuse(self, fault: Fault) -> None:
        status, code = fault.split()
        self.send_response(int(status))
        content = f"<Error><Code>{code}</Code><Message>as planned</Message></Error>".encode()
        self._send(content, str(len(content)))

    def _send(self, content: bytes, size: str, *, is_cut: bool = False) -> None:
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
