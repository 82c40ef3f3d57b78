"""What a run keeps of its attempts."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from comfy_serverless.connector import recovery
from comfy_serverless.connector.facts import FrameSeen, Outcome, Timings
from comfy_serverless.connector.made_files import MadeFiles, Remembered
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.remote_files import RemoteFiles
from comfy_serverless.connector.run import WorkflowRun
from comfy_serverless.errors import Canceled, ComfyError, DeadlineExceeded, EngineCrashed, OutOfMemory
from comfy_serverless.graph.nodes import SMALLEST_GRAPH

FRAMES = {"1": {"class_type": "SaveImageWebsocket", "inputs": {}}}
GRAPH = {"2": {"class_type": "PreviewAny", "inputs": {}}}


@dataclass
class FakeEngine:
    """An engine that is always ready; the attempts on it are the test's. `did` has what it was asked for."""

    process: None = None
    is_embedded: bool = False
    did: list[object] = field(default_factory=list)

    def made_files(self, apart_as: str | None, **_: object) -> MadeFiles:
        assert apart_as is None
        return RemoteFiles(lambda _: None, Remembered(), view=lambda *_: pytest.fail("nothing"), is_apart=False)

    def wait_ready(self, timeout_s: float | None, canceled: threading.Event) -> None:
        assert timeout_s is None

    def free_memory(self, *, unload_models: bool) -> None:
        self.did.append("free and unload" if unload_models else "free")

    def forget(self, prompt_ids: Iterable[str]) -> None:
        self.did.append(("forget", *prompt_ids))


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


def run(
    monkeypatch: pytest.MonkeyPatch,
    *outcomes: Outcome,
    graph: dict[str, Any] = GRAPH,
    did: list[object] | None = None,
    on_output: Callable[[Output], None] | None = None,
) -> Any:
    engine: Any = FakeEngine(did=[] if did is None else did)
    attempts: Iterator[Outcome] = iter(outcomes)

    def follow(_: WorkflowRun, prompt_id: str, submitted: Mapping[str, Any], *__: object) -> Outcome:
        engine.did.append((prompt_id, submitted))
        return next(attempts)

    monkeypatch.setattr(WorkflowRun, "_follow", follow)
    workflow_run = WorkflowRun(
        graph,
        engine=engine,
        run_id=str(uuid.uuid4()),
        deadline=None,
        stall_s=60,
        on_progress=None,
        on_output=on_output,
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


@pytest.mark.parametrize(
    ("of_another", "error"), [("shown", None), (None, DeadlineExceeded("late"))], ids=["it ran", "it did not"]
)
def test_a_workflow_is_run_once_more_when_the_memory_that_was_asked_for_is_free(
    monkeypatch: pytest.MonkeyPatch, of_another: str | None, error: ComfyError | None
) -> None:
    """ComfyUI looks at the wish after the prompt that it executes next: that must not be the second attempt."""
    did: list[Any] = []
    told: list[Output] = []
    execution = run(
        monkeypatch,
        outcome(None, error=OutOfMemory("no memory")),
        outcome(of_another, error=error),
        outcome("second"),
        did=did,
        on_output=told.append,
    )
    assert [step if isinstance(step, str) else step[1] for step in did[:3]] == [
        GRAPH,
        "free and unload",
        SMALLEST_GRAPH,
    ]
    assert did[3] == ("forget", did[2][0]), "nobody asks for its history"
    assert did[4][1] == GRAPH
    assert len({did[0][0], did[2][0], did[4][0]}) == 3, "each prompt has an id of its own"
    assert read(execution.outputs) == read(tuple(told)) == [b"second"]
    assert execution.attempts == 2
