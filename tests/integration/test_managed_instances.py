"""Lambda's managed instances fork a worker for each job at once: only the worker starts an engine."""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from local.aws.processes import clean_environment, free_port

LAMBDA = Path(__file__).parent.parent.parent / "lambda"
HANDLER = "comfy_serverless.handlers.generate.handler"
#: The runtime as it is, and as its versions with pre-fork hooks are: they import the handler before they fork.
AS_IT_IS = f"""
import runpy, sys
sys.argv = ["awslambdaric", "{HANDLER}"]
runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
"""
WITH_HOOKS = f"import {HANDLER.rpartition('.')[0]}; {AS_IT_IS}"


class RuntimeApi(ThreadingHTTPServer):
    """The part of Lambda that a runtime talks to: gives invocations, takes their answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        self.engine_port = free_port()

    def invoke(self, event: Any, timeout_s: float = 90) -> Any:
        self.events.put(event)
        return self.answers.get(timeout=timeout_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RuntimeApi

    def do_GET(self) -> None:
        content = json.dumps(self.server.events.get()).encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", f"request-{time.monotonic_ns()}")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(round((time.time() + 900) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:1:function:gpu")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        chunks = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            chunks = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.answers.put((self.path.rpartition("/")[2], json.loads(chunks)))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def runtime(program: str, tmp_path: Path) -> Iterator[tuple[RuntimeApi, subprocess.Popen[bytes]]]:
    api = RuntimeApi()
    threading.Thread(target=api.serve_forever, args=(0.02,), daemon=True).start()
    environment = {
        **clean_environment(),
        "PYTHONPATH": str(LAMBDA),
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_address[1]}",
        "AWS_LAMBDA_MAX_CONCURRENCY": "1",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "INITIAL_PORT": str(api.engine_port),
    }
    with (tmp_path / "runtime.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield api, process
        finally:
            for pid, _ in below(process.pid):
                os.kill(pid, 9)
            process.kill()
            process.wait()
            api.shutdown()
            api.server_close()


def below(pid: int) -> list[tuple[int, str]]:
    """All processes below one, with their command lines."""
    found = []
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    for child in itertools.chain(*children):
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        found += [(int(child), command), *below(int(child))]
    return found


@pytest.mark.parametrize("program", [AS_IT_IS, WITH_HOOKS], ids=["as it is", "with pre-fork hooks"])
def test_one_worker_runs_jobs_on_one_engine_of_its_own(program: str, tmp_path: Path) -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "gpu"}},
    }
    with runtime(program, tmp_path) as (api, process):
        for number in (1, 2):
            graph["1"]["inputs"]["color"] = number
            kind, answer = api.invoke({"workflow": graph, "reply": "inline"})
            assert kind == "response", answer
            assert answer["status"] == "succeeded", (answer, (tmp_path / "runtime.log").read_text())
            assert len(answer["outputs"]) == 1
        processes = below(process.pid)
        engines = [
            pid for pid, command in processes if "comfy_lite" in command and f" --port {api.engine_port} " in command
        ]
        assert len(engines) == 1, processes  # at the first port: none has been started before it
        (worker, _), *_ = processes
        assert engines[0] in [pid for pid, _ in below(worker)]
