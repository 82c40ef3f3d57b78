"""What a run keeps of its attempts."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from comfy_serverless.connector import recovery
from comfy_serverless.connector.facts import FrameSeen, Outcome, Timings
from comfy_serverless.connector.made_files import MadeFiles, Remembered
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.remote_files import RemoteFiles
from comfy_serverless.connector.run import WorkflowRun
from comfy_serverless.errors import Canceled, ComfyError, DeadlineExceeded, EngineCrashed

FRAMES = {"1": {"class_type": "SaveImageWebsocket", "inputs": {}}}
GRAPH = {"2": {"class_type": "PreviewAny", "inputs": {}}}


@dataclass
class FakeEngine:
    """An engine that is always ready; the attempts on it are the test's."""

    is_embedded: bool = False

    def made_files(self, apart_as: str | None) -> MadeFiles:
        assert apart_as is None
        return RemoteFiles(lambda _: None, Remembered(), view=lambda *_: pytest.fail("nothing"), is_apart=False)

    def wait_ready(self, timeout_s: float | None, canceled: threading.Event) -> None:
        assert timeout_s is None


def outcome(
    text: str | None, *, error: ComfyError | None = None, frames: tuple[bytes, ...] = (), events_missed: bool = False
) -> Outcome:
    return Outcome(
        error=error,
        shown={"2": {"text": [text]}} if text else {},
        display_nodes={},
        frames=tuple(FrameSeen("1", "image/png", frame) for frame in frames),
        cached_nodes=(),
        warnings=(),
        timings=Timings(0, 0, 0),
        events_missed=events_missed,
        engine_is_broken=False,
    )


def run(monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome, graph: dict[str, Any] = GRAPH) -> Any:
    engine: Any = FakeEngine()
    attempts: Iterator[Outcome] = iter(outcomes)
    monkeypatch.setattr(WorkflowRun, "_follow", lambda *_: next(attempts))
    workflow_run = WorkflowRun(
        graph,
        engine=engine,
        run_id=str(uuid.uuid4()),
        deadline=None,
        stall_s=60,
        on_progress=None,
        on_output=None,
        extra_data=None,
    )
    return workflow_run.execute(wait_ready=engine.wait_ready)


def test_what_the_first_attempt_made_is_kept_when_the_second_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = EngineCrashed("it died")
    with pytest.raises(EngineCrashed) as raised:
        run(monkeypatch, outcome("first", error=crash), outcome(None, error=crash))
    assert [output.read() for output in raised.value.outputs] == [b"first"]


def test_what_counts_is_what_the_last_attempt_made(monkeypatch: pytest.MonkeyPatch) -> None:
    execution = run(monkeypatch, outcome("first", error=EngineCrashed("it died")), outcome("second", error=None))
    assert [output.read() for output in execution.outputs] == [b"second"]
    assert execution.attempts == 2


def read(outputs: tuple[Output, ...]) -> list[bytes]:
    return [output.read() for output in outputs]


def test_an_attempt_that_made_less_is_not_what_is_told_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    first = outcome(None, frames=(b"a", b"b"), error=EngineCrashed("it died"))
    second = outcome(None, frames=(b"a",), error=EngineCrashed("again"))
    with pytest.raises(EngineCrashed, match="again") as raised:
        run(monkeypatch, first, second, graph=FRAMES)
    assert read(raised.value.outputs) == [b"a", b"b"]


@pytest.mark.parametrize("frames", [(b"a",), (b"a", b"b", b"c", b"d")], ids=["less", "more"])
def test_of_two_attempts_that_lost_frames_the_one_that_lost_fewer_counts(
    monkeypatch: pytest.MonkeyPatch, frames: tuple[bytes, ...]
) -> None:
    first = outcome(None, frames=(b"a", b"b", b"c"), events_missed=True)
    execution = run(monkeypatch, first, outcome(None, frames=frames, events_missed=True), graph=FRAMES)
    assert len(execution.outputs) == max(3, len(frames))
    assert execution.warnings == (recovery.FRAMES_ARE_MISSING,)
    assert execution.attempts == 2


def test_a_success_that_heard_everything_counts_whatever_the_one_before_made(monkeypatch: pytest.MonkeyPatch) -> None:
    first = outcome(None, frames=(b"a", b"b"), events_missed=True)
    execution = run(monkeypatch, first, outcome(None, frames=(b"a",)), graph=FRAMES)
    assert read(execution.outputs) == [b"a"]
    assert execution.warnings == ()


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), EngineCrashed("it died")])
def test_a_second_attempt_that_fails_takes_nothing_from_the_first(
    monkeypatch: pytest.MonkeyPatch, error: ComfyError
) -> None:
    first = outcome(None, frames=(b"a", b"b"), events_missed=True)
    execution = run(monkeypatch, first, outcome(None, error=error), graph=FRAMES)
    assert read(execution.outputs) == [b"a", b"b"]
    assert execution.warnings == (recovery.FRAMES_ARE_MISSING,)


def test_who_cancels_the_second_attempt_has_canceled(monkeypatch: pytest.MonkeyPatch) -> None:
    first = outcome(None, frames=(b"a",), events_missed=True)
    with pytest.raises(Canceled) as raised:
        run(monkeypatch, first, outcome(None, error=Canceled("asked")), graph=FRAMES)
    assert read(raised.value.outputs) == [b"a"]
