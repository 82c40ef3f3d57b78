"""What a run keeps of its attempts."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from comfy_serverless.connector.facts import Outcome, Timings
from comfy_serverless.connector.outputs import FileLocator
from comfy_serverless.connector.run import WorkflowRun
from comfy_serverless.errors import EngineCrashed

GRAPH = {"2": {"class_type": "PreviewAny", "inputs": {}}}


@dataclass
class FakeEngine:
    """An engine that is always ready; the attempts on it are the test's."""

    locator: FileLocator = field(default_factory=lambda: FileLocator({}, lambda *_: pytest.fail("nothing to view")))
    is_embedded: bool = False

    def wait_ready(self, timeout_s: float | None, canceled: threading.Event) -> None:
        assert timeout_s is None


def outcome(text: str | None, *, error: EngineCrashed | None) -> Outcome:
    return Outcome(
        error=error,
        shown={"2": {"text": [text]}} if text else {},
        display_nodes={},
        frames=(),
        cached_nodes=(),
        warnings=(),
        timings=Timings(0, 0, 0),
        events_missed=False,
        engine_is_broken=False,
    )


def run(monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome) -> Any:
    engine: Any = FakeEngine()
    attempts: Iterator[Outcome] = iter(outcomes)
    monkeypatch.setattr(WorkflowRun, "_attempt", lambda *_: next(attempts))
    workflow_run = WorkflowRun(
        GRAPH,
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
