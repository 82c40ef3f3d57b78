"""Lambda freezes a sandbox between invocations and thaws it minutes later: our process, the engine, and all sockets.

All sandboxes are frozen at the same time, longer than a silent websocket is believed in (twice fifteen seconds). To us
a freeze looks like a clock that jumps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless.jobs.document import Job
from demo.seed import OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.integration import sandbox_fault_rows
from tests.patience import PATIENCE_S, wait_until

FROZEN_S = 40.0
#: What a job of a second may take.
AT_ONCE_S = 15.0
_PROGRAM = Path(__file__).parent / "sandbox_program.py"


class Sandbox:
    """A worker with its engine, in separate processes."""

    def __init__(self, folder: Path, port: int, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, _PROGRAM, folder, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        began = self.answer()
        self.engine_pid: int = began["engine"]
        self._engine_url: str = began["url"]

    def send(self, **request: Any) -> str:
        """Begin a job; its id."""
        job_id = f"t-{uuid.uuid4().hex}"
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"job_id": job_id, **request}) + "\n")
        self.process.stdin.flush()
        return job_id

    def answer(self) -> dict[str, Any]:
        """The next line it writes."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def run(self, **request: Any) -> dict[str, Any]:
        """A job to its end."""
        self.send(**request)
        return self.answer()

    def is_executing(self) -> bool:
        """Whether the engine executes a prompt now."""
        return len(requests.get(f"{self._engine_url}/queue", timeout=PATIENCE_S).json()["queue_running"]) == 1

    def wait_until_draining(self) -> None:
        """Return once it has heard SIGTERM, and begins no other job."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"tell": "draining"}) + "\n")
        self.process.stdin.flush()
        assert self.answer() == {"draining": True}

    def signal(self, number: signal.Signals) -> None:
        """To all of it at once."""
        for group in (self.process.pid, self.engine_pid):
            os.killpg(group, number)

    def close(self) -> None:
        """End it, as it ends when it is no longer needed."""
        with self.process:
            if self.process.stdin is not None:
                self.process.stdin.close()
            try:
                self.process.wait(PATIENCE_S)
            finally:
                for group in (self.process.pid, self.engine_pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(group, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Frozen:
    """Sandboxes that have been frozen and thawed."""

    idle: Sandbox
    working: Sandbox
    job_id: str
    pressed: Sandbox
    pressed_id: str
    impatient: Sandbox
    impatient_id: str


def graph(*, steps: int) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads(Path("workflows/text_to_image.json").read_text())
    sampler = next(node for node in workflow.values() if node["class_type"] == "KSampler")
    sampler["inputs"] |= {"steps": steps, "seed": uuid.uuid4().int % 2**32}
    return workflow


@pytest.fixture(scope="module")
def frozen(local_s3: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    folder = tmp_path_factory.mktemp("frozen")
    with ExitStack() as running:
        sandboxes = []
        for number, stall_s in enumerate([600, 600, 600, FROZEN_S / 2]):
            environment = {**local_s3.environment, "STALL_S": str(stall_s)}
            sandboxes.append(Sandbox(folder / str(number), 23088 + 100 * number, environment))
            running.callback(sandboxes[-1].close)
        idle, working, pressed, impatient = sandboxes
        for sandbox in sandboxes:
            assert sandbox.run(workflow=graph(steps=1))["code"] == ""
        job_id = working.send(workflow=graph(steps=100))
        pressed_id = pressed.send(workflow=graph(steps=10_000), deadline_s=FROZEN_S / 2)
        impatient_id = impatient.send(workflow=graph(steps=100))
        assert all(wait_until(one.is_executing) for one in (working, pressed, impatient))
        for sandbox in sandboxes:
            sandbox.signal(signal.SIGSTOP)
        time.sleep(FROZEN_S)
        for sandbox in sandboxes:
            sandbox.signal(signal.SIGCONT)
        yield Frozen(idle, working, job_id, pressed, pressed_id, impatient, impatient_id)


def assert_works(sandbox: Sandbox, s3: LocalAws) -> None:
    """It runs a job at once, with the engine it had, and everything it made is in S3."""
    answer = sandbox.run(workflow=graph(steps=1))
    assert (answer["code"], answer["outputs"], answer["starts"]) == ("", 1, 1)
    assert answer["took_s"] < AT_ONCE_S
    assert_stored(answer["job_id"], s3)


def assert_stored(job_id: str, s3: LocalAws) -> None:
    client = s3.client()
    document = client.get_object(Bucket=OUTPUT_BUCKET, Key=f"{job_id}/result.json")["Body"].read()
    for output in Job.model_validate_json(document).outputs:
        assert output.s3_uri is not None
        key = output.s3_uri.removeprefix(f"s3://{OUTPUT_BUCKET}/")
        content = client.get_object(Bucket=OUTPUT_BUCKET, Key=key)["Body"].read()
        assert hashlib.sha256(content).hexdigest() == output.sha256


def test_every_row_names_a_test_of_this_file() -> None:
    assert {name for row in sandbox_fault_rows.ROWS for name in row.tests} <= globals().keys()


def test_a_sandbox_that_was_frozen_works_at_once(frozen: Frozen, local_s3: LocalAws) -> None:
    assert_works(frozen.idle, local_s3)


def test_a_job_that_was_frozen_in_the_middle_ends_as_if_nothing_had_happened(
    frozen: Frozen, local_s3: LocalAws
) -> None:
    answer = frozen.working.answer()
    assert (answer["job_id"], answer["code"], answer["outputs"]) == (frozen.job_id, "", 1)
    assert answer["took_s"] < FROZEN_S + AT_ONCE_S
    assert_stored(frozen.job_id, local_s3)
    assert_works(frozen.working, local_s3)


def test_a_deadline_that_passed_during_the_freeze_is_told_at_once(frozen: Frozen, local_s3: LocalAws) -> None:
    answer = frozen.pressed.answer()
    assert (answer["job_id"], answer["code"]) == (frozen.pressed_id, "deadline_exceeded")
    assert answer["took_s"] < FROZEN_S + AT_ONCE_S
    assert_works(frozen.pressed, local_s3)


def test_a_freeze_longer_than_an_engine_may_be_silent_is_not_held_against_it(
    frozen: Frozen, local_s3: LocalAws
) -> None:
    answer = frozen.impatient.answer()
    assert (answer["job_id"], answer["code"], answer["starts"]) == (frozen.impatient_id, "", 1)
    assert_stored(frozen.impatient_id, local_s3)
    assert_works(frozen.impatient, local_s3)
