"""`serve`: the container's contract with SageMaker, by a real gunicorn process with the embedded engine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.handlers.shutdown import SHUTDOWN_S
from demo.samples import worker_environment
from demo.seed import INPUT_BUCKET, OUTPUT_BUCKET
from local.aws.lambda_emulator import SOURCE_ROOT
from local.aws.processes import LOOPBACK, LocalProcess, clean_environment, free_port
from local.aws.server import LocalAws
from tests.integration.sagemaker_contract import CONTRACT, Serving, connection, noise
from tests.patience import PATIENCE_S, QuietClock, wait_until
from tests.unit.picture_files import jpeg_with_scans, picture, tiff_with_tiles

#: SageMaker gives a ping two seconds.
PING_S = 2.0
START = [sys.executable, "-m", "comfy_serverless.handlers.start", "serve"]


class ServeProcess(Serving):
    """The program that the image starts."""

    def __init__(self, process: LocalProcess, port: int, engine_port: int) -> None:
        super().__init__(f"http://{LOOPBACK}:{port}")
        self.process = process
        self._engine_port = engine_port

    def wait_until_executing(self) -> None:
        """Return once its engine executes a prompt."""
        queue = f"http://{LOOPBACK}:{self._engine_port}/queue"
        assert wait_until(lambda: self._session.get(queue, timeout=PATIENCE_S).json()["queue_running"])

    def worker_pid(self) -> int:
        """The process that answers: gunicorn's child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


@contextmanager
def serving(local_s3: LocalAws, **environment: str) -> Iterator[ServeProcess]:
    port, engine_port = free_port(), free_port()
    settings = {
        **clean_environment(),
        **local_s3.environment,
        **worker_environment(),
        "PYTHONPATH": str(SOURCE_ROOT),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "INITIAL_PORT": str(engine_port),
        **environment,
    }
    with LocalProcess(START, settings, name="serve") as process:
        yield ServeProcess(process, port, engine_port)


@pytest.fixture(scope="module")
def here(local_s3: LocalAws) -> Iterator[ServeProcess]:
    with serving(local_s3) as started:
        seen = started.wait_healthy()
        assert set(seen) <= {0, 503, 200}
        yield started


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_contract(here: ServeProcess, check: Callable[[Serving], None]) -> None:
    check(here)


def test_a_body_that_is_refused_takes_no_memory(here: ServeProcess) -> None:
    before = peak_megabytes(here.worker_pid())
    with connection(here) as large:
        large.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 400000000\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(100):
                large.sendall(b"[" * 1_000_000)
        assert here.ping() == 200
    assert peak_megabytes(here.worker_pid()) - before < 20


def peak_megabytes(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def test_a_ping_says_no_until_comfyui_answers_and_when_it_cannot_be_started(local_s3: LocalAws) -> None:
    with serving(local_s3, API_COMMAND_LINE="false") as started:
        assert wait_until(lambda: '"broken"' in ask(started)), ask(started)
        assert started.ping() == 503
        assert started.invoke({"workflow": noise()}).json()["error"]["code"] == "engine_unavailable"


def test_hostile_files_hold_up_neither_pings_nor_other_jobs(here: ServeProcess, local_s3: LocalAws) -> None:
    here.wait_healthy()
    s3 = local_s3.client()
    bombs = [tiff_with_tiles(8192, frames=20), tiff_with_tiles(64, frames=12_000), jpeg_with_scans((300, 300), 900)]
    for number, content in enumerate([*bombs, picture("PNG")]):
        s3.put_object(Bucket=INPUT_BUCKET, Key=f"flood/{number}", Body=content)
    header = b'{"__metadata__":{"x":[' + b"[]," * 8_000_000 + b"[]]}}"
    model = len(header).to_bytes(8, "little") + header
    s3.put_object(Bucket=INPUT_BUCKET, Key="flood/model", Body=model)
    entry = {"url": f"s3://{INPUT_BUCKET}/flood/model", "folder": "loras", "name": "x.safetensors"}
    hostile = [
        {"workflow": loads(0, 1, 2, 0, 1, 2)},
        {"workflow": noise(), "models": [{**entry, "sha256": hashlib.sha256(model).hexdigest()}]},
    ]
    pings: list[float] = []
    with ThreadPoolExecutor() as threads, QuietClock() as clock:
        flood = [threads.submit(here.invoke, request) for request in hostile]
        other = threads.submit(here.invoke, {"workflow": loads(3)})
        while not all(job.done() for job in (*flood, other)):
            begun = clock()
            assert here.ping() == 200
            pings.append(clock() - begun)
            time.sleep(0.02)
    assert other.result().status_code == 200
    assert [job.result().json()["error"]["code"] for job in flood] == ["missing_asset"] * 2
    assert sorted(pings)[len(pings) * 99 // 100] < PING_S


def loads(*numbers: int) -> dict[str, Any]:
    graph: dict[str, Any] = {}
    for node, number in enumerate(numbers):
        graph[f"{node}"] = {"class_type": "LoadImage", "inputs": {"image": f"s3://{INPUT_BUCKET}/flood/{number}"}}
        graph[f"{node}s"] = {"class_type": "SaveImage", "inputs": {"images": [f"{node}", 0], "filename_prefix": "x"}}
    return graph


def ask(started: ServeProcess) -> str:
    try:
        return started._session.get(f"{started.url}/ping", timeout=PATIENCE_S).text
    except OSError:
        return ""


def test_sigterm_lets_jobs_finish_tells_pings_and_leaves_nothing(local_s3: LocalAws) -> None:
    with serving(local_s3) as started:
        started.wait_healthy()
        started.invoke({"workflow": noise()})
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(started.invoke({"workflow": noise(seed=7, steps=150)})))
        thread.start()
        started.wait_until_executing()
        child = started.worker_pid()
        with QuietClock() as clock:
            begun = clock()
            os.kill(started.process.pid, signal.SIGTERM)
            thread.join(PATIENCE_S)
            assert answers[0].status_code == 200
            assert wait_until(lambda: started.process.exit_code is not None)
            assert clock() - begun < SHUTDOWN_S + 5
        assert started.process.exit_code == 0
        assert not Path(f"/proc/{child}").exists()


def test_sigterm_stops_a_job_that_cannot_finish_and_says_that_it_may_be_sent_again(local_s3: LocalAws) -> None:
    with serving(local_s3) as started:
        started.wait_healthy()
        started.invoke({"workflow": noise()})
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(started.invoke({"workflow": noise(seed=8, steps=10_000)}))
        )
        thread.start()
        started.wait_until_executing()
        os.kill(started.process.pid, signal.SIGTERM)
        thread.join(PATIENCE_S)
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "worker_stopped")
        assert answers[0].json()["job"]["error"]["retryable"]


def test_a_process_that_is_killed_is_replaced_and_its_engine_with_it(local_s3: LocalAws) -> None:
    with serving(local_s3) as started:
        started.wait_healthy()
        name = uuid.uuid4().hex
        started.invoke({"workflow": noise()}, inference_id=name)
        killed = started.worker_pid()
        os.kill(killed, signal.SIGKILL)
        assert set(started.wait_healthy()) <= {0, 503, 200}
        answer = started.invoke({"workflow": noise(seed=9)})
        assert answer.status_code == 200
        assert started.worker_pid() != killed
        again = started.invoke({"workflow": noise()}, inference_id=name)
        assert again.json()["id"] == name
        stored = local_s3.client().get_object(Bucket=OUTPUT_BUCKET, Key=f"{name}/result.json")["Body"].read()
        assert json.loads(stored)["completed_at"] == again.json()["completed_at"]


def test_models_of_the_endpoint_are_where_comfyui_looks(local_s3: LocalAws, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "own.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    with serving(local_s3, MODEL_DATA_DIR=str(tmp_path)) as started:
        started.wait_healthy()
        workflow = noise()
        workflow["4"]["inputs"]["ckpt_name"] = "own.safetensors"
        answer = started.invoke({"workflow": workflow})
        assert answer.status_code == 200, answer.text


def test_logs_are_lines_of_json_without_what_was_sent(here: ServeProcess) -> None:
    here.invoke({"workflow": noise(), "metadata": {"secret": "hush-hush"}})
    lines = [line for line in here.process.log.lines() if "job finished" in line]
    assert lines
    assert all(re.match(r"\{.*\}$", line) for line in lines)
