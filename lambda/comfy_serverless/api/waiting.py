"""Waits for a job by looking at it again and again: often while it is young, seldom when it is old.

Whoever waits hears of an end late by an eighth of the job's age at most, and costs the table some 25 reads in the
first ten seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from comfy_serverless import moments
from comfy_serverless.table.job_state import JobState

#: The shortest and the longest pause between two looks, in seconds; the longest is too short for a person to notice.
SHORTEST_S, LONGEST_S = 0.02, 0.25
#: The pause, as a part of the job's age.
_PART_OF_AGE = 1 / 8


def wait_for(
    state: JobState,
    *,
    look: Callable[[str], JobState | None],
    enough: Callable[[JobState], bool],
    until: float,
) -> JobState:
    """Look at a job until it is enough, at most until a moment on the monotonic clock. Returns what was seen last.

    Args:
        look: reads the job by its id; None (it was deleted) changes nothing.
    """
    while not enough(state):
        left_s = until - time.monotonic()
        if left_s <= 0:
            break
        time.sleep(min(left_s, _pause_s(age_s(state))))
        state = look(state.id) or state
    return state


def age_s(state: JobState) -> float:
    """How long ago a job was submitted, in seconds."""
    return (moments.now() - datetime.fromisoformat(state.created_at)).total_seconds()


def _pause_s(age: float) -> float:
    return min(LONGEST_S, max(SHORTEST_S, age * _PART_OF_AGE))
