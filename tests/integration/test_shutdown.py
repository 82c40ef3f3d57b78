"""SIGTERM: jobs finish if they can, else they are interrupted and reported as retryable, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.handlers.shutdown import SHUTDOWN_S
from demo.seed import OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.integration.sandbox_fault_rows import SHUTDOWN_ROWS
from tests.integration.test_freeze import Sandbox, graph
from tests.patience import PATIENCE_S, QuietClock, wait_until


@pytest.fixture
def sandbox(local_s3: LocalAws, tmp_path: Path) -> Iterator[Sandbox]:
    started = Sandbox(tmp_path, 23188, local_s3.environment)
    yield started
    started.close()


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def end_of(sandbox: Sandbox) -> float:
    """Seconds from the signal until nothing is left of it; it has ended in order."""
    with QuietClock() as clock:
        begun = clock()
        assert sandbox.process.wait(PATIENCE_S) == 0
        took_s = clock() - begun
    assert is_gone(sandbox.engine_pid)
    return took_s


def endless() -> dict[str, Any]:
    """First a picture, then a painting of minutes."""
    picture = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}}
    saver = {"class_type": "SaveImage", "inputs": {"images": ["50", 0], "filename_prefix": uuid.uuid4().hex}}
    return {"50": picture, "51": saver, **graph(steps=10_000)}


def until_running(sandbox: Sandbox, local_s3: LocalAws, job_id: str) -> None:
    """Until the first output has been delivered: the rest of the job is under way."""
    client = local_s3.client()
    assert wait_until(lambda: client.list_objects_v2(Bucket=OUTPUT_BUCKET, Prefix=f"{job_id}/").get("Contents"))


def test_every_row_names_a_test_of_this_file() -> None:
    assert {name for row in SHUTDOWN_ROWS for name in row.tests} <= globals().keys()


def test_sigterm_ends_an_idle_worker_and_its_engine(sandbox: Sandbox) -> None:
    sandbox.process.send_signal(signal.SIGTERM)
    assert end_of(sandbox) < SHUTDOWN_S


def test_sigterm_lets_a_job_finish_and_begins_no_other(sandbox: Sandbox) -> None:
    first = sandbox.send(workflow=graph(steps=100))
    assert wait_until(sandbox.is_executing)
    sandbox.process.send_signal(signal.SIGTERM)
    sandbox.wait_until_draining()
    late = sandbox.send(workflow=graph(steps=1))
    answers = {answer["job_id"]: answer for answer in (sandbox.answer(), sandbox.answer())}
    assert (answers[late]["code"], answers[late]["retryable"]) == ("worker_stopped", True)
    assert (answers[first]["code"], answers[first]["outputs"]) == ("", 1)
    assert end_of(sandbox) < SHUTDOWN_S


def test_sigterm_interrupts_a_job_that_cannot_finish(sandbox: Sandbox, local_s3: LocalAws) -> None:
    job_id = sandbox.send(workflow=endless())
    until_running(sandbox, local_s3, job_id)
    with QuietClock() as clock:
        begun = clock()
        sandbox.process.send_signal(signal.SIGTERM)
        answer = sandbox.answer()
        assert (answer["code"], answer["retryable"], answer["outputs"]) == ("worker_stopped", True, 1)
        end_of(sandbox)
        assert clock() - begun < SHUTDOWN_S


def test_sigterm_while_the_engine_hangs_ends_both_in_time(sandbox: Sandbox, local_s3: LocalAws) -> None:
    job_id = sandbox.send(workflow=endless())
    until_running(sandbox, local_s3, job_id)
    os.killpg(sandbox.engine_pid, signal.SIGSTOP)
    with QuietClock() as clock:
        begun = clock()
        sandbox.process.send_signal(signal.SIGTERM)
        answer = sandbox.answer()
        assert answer["code"] in {"worker_stopped", "engine_crashed", "engine_unavailable"}
        assert answer["retryable"] is True
        end_of(sandbox)
        assert clock() - begun < SHUTDOWN_S
