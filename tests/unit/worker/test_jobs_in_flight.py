"""Several jobs at once in one worker: each with one outcome, also after a cancel, a repetition or a shutdown."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.connector.progress import Progress
from comfy_serverless.errors import Canceled, ComfyError, EngineCrashed, MissingAsset, NodeExecutionError
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.observability import log
from comfy_serverless.worker.worker import Call, Outcome
from tests.patience import PATIENCE_S, QuietClock, slack
from tests.unit.fakes import OUT, WORKFLOW, FakeEngine, FakeExecution, World, made

Worlds = Callable[..., World]
UNHEARD = Call(is_heard=False)


def request(job_id: str = "job-1", **fields: Any) -> dict[str, Any]:
    return {"job_id": job_id, "workflow": WORKFLOW, **fields}


class Gate:
    """Where an engine waits, in the middle of a prompt, until it may go on or is canceled."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE_S)


class StoppableEngine(FakeEngine):
    """Ends a prompt as canceled once it is asked to."""

    def cancel(self, prompt_id: str) -> bool:
        super().cancel(prompt_id)
        self.error = Canceled("interrupted")
        assert isinstance(self.then, Gate)
        self.then.open.set()
        return True


@pytest.fixture
def threads() -> Any:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def meeting_while_they_prepare(here: World, meet: Callable[[], object]) -> World:
    """All jobs of this world call `meet` before they are given to the engine."""
    prepare = here.inputs.prepare

    def prepare_and_meet(*arguments: Any, **fields: Any) -> Any:
        meet()
        return prepare(*arguments, **fields)

    here.inputs.prepare = prepare_and_meet  # type: ignore[method-assign]
    return here


class QueueingEngine(FakeEngine):
    """Executes one prompt after the other, each behind its own gate, and stops the one it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: list[Gate] = []
        self.turn = threading.Lock()
        self.inside = self.most = 0
        self.stopped: set[str] = set()

    def run(self, workflow: Any, **arguments: Any) -> Any:
        self.inside += 1
        self.most = max(self.most, self.inside)
        gate = Gate()
        self.gates.append(gate)
        self.runs.append(arguments)
        try:
            with self.turn:
                arguments["on_progress"](Progress(value=0.0, nodes_done=0, nodes_total=1))
                gate()
            if arguments["prompt_id"] in self.stopped:
                raise Canceled("interrupted")
            return FakeExecution(())
        finally:
            self.inside -= 1

    def cancel(self, prompt_id: str) -> bool:
        self.stopped.add(prompt_id)
        number = [run["prompt_id"] for run in self.runs].index(prompt_id)
        self.gates[number].open.set()
        return True


def test_several_jobs_are_prepared_at_once_and_one_more_than_executes_is_in_the_engine(
    world: Worlds, threads: ThreadPoolExecutor
) -> None:
    together = threading.Barrier(4, timeout=PATIENCE_S)
    engine = QueueingEngine()
    here = meeting_while_they_prepare(world(engine=engine), together.wait)
    outcomes = [threads.submit(here.run, request(f"job-{number}")) for number in range(4)]

    def has_reached(number: int) -> bool:
        return len(engine.gates) > number and engine.gates[number].reached.is_set()

    for number in range(4):
        wait_until(partial(has_reached, number))
        engine.gates[number].open.set()
    assert all(outcome.result(PATIENCE_S).error is None for outcome in outcomes)
    assert engine.most == 2, "the engine never waits for us, and no job waits long in its queue"


def test_no_job_is_given_to_the_engine_before_the_one_ahead_executes(
    world: Worlds, threads: ThreadPoolExecutor
) -> None:
    engine = QueueingEngine()
    here = world(engine=engine)
    with engine.turn:  # it has taken the first, and not begun it
        first = threads.submit(here.run, request("first"))
        wait_until(lambda: len(engine.gates) == 1)
        second = threads.submit(here.run, request("second"))
        time.sleep(0.1)
        assert len(engine.gates) == 1, "the engine might begin with the second"
    wait_until(lambda: len(engine.gates) == 2)
    for gate in engine.gates:
        gate.open.set()
    assert (first.result(PATIENCE_S).error, second.result(PATIENCE_S).error) == (None, None)


def test_waiting_in_the_engine_is_not_taken_from_a_jobs_time(world: Worlds, threads: ThreadPoolExecutor) -> None:
    engine = QueueingEngine()
    here = world(engine=engine)
    first = threads.submit(here.run, request("first"))
    wait_until(lambda: len(engine.gates) == 1)
    deadline_s = slack()
    second = threads.submit(here.run, {**request("second"), "deadline_s": deadline_s})
    wait_until(lambda: len(engine.gates) == 2)
    time.sleep(1.2 * deadline_s)
    engine.gates[0].open.set()
    assert first.result(PATIENCE_S).error is None
    engine.gates[1].open.set()
    assert second.result(PATIENCE_S).job.error is None
    assert "execution_s" not in engine.runs[0]
    assert 0 < engine.runs[1]["execution_s"] <= deadline_s, "it is kept from when it executes"
    assert engine.runs[1]["deadline_s"] > 100


def test_a_job_is_executed_while_the_one_before_is_still_being_delivered(
    world: Worlds, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executing, here = threading.Event(), world(engine=FakeEngine())
    put = here.s3.put_object

    def put_late(**fields: Any) -> Any:
        if "/first/" in f"/{fields['Key']}" and not fields["Key"].endswith("result.json"):
            assert executing.wait(PATIENCE_S)
        return put(**fields)

    monkeypatch.setattr(here.s3, "put_object", put_late)
    first = threads.submit(here.run, request("first"))
    wait_until(lambda: here.engine.runs)
    here.engine.then = executing.set
    assert here.run(request("second")).error is None
    assert first.result(PATIENCE_S).error is None


def test_a_job_whose_turn_does_not_come_before_the_invocation_ends_may_be_sent_again(
    world: Worlds, threads: ThreadPoolExecutor
) -> None:
    engine = QueueingEngine()
    here = world(engine=engine, deadline_margin_s=0.1)
    others = [threads.submit(here.run, request(f"job-{number}")) for number in range(2)]
    wait_until(lambda: len(engine.gates) == 2)
    begun = time.monotonic()
    last = here.run(request("last"), Call(remaining_s=lambda: begun + 0.5 - time.monotonic(), is_heard=False))
    for gate in engine.gates:
        gate.open.set()
    assert last.job.error is not None
    assert (last.job.error.code, last.job.error.retryable) == ("deadline_exceeded", True)
    assert (last.has_run, last.is_recorded) == (False, False)
    assert all(other.result(PATIENCE_S).error is None for other in others)


def test_a_job_is_canceled_while_it_waits_for_the_engine(world: Worlds, threads: ThreadPoolExecutor) -> None:
    engine = QueueingEngine()
    here = world(engine=engine)
    others = [threads.submit(here.run, request(f"job-{number}")) for number in range(2)]
    wait_until(lambda: len(engine.gates) == 2)
    last = threads.submit(here.run, request("last"))
    wait_until(lambda: here.worker.cancel("last"))
    assert last.result(PATIENCE_S).job.status == "canceled"
    for gate in engine.gates:
        gate.open.set()
    assert all(other.result(PATIENCE_S).error is None for other in others)
    assert len(engine.runs) == 2


def test_every_line_of_the_log_has_the_id_of_its_own_job(
    world: Worlds, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(log.registered_handler, "stream", written)
    together = threading.Barrier(2, timeout=PATIENCE_S)
    inside = logging.getLogger("comfy_serverless.connector.test")

    def meet() -> None:
        together.wait()
        inside.warning("inside")
        together.wait()

    here = meeting_while_they_prepare(world(engine=FakeEngine()), meet)
    list(threads.map(lambda n: here.run(request(f"job-{n}")), range(2)))
    inside.warning("after")
    lines = written.getvalue().splitlines()
    assert sum('"job-0"' in line and '"inside"' in line for line in lines) == 1
    assert sum('"job-1"' in line and '"inside"' in line for line in lines) == 1
    assert not any('"after"' in line and "job_id" in line for line in lines)


def test_the_same_id_twice_at_once_runs_once(world: Worlds, threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    here = world(engine=FakeEngine(then=gate))
    first = threads.submit(here.run, request())
    assert gate.reached.wait(PATIENCE_S)
    second = threads.submit(here.run, request())
    time.sleep(0.1)
    assert not second.done(), "it waits for the first one's result"
    gate.open.set()
    assert second.result(PATIENCE_S).job.to_json() == first.result(PATIENCE_S).job.to_json()
    assert len(here.engine.runs) == 1


def test_waiting_for_the_same_id_ends_with_the_invocation(world: Worlds, threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    here = world(engine=FakeEngine(then=gate), deadline_margin_s=0.1)
    first = threads.submit(here.run, request())
    assert gate.reached.wait(PATIENCE_S)
    second = here.run(request(), Call(remaining_s=lambda: 0.3, is_heard=False))
    gate.open.set()
    assert second.job.error is not None
    assert (second.job.error.code, second.job.error.retryable) == ("deadline_exceeded", True)
    assert not second.is_recorded
    assert first.result(PATIENCE_S).error is None


# Cancel


def canceled_at_the_gate(here: World, threads: ThreadPoolExecutor) -> Future[Outcome]:
    running = threads.submit(here.run, request())
    gate = here.engine.then
    assert isinstance(gate, Gate)
    assert gate.reached.wait(PATIENCE_S)
    return running


def test_a_running_job_is_canceled_and_what_it_made_is_delivered(world: Worlds, threads: ThreadPoolExecutor) -> None:
    here = world(engine=StoppableEngine(then=Gate()))
    running = canceled_at_the_gate(here, threads)
    assert here.worker.cancel("job-1")
    outcome = running.result(PATIENCE_S)
    assert outcome.job.status is JobStatus.CANCELED
    assert len(outcome.job.outputs) == 1
    assert here.result("job-1")["status"] == "canceled"
    assert not here.worker.cancel("job-1"), "after the end there is nothing to cancel"


def test_a_second_cancel_changes_nothing(world: Worlds, threads: ThreadPoolExecutor) -> None:
    here = world(engine=StoppableEngine(then=Gate()))
    running = canceled_at_the_gate(here, threads)
    here.worker.cancel("job-1")
    here.worker.cancel("job-1")
    assert running.result(PATIENCE_S).job.status is JobStatus.CANCELED


def test_cancel_is_heard_by_the_job_it_names_only(world: Worlds, threads: ThreadPoolExecutor) -> None:
    here = world(engine=StoppableEngine(then=Gate()))
    running = canceled_at_the_gate(here, threads)
    assert not here.worker.cancel("job-2")
    assert here.engine.canceled == []
    assert isinstance(here.engine.then, Gate)
    here.engine.then.open.set()
    assert running.result(PATIENCE_S).error is None


def test_a_job_canceled_while_its_inputs_are_fetched_never_gets_to_the_engine(world: Worlds) -> None:
    here = world()
    prepare = here.inputs.prepare

    def prepare_slowly(*args: Any, **options: Any) -> Any:
        assert here.worker.cancel("job-1")
        return prepare(*args, **options)

    here.inputs.prepare = prepare_slowly  # type: ignore[method-assign]
    outcome = here.run(request())
    assert outcome.job.status is JobStatus.CANCELED
    assert here.engine.runs == []
    assert here.inputs.released == ["job-1"]


def test_a_cancel_on_the_way_to_the_engine_is_repeated_until_the_engine_has_the_prompt(world: Worlds) -> None:
    class Slow(FakeEngine):
        def cancel(self, prompt_id: str) -> bool:
            super().cancel(prompt_id)
            return len(self.canceled) > 3

    here = world(engine=Slow())

    def cancel_just_now() -> None:
        canceling.append(here.worker.cancel("job-1"))

    canceling: list[bool] = []
    thread = threading.Thread(target=cancel_just_now)

    def cancel_and_wait() -> None:
        thread.start()
        wait_until(lambda: len(here.engine.canceled) > 3)

    here.engine.then = cancel_and_wait
    here.run(request())
    thread.join(PATIENCE_S)
    assert len(here.engine.canceled) == 4


def test_a_cancel_during_the_delivery_is_too_late(world: Worlds) -> None:
    answers: list[bool] = []

    def cancel_as_it_leaves(params: dict[str, Any], **_: Any) -> None:
        if "late" in params["Key"]:
            answers.append(here.worker.cancel("job-1"))

    class Late(FakeEngine):
        def run(self, *args: Any, **options: Any) -> Any:
            execution = super().run(*args, **options)
            late = made("late.bin", b"", index=1)
            execution.outputs = (*execution.outputs, late)
            return execution

    here = world(engine=Late())
    here.s3.meta.events.register("provide-client-params.s3.PutObject", cancel_as_it_leaves)
    assert here.run(request()).job.status is JobStatus.SUCCEEDED
    assert answers == [False]


# Drain


def test_draining_an_idle_worker_takes_no_time_and_nothing_begins_after_it(world: Worlds) -> None:
    here = world()
    with QuietClock() as clock:
        begun = clock()
        assert here.worker.drain(within_s=60)
        assert clock() - begun < 10
    outcome = here.run(request(), UNHEARD)
    assert outcome.job.error is not None
    assert (outcome.job.error.code, outcome.job.error.retryable) == ("worker_stopped", True)
    assert not outcome.is_recorded
    assert here.engine.runs == []


def test_a_job_that_can_finish_is_let_finish(world: Worlds, threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    here = world(engine=StoppableEngine(then=gate))
    running = canceled_at_the_gate(here, threads)
    draining = threads.submit(here.worker.drain, within_s=2 * PATIENCE_S)
    time.sleep(0.1)
    gate.open.set()
    assert draining.result(PATIENCE_S)
    assert running.result(PATIENCE_S).job.status is JobStatus.SUCCEEDED
    assert here.engine.canceled == []


def test_a_job_that_cannot_finish_is_stopped_reported_as_retryable_and_its_outputs_kept(
    world: Worlds, threads: ThreadPoolExecutor
) -> None:
    here = world(engine=StoppableEngine(then=Gate()))
    running = canceled_at_the_gate(here, threads)
    assert here.worker._jobs.drain(finish_s=0.2, stop_s=PATIENCE_S)
    outcome = running.result(PATIENCE_S)
    assert outcome.job.error is not None
    assert (outcome.job.error.code, outcome.job.error.retryable) == ("worker_stopped", True)
    assert len(outcome.job.outputs) == 1
    assert not outcome.is_recorded, "another worker runs it again"


def test_what_does_not_stop_is_told(world: Worlds, threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    here = world(engine=FakeEngine(then=gate))
    running = canceled_at_the_gate(here, threads)
    assert not here.worker.drain(within_s=0.2)
    gate.open.set()
    assert running.result(PATIENCE_S).error is None


# Tidying


def on_disk(tmp_path: Path) -> Any:
    file = tmp_path / "a.bin"
    file.write_bytes(b"x")
    return made("a.bin", path=file)


def test_what_was_delivered_is_discarded_after_the_reply_never_before(world: Worlds, tmp_path: Path) -> None:
    output = on_disk(tmp_path)
    here = world(engine=FakeEngine(outputs=(output,)))
    outcome = here.run(request())
    assert here.engine.discarded == []
    outcome.release()
    here.worker.close()
    [discarded] = here.engine.discarded
    assert discarded["apart_as"] == "job-1"
    assert discarded["prompt_id"] == here.engine.runs[0]["prompt_id"]


def test_what_could_not_be_stored_is_kept(world: Worlds, tmp_path: Path) -> None:
    here = world(engine=FakeEngine(outputs=(on_disk(tmp_path),)))
    here.engine.then = lambda: here.s3.delete_bucket(Bucket=OUT)
    here.engine.announces = False
    outcome = here.run(request())
    assert outcome.error is not None
    assert outcome.error.code == "delivery_failed"
    outcome.release()
    here.worker.close()
    assert here.engine.discarded[0]["apart_as"] is None


def test_the_folder_of_a_job_that_runs_again_is_left_to_its_next_delivery(
    world: Worlds, threads: ThreadPoolExecutor
) -> None:
    here = world(engine=FakeEngine(error=EngineCrashed("died")))
    first = here.run(request())
    here.engine.error, here.engine.then = None, Gate()
    second = canceled_at_the_gate(here, threads)
    first.release()
    wait_until(lambda: here.engine.discarded)
    here.engine.then.open.set()
    second.result(PATIENCE_S).release()
    here.worker.close()
    assert [discarded["apart_as"] for discarded in here.engine.discarded] == [None, "job-1"]


def test_a_delivery_of_a_job_waits_while_the_folder_of_the_last_one_is_removed(
    world: Worlds, threads: ThreadPoolExecutor
) -> None:
    removing, removed = threading.Event(), threading.Event()

    class Slow(FakeEngine):
        def discard(self, *args: Any, **options: Any) -> None:
            super().discard(*args, **options)
            removing.set()
            assert removed.wait(PATIENCE_S)

    here = world(engine=Slow(error=EngineCrashed("died")))
    here.run(request()).release()
    assert removing.wait(PATIENCE_S)
    second = threads.submit(here.run, request())
    time.sleep(0.1)
    assert len(here.engine.runs) == 1
    removed.set()
    second.result(PATIENCE_S)
    assert len(here.engine.runs) == 2


@pytest.mark.parametrize("error", [NodeExecutionError("boom"), Canceled("enough")])
def test_a_job_that_failed_leaves_nothing_either(world: Worlds, tmp_path: Path, error: ComfyError) -> None:
    here = world(engine=FakeEngine(outputs=(on_disk(tmp_path),), error=error))
    here.run(request()).release()
    here.worker.close()
    assert here.engine.discarded[0]["apart_as"] == "job-1"


def test_releasing_twice_or_late_does_no_harm(world: Worlds) -> None:
    here = world()
    outcome = here.run(request())
    here.worker.close()
    outcome.release()
    outcome.release()
    assert [discarded["apart_as"] for discarded in here.engine.discarded] == ["job-1", None]


def test_a_stop_that_the_engine_never_hears_is_given_up(world: Worlds, threads: ThreadPoolExecutor) -> None:
    class Deaf(FakeEngine):
        def cancel(self, prompt_id: str) -> bool:
            super().cancel(prompt_id)
            return False

    here = world(engine=Deaf(then=Gate()))
    running = canceled_at_the_gate(here, threads)
    assert not here.worker.drain(within_s=0.2)
    assert isinstance(here.engine.then, Gate)
    here.engine.then.open.set()
    assert running.result(PATIENCE_S).error is None


def test_a_job_that_never_ran_has_left_nothing(world: Worlds) -> None:
    here = world()
    here.inputs.error = MissingAsset("gone")
    here.run(request()).release()
    here.worker.close()
    assert here.engine.discarded == []


def test_inputs_are_shown_while_the_job_executes_and_at_no_other_time(world: Worlds) -> None:
    seen: list[tuple[list[str], list[str]]] = []
    here = world()
    here.engine.then = lambda: seen.append((list(here.inputs.shown), list(here.inputs.released)))
    here.run(request())
    assert seen == [(["job-1"], [])]
    assert set(here.inputs.released) == {"job-1"}


# Owners


@dataclass(frozen=True)
class Of:
    """A request of an owner."""

    sent: SentRequest
    owner_name: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sent, name)


def submit(here: World, threads: ThreadPoolExecutor, job_id: str, owner: str) -> Future[Outcome]:
    source: Any = Of(SentRequest(payload=request(job_id), default_id="x"), owner)
    return threads.submit(here.worker.run, source, Call())


@pytest.mark.parametrize(
    ("owner", "overlaps", "may_enter"), [("alice", True, True), ("bob", True, False), ("alice", False, False)]
)
def test_the_next_job_waits_outside_unless_it_is_the_same_owners_and_meets_none_of_its_files(
    world: Worlds, threads: ThreadPoolExecutor, owner: str, overlaps: bool, may_enter: bool
) -> None:
    gate = Gate()
    here = world(engine=FakeEngine(then=gate, overlaps=overlaps))
    first = submit(here, threads, "job-1", "alice")
    assert gate.reached.wait(PATIENCE_S)
    second = submit(here, threads, "job-2", owner)
    wait_until(lambda: len(here.inputs.calls) == 2)
    if may_enter:
        wait_until(lambda: len(here.engine.runs) == 2)
    else:
        time.sleep(0.1)
        assert len(here.engine.runs) == 1
        assert here.inputs.shown == ["job-1"]
    gate.open.set()
    for job in (first, second):
        assert job.result(PATIENCE_S).error is None
    assert len(here.engine.runs) == 2


def test_the_files_of_an_owner_are_gone_before_those_of_the_next_are_shown(
    world: Worlds, threads: ThreadPoolExecutor
) -> None:
    story: list[str] = []
    here = world()
    here.engine.then = lambda: story.append(f"shown {here.inputs.shown} gone {sorted(set(here.inputs.released))}")
    for number, owner in enumerate(("alice", "bob")):
        submit(here, threads, f"job-{number}", owner).result(PATIENCE_S)
    assert story == ["shown ['job-0'] gone []", "shown ['job-0', 'job-1'] gone ['job-0']"]


def test_a_job_whose_owner_is_not_told_has_the_engine_to_itself() -> None:
    first, second = (JobMessage(job_id=name, address=S3Address("bucket", "key")) for name in ("a", "b"))
    assert first.owner_name != second.owner_name
    told = JobMessage(job_id="a", address=S3Address("bucket", "key"), owner="alice")
    read = JobMessage.parse(told.to_text())
    assert read == told
    assert told.owner_name == "alice"
