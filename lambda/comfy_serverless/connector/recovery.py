"""What is done by itself after a prompt has ended: once more, and after what. No IO."""

from __future__ import annotations

from enum import Enum

from comfy_serverless.connector.facts import Outcome
from comfy_serverless.errors import EngineCrashed, OutOfMemory

#: Every job gets at most one second chance.
MAX_ATTEMPTS = 2


class Recovery(Enum):
    """How to go on."""

    DELIVER = "deliver"
    RESTART_AND_RETRY = "restart_and_retry"
    FREE_MEMORY_AND_RETRY = "free_memory_and_retry"
    RETRY = "retry"


def after(outcome: Outcome, *, attempt: int, wants_frames: bool, files_are_gone: bool) -> Recovery:
    """What to do with an outcome.

    Args:
        outcome: how the prompt ended.
        attempt: 1 for the first.
        wants_frames: whether results come through the websocket, where a lost socket loses them.
        files_are_gone: whether an output names a file that no longer exists: a cached node is not run again,
            even when its file has been deleted since.
    """
    if attempt >= MAX_ATTEMPTS:
        return Recovery.DELIVER
    if isinstance(outcome.error, EngineCrashed):
        return Recovery.RESTART_AND_RETRY
    if isinstance(outcome.error, OutOfMemory):
        return Recovery.FREE_MEMORY_AND_RETRY
    if outcome.error is None and files_are_gone:
        return Recovery.FREE_MEMORY_AND_RETRY
    if outcome.error is None and wants_frames and outcome.events_missed:
        return Recovery.RETRY
    return Recovery.DELIVER
