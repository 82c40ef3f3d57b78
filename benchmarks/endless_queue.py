"""An SQS that accepts messages and drops them: the local one gets slower with each message it keeps."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        content = json.dumps(_answer(operation, request)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _answer(operation: str, request: dict[str, Any]) -> dict[str, Any]:
    if operation == "SendMessageBatch":
        taken = [{"Id": entry["Id"], "MessageId": entry["Id"]} for entry in request["Entries"]]
        return {"Successful": taken, "Failed": []}
    return {"Attributes": {"ApproximateNumberOfMessages": "0"}}


@contextmanager
def endless_queue() -> Iterator[str]:
    """Run one, and yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="endless queue", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
