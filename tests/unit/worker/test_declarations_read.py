"""Declarations of nodes are read between two jobs: nothing that a job has brought is in them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.errors import Canceled, DeadlineExceeded, EngineUnavailable
from comfy_serverless.worker import declarations
from comfy_serverless.worker.declarations import EngineDeclarations
from comfy_serverless.worker.running import RunningJob, RunningJobs
from tests.patience import PATIENCE_S, wait_until
from tests.unit.editor_samples import OBJECT_INFO, PLAIN
from tests.unit.fakes import FakeEngine, World

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


#: Without the loader, whose list of files is emptied.
INFO = {name: declared for name, declared in OBJECT_INFO.items() if name != "LoadImage"}


class Engine(FakeEngine):
    """Counts how often it is asked."""

    asked = 0

    def object_info_now(self) -> Any:
        self.asked += 1
        if not self.declares:
            raise EngineUnavailable("it does not answer")
        return self.declares


def one(engine: FakeEngine) -> EngineDeclarations:
    return EngineDeclarations(engine, RunningJobs(engine.cancel))


def job() -> RunningJob:
    return RunningJob("prompt", owner="team")


def test_they_are_read_once_a_start() -> None:
    engine = Engine(declares=INFO)
    read = one(engine)
    for _ in range(2):
        assert read.for_job(job(), until=float("inf")) == read.newest() == INFO
    assert engine.asked == 1
    engine.starts += 1
    assert read.newest() == INFO
    assert engine.asked == 2


def test_the_api_is_told_anew_after_a_while_because_models_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(declares=INFO)
    read = one(engine)
    read.newest()
    monkeypatch.setattr(declarations, "READ_AGAIN_S", -1.0)
    read.for_job(job(), until=float("inf"))
    assert engine.asked == 1
    read.newest()
    assert engine.asked == 2


def test_they_wait_for_the_job_before_and_keep_the_next_one_waiting() -> None:
    engine = Engine(declares=INFO)
    jobs = RunningJobs(engine.cancel)
    read = EngineDeclarations(engine, jobs)
    with jobs.turn(job(), until=float("inf")):
        reading = threading.Thread(target=lambda: read.for_job(job(), until=float("inf")))
        reading.start()
        assert wait_until(lambda: len(jobs._line) == 2)
        assert engine.asked == 0
    reading.join(PATIENCE_S)
    assert engine.asked == 1


def test_a_job_that_is_to_end_does_not_wait() -> None:
    engine = Engine(declares=INFO)
    jobs = RunningJobs(engine.cancel)
    read, waiting = EngineDeclarations(engine, jobs), job()
    with jobs.turn(job(), until=float("inf")):
        with pytest.raises(DeadlineExceeded):
            read.for_job(job(), until=time.monotonic())
        waiting.stop_error = Canceled("on request")
        with pytest.raises(Canceled):
            read.for_job(waiting, until=float("inf"))
    assert engine.asked == 0


def test_an_engine_that_does_not_answer_is_asked_again_by_the_next() -> None:
    engine = Engine()
    read = one(engine)
    with pytest.raises(EngineUnavailable):
        read.newest()
    engine.declares = INFO
    assert read.newest() == INFO


def test_what_lies_in_the_folders_is_in_no_list() -> None:
    info = {"C": {"input": {"required": {"x": [["none", "theirs.png"]]}}}}
    assert one(Engine(declares=info, files=frozenset({"theirs.png"}))).newest() == {
        "C": {"input": {"required": {"x": [["none"]]}}}
    }


def test_a_job_of_the_editors_that_no_engine_can_convert_may_come_again(s3: S3Client) -> None:
    outcome = World(s3, engine=Engine()).run({"workflow": PLAIN})
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("engine_unavailable", True)
