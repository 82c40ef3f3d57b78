"""The log of one job, as `comfy-serverless logs` shows it on this machine: over all runs and functions."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from examples.sdk_tour import paint
from local.aws.processes import LOOPBACK
from local.dev import DevStack
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    engine = f"{sys.executable} -m comfy_lite --step-ms 200"
    with DevStack(log_folder=tmp_path_factory.mktemp("dev"), environment={"LEASE_S": "3"}, engine=engine) as started:
        started.describe()
        yield started


@pytest.fixture
def receiver() -> Iterator[str]:
    """A web server that takes every webhook."""

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Taker)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://{LOOPBACK}:{server.server_port}/"
    server.shutdown()


def submit(stack: DevStack, workflow: dict[str, Any], **more: Any) -> str:
    answer = requests.post(
        f"{stack.url}/api/v2/jobs",
        json={"workflow": workflow, **more},
        headers={"authorization": f"Bearer {stack.api_key}"},
        timeout=PATIENCE_S,
    )
    answer.raise_for_status()
    return str(answer.json()["id"])


def logged(stack: DevStack, job_id: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [Path(sys.executable).parent / "comfy-serverless", "logs", job_id, "--json"],
        env={"PATH": "/usr/bin:/bin", **stack.client_variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_until_written(stack: DevStack, job_id: str, message: str) -> None:
    """Return as soon as a file of the log says this of a job."""

    def is_written() -> bool:
        written = (line for path in stack.log_folder.glob("*.log") for line in path.read_text("utf-8").splitlines())
        return any(job_id in line and message in line for line in written)

    assert wait_until(is_written), f"{message!r} was not logged of {job_id}"


def wait_for_line(stack: DevStack, job_id: str, message: str) -> list[dict[str, Any]]:
    """The job's lines, once one of them says this: what is in a file, the command line shows."""
    wait_until_written(stack, job_id, message)
    lines = logged(stack, job_id)
    assert message in [line["message"] for line in lines]
    return lines


def test_a_job_is_followed_from_its_submission_to_its_webhook(stack: DevStack, receiver: str) -> None:
    job_id = submit(stack, paint(steps=2, seed=1), webhook_url=receiver)
    lines = wait_for_line(stack, job_id, "the webhook was called")
    story = [(line["function"], line["message"]) for line in lines]
    assert story[0] == ("api", "the job is taken")
    assert story[-1] == ("webhooks", "the webhook was called")
    assert next(message for function, message in story if function == "generate") == "the job is begun"
    assert ("generate", "job finished") in story


def test_a_job_is_followed_over_a_worker_that_dies(stack: DevStack) -> None:
    job_id = submit(stack, paint(steps=40, seed=2))
    wait_until_written(stack, job_id, "the job is begun")
    stack.kill_workers()
    lines = wait_for_line(stack, job_id, "job finished")
    assert [line["run"] for line in lines if line["message"] == "the job is begun"] == [1, 2]
    again = [line["function"] for line in lines if line["message"] == "a job is sent to the workers again"]
    assert set(again) == {"caretaker"}


def test_whatever_a_worker_says_while_it_runs_a_job_names_the_job(stack: DevStack) -> None:
    """Between the begin and the end of a job, with one job at a time."""
    job_id = submit(stack, paint(steps=2, seed=3))
    wait_for_line(stack, job_id, "job finished")
    (log,) = Path(stack.log_folder).glob("generate-*.log")
    inside = False
    nameless = []
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text) if text.startswith('{"level"') else {}
        inside = line.get("job_id") == job_id if line.get("message") == "the job is begun" else inside
        if inside and line and "job_id" not in line:
            nameless.append(line)
        inside = inside and line.get("message") != "job finished"
    assert nameless == []
