"""A program that SageMaker could start, and that does what the body of each invocation says: `python … PORT FOLDER`.

    holds      answers no sooner than the files `held` and `held-NUMBER`, of its delivery, are not in the folder
    status     of the answer; 200 otherwise
    bare       no Content-Length
    dies       ends itself, at so many first deliveries
    sickens    answers no ping with 200 from now on, and this invocation never

It answers with what it has got. A file `slow` in the folder has a second in it before the first 200 to a ping.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[2])
LOCK = threading.Lock()


class State:
    """What is common to all requests."""

    is_sick = False
    at_once = 0
    healthy_from = time.monotonic() + (1.0 if (FOLDER / "slow").exists() else 0.0)


class Handler(BaseHTTPRequestHandler):
    """Pings and invocations."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_well = not State.is_sick and time.monotonic() >= State.healthy_from
        self._answer(200 if is_well else 503, {})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        wish: dict[str, Any] = json.loads(content)
        name = self.headers["X-Amzn-SageMaker-Inference-Id"]
        with LOCK:
            State.at_once += 1
            at_once = State.at_once
            calls = FOLDER / f"calls-{name}"
            count = len(calls.read_text()) + 1 if calls.exists() else 1
            calls.write_text("x" * count)
        if count <= wish.get("dies", 0):
            os._exit(1)
        if wish.get("sickens") and count == 1:
            State.is_sick = True
            time.sleep(3600)
        while wish.get("holds") and any((FOLDER / held).exists() for held in ("held", f"held-{count}")):
            time.sleep(0.01)
        with LOCK:
            State.at_once -= 1
        answer = {
            "pid": os.getpid(),
            "inference_id": name,
            "deliveries": count,
            "at_once": at_once,
            "custom": self.headers["X-Amzn-SageMaker-Custom-Attributes"],
            "content_type": self.headers["Content-Type"],
            "got": wish,
        }
        self._answer(wish.get("status", 200), answer, is_bare=bool(wish.get("bare")))

    def _answer(self, status: int, document: Any, *, is_bare: bool = False) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        if is_bare:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
