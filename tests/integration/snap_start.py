"""Lambda as a runtime of SnapStart sees it: it asks for the restore, and then for invocations."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local.aws.lambda_emulator import SOURCE_ROOT
from local.aws.processes import LocalProcess, clean_environment
from tests.patience import PATIENCE_S

_BASE = "/2018-06-01/runtime"


class SnapshotFailed(AssertionError):
    """The process has reported that it cannot be a snapshot, or cannot go on from one."""


class RuntimeApi(ThreadingHTTPServer):
    """The Runtime API of one process.

    Attributes:
        asked: what the process has asked and reported, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.is_snapshot = threading.Event()
        self.is_restored = threading.Event()
        self.failures: queue.Queue[Any] = queue.Queue()
        self.events: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def wait_for_snapshot(self) -> None:
        """Wait until the process could be kept: its hooks have run, and it asks for the restore."""
        self._wait(self.is_snapshot.is_set, "the process asks for no restore")

    def restore(self) -> None:
        """Let the process go on, and wait until its hooks have run."""
        self.is_restored.set()
        self._wait(lambda: f"GET {_BASE}/invocation/next" in self.asked, "the process asks for no invocation")

    def invoke(self, event: Any) -> Any:
        """Invoke the function; return its answer."""
        self.events.put(event)
        return self.answers.get(timeout=PATIENCE_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A process that is stopped while it waits breaks its connection; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def _wait(self, condition: Callable[[], bool], failing: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if not self.failures.empty():
                raise SnapshotFailed(self.failures.get())
            assert time.monotonic() < end, failing
            time.sleep(0.01)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RuntimeApi

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        if self.path == f"{_BASE}/restore/next":
            self.server.is_snapshot.set()
            self.server.is_restored.wait(2 * PATIENCE_S)
            self._answer(200, b"")
            return
        content = json.dumps(self.server.events.get()).encode()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()),
            "Lambda-Runtime-Deadline-Ms": str(round((time.time() + 60) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:1:function:snap:live",
            "Content-Type": "application/json",
        }
        self._answer(200, content, headers)

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(202, b"")
        is_answer = self.path.startswith(f"{_BASE}/invocation/")
        (self.server.answers if is_answer else self.server.failures).put(json.loads(body))

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def snap_started(
    handler: str, environment: Mapping[str, str], folder: Path, *, source_root: Path = SOURCE_ROOT
) -> Iterator[tuple[RuntimeApi, LocalProcess]]:
    """A function in its real runtime, told that it is to be a snapshot."""
    api = RuntimeApi()
    threading.Thread(target=api.serve_forever, args=(0.02,), daemon=True).start()
    settings = {
        **clean_environment(),
        "PYTHONPATH": f"{source_root}:{SOURCE_ROOT}",
        "LAMBDA_TASK_ROOT": str(source_root),
        "TMPDIR": str(folder),
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
        **environment,
    }
    command: list[str | Path] = [sys.executable, "-m", "awslambdaric", handler]
    process = LocalProcess(
        command, settings, name="the runtime", working_directory=source_root, log_path=folder / "runtime.log"
    )
    try:
        yield api, process
    finally:
        process.stop()
        api.shutdown()
        api.server_close()
