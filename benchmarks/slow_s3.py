"""An S3 that takes exactly as long for a put as a real one does, to measure what waits for it.

It serves only what the worker's uploads need: PutObject with a checksum, and GetObject of a missing key.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PUT_S = 0.05
_MISSING = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>"


class SlowS3(ThreadingHTTPServer):
    """The server. `puts` counts the stored objects, and `size_bytes` adds up their sizes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.puts = 0
        self.size_bytes = 0

    @property
    def endpoint_url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowS3

    def do_PUT(self) -> None:
        started = time.monotonic()
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        content = self._body()
        time.sleep(max(0.0, started + PUT_S - time.monotonic()))
        with self.server.lock:
            self.server.puts += 1
            self.server.size_bytes += len(content)
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        self._answer(200, b"", {"ETag": '"0"', "x-amz-checksum-sha256": checksum})

    def do_GET(self) -> None:
        self._answer(404, _MISSING, {"Content-Type": "application/xml"})

    def do_HEAD(self) -> None:
        self._answer(404, b"", {})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        return True

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def slow_s3() -> Iterator[SlowS3]:
    """Run one."""
    server = SlowS3()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="slow-s3", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
