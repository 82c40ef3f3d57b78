"""What `make bench-ping` makes of what it has seen: each promise can be broken."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.ping_flood import Job, Phase, Refusal, _children, _promises, percentile
from benchmarks.pinger import UNANSWERED

REFUSAL = Refusal("a bomb", 10, seconds=1.0, processor_s=1.0, peak_mb=100.0, code="missing_asset", told="too large")
SMALL = [Job("succeeded", "", 0.1)] * 20


def broken(*, refusal: Refusal = REFUSAL, pings_ms: list[float] | None = None, small: list[Job] = SMALL) -> list[str]:
    floor = Phase(pings_ms=[2.0] * 100, small=SMALL)
    flood = Phase(pings_ms=pings_ms or [3.0] * 100, small=small)
    phases = {"quiet": floor, "floor": floor, "flood": flood}
    return [each.name.partition(":")[0] for each in _promises([REFUSAL, refusal], phases, 100.0) if not each.is_kept(1)]


def test_all_are_kept() -> None:
    assert broken() == []


@pytest.mark.parametrize("code", ["succeeded", "engine_crashed", "internal_error", "deadline_exceeded"])
def test_a_hostile_job_must_be_refused(code: str) -> None:
    assert broken(refusal=replace(REFUSAL, code=code)) == ["hostile jobs that were not refused"]


def test_a_refusal_must_be_cheap() -> None:
    assert broken(refusal=replace(REFUSAL, processor_s=5.1)) == ["the most processor time of a refusal"]
    assert broken(refusal=replace(REFUSAL, peak_mb=513)) == ["the most memory of a refusal"]


def test_pings_must_be_answered_soon() -> None:
    assert broken(pings_ms=[3.0] * 99 + [UNANSWERED]) == ["pings in the flood that were not answered with 200"]
    assert broken(pings_ms=[3.0] * 98 + [260.0] * 2) == ["p99 of /ping, beyond the floor"]
    assert broken(pings_ms=[3.0] * 199 + [2100.0]) == ["the slowest /ping in the flood"]


def test_jobs_of_the_other_owner_must_succeed_and_go_on() -> None:
    assert broken(small=[*SMALL, Job("missing_asset", "", 0.1)]) == ["jobs of the other owner that failed"]
    assert broken(small=[Job("succeeded", "", 5.2)] * 20) == ["nine of ten small jobs, beyond the floor"]


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 2.0, 3.0, 3.0]


def test_a_thread_that_ends_hides_no_child_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([folder / "0", *look(folder)]))
    with subprocess.Popen(["sleep", "600"]) as child:
        found = _children(os.getpid())
        child.kill()
    assert child.pid in found
