"""Attempts: one more than there are pauses, none after the time is over, and none for those who have given up."""

from __future__ import annotations

import time

import pytest

from comfy_serverless.retry import attempts


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_there_is_one_attempt_more_than_there_are_pauses(slept: list[float]) -> None:
    assert [attempt.is_last for attempt in attempts((0.1, 0.2))] == [False, False, True]
    assert slept == [0.1, 0.2]


def test_success_pauses_no_more(slept: list[float]) -> None:
    for _ in attempts((0.1, 0.2)):
        break
    assert slept == []


def test_an_attempt_is_the_last_when_the_time_would_be_over_after_the_pause(
    slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + sum(slept))
    assert [attempt.is_last for attempt in attempts((1.0, 5.0, 1.0), until=106.0)] == [False, True, True, True]


def test_who_gives_up_in_a_pause_gets_no_attempt_more() -> None:
    assert len(list(attempts((0.1, 0.2), pause=lambda pause_s: pause_s == 0.2))) == 2
