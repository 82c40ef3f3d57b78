"""A proxy before the local S3 that fails as networks and S3 do, so that what survives it is known.

It also does what S3 does and the local one does not: it compares the body of a put with its checksum and repeats the
checksum in its answer, refuses signatures of another time, and lets one conditional put in after the other.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
import struct
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.patience import PATIENCE_S

#: Headers that belong to one connection, not to the answer.
_OF_THE_CONNECTION = frozenset({"connection", "date", "server", "transfer-encoding"})
_CHECKSUM = "x-amz-checksum-sha256"
#: How far a signature may be from S3's own time.
_TOLERANCE = timedelta(minutes=15)


class Fault(StrEnum):
    """What goes wrong with one request."""

    NONE = "nothing"
    RESET = "the connection breaks in the middle of the body"
    FLIPPED = "a bit of the body flips on its way"
    LOST_ANSWER = "S3 does as it is asked, but its answer is lost"
    OTHER_CHECKSUM = "S3 confirms another checksum than was sent"
    CUT_SHORT = "the answer ends early"
    SLOW = "the answer takes `slow_s` seconds"
    DRIP = "the answer comes in drops, `slow_s` seconds apart"
    SLOW_DOWN = "503 SlowDown"
    INTERNAL_ERROR = "500 InternalError"
    BAD_DIGEST = "400 BadDigest"
    CONFLICT = "409 ConditionalRequestConflict"
    ACCESS_DENIED = "403 AccessDenied"
    NO_SUCH_BUCKET = "404 NoSuchBucket"
    TOO_SKEWED = "403 RequestTimeTooSkewed"


class FaultyS3:
    """`with FaultyS3(endpoint_url) as s3:` answers at `s3.endpoint_url`. All other requests go through.

    Attributes:
        slow_s: seconds for `SLOW` and `DRIP`.
        clock_ahead: what its clock shows beyond ours.
    """

    def __init__(self, target_url: str) -> None:
        self.slow_s = 0.2
        self.clock_ahead = timedelta()
        self.conditional_put = threading.Lock()
        self.closing = threading.Event()
        self._target_url = target_url
        self._planned: list[tuple[str, str, list[Fault]]] = []
        self._struck: list[tuple[str, str, Fault]] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="faulty-s3")

    @property
    def endpoint_url(self) -> str:
        """Where to send requests."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, method: str, part_of_path: str, *faults: Fault) -> None:
        """Let the next requests with that method, to paths with that in them, go wrong, one fault after the other."""
        with self._lock:
            self._planned.append((method, part_of_path, list(faults)))

    def heal(self, part_of_path: str = "") -> None:
        """Forget what was planned for paths with that in them."""
        with self._lock:
            self._planned = [plan for plan in self._planned if part_of_path not in plan[1]]

    def struck(self, part_of_path: str = "") -> list[tuple[str, Fault]]:
        """The faults that have happened to paths with that in them, each with its method."""
        with self._lock:
            return [(method, fault) for method, path, fault in self._struck if part_of_path in path]

    def next_fault(self, method: str, path: str) -> Fault:
        """What goes wrong with this request."""
        with self._lock:
            for planned_method, part_of_path, faults in self._planned:
                if faults and planned_method == method and part_of_path in path:
                    self._struck.append((method, path, faults[0]))
                    return faults.pop(0)
        return Fault.NONE

    def now(self) -> datetime:
        """The time on S3's clock."""
        return datetime.now(UTC) + self.clock_ahead

    def forward(self, method: str, path: str, *, headers: dict[str, str], body: bytes) -> http.client.HTTPResponse:
        """The real answer."""
        target = urlsplit(self._target_url)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=PATIENCE_S)
        connection.request(method, path, body=body, headers={**headers, "Connection": "close"})
        return connection.getresponse()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultyS3) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.proxy = proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: a client that went away is what half of the tests are about."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _answer(self) -> None:
        proxy = self.server.proxy
        fault = proxy.next_fault(self.command, urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is Fault.RESET:
            self.rfile.read(length // 2)
            self._reset()
            return
        body = self.rfile.read(length)
        if fault is Fault.FLIPPED and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        refusal = str(fault) if fault[:3].isdigit() else self._refusal(body)
        if refusal is not None:
            self._refuse(refusal)
            return
        status, headers, content = self._forward(body)
        if fault is Fault.LOST_ANSWER:
            self._reset()
            return
        if fault is Fault.SLOW:
            proxy.closing.wait(proxy.slow_s)
        if status < 300 and _CHECKSUM in self.headers:
            confirmed = self.headers[_CHECKSUM] if fault is not Fault.OTHER_CHECKSUM else _sha256(b"another")
            headers[_CHECKSUM] = confirmed
        size = headers.pop("content-length", str(len(content)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self._send(content, size, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        proxy = self.server.proxy
        given = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        is_conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
        if is_conditional:
            proxy.conditional_put.acquire()
        try:
            with proxy.forward(self.command, self.path, headers=given, body=body) as answer:
                content = answer.read()
        finally:
            if is_conditional:
                proxy.conditional_put.release()
        headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION}
        if self.command != "HEAD":
            headers.pop("content-length", None)
        return answer.status, headers, content

    def _refusal(self, body: bytes) -> str | None:
        """What S3 itself would refuse."""
        signed_at = self.headers.get("X-Amz-Date")
        if signed_at is not None:
            signed = datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            if abs(signed - self.server.proxy.now()) > _TOLERANCE:
                return str(Fault.TOO_SKEWED)
        if self.headers.get(_CHECKSUM, _sha256(body)) != _sha256(body):
            return str(Fault.BAD_DIGEST)
        return None

    def _refuse(self, refusal: str) -> None:
        status, code = refusal.split()
        self.send_response(int(status))
        content = f"<Error><Code>{code}</Code><Message>as planned</Message></Error>".encode()
        self._send(content, str(len(content)), Fault.NONE)

    def _send(self, content: bytes, size: str, fault: Fault) -> None:
        self.send_header("Content-Length", size)
        self.end_headers()
        if fault is Fault.DRIP:
            for start in range(0, len(content), max(1, len(content) // 10)):
                self.wfile.write(content[start : start + max(1, len(content) // 10)])
                self.wfile.flush()
                self.server.proxy.closing.wait(self.server.proxy.slow_s)
            return
        is_cut = fault is Fault.CUT_SHORT
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.server.proxy.now(), usegmt=True)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
