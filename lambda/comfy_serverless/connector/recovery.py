"""Decides whether an ended prompt is run once more, and what must happen before that. No IO."""

from __future__ import annotations

from enum import Enum

from comfy_serverless.connector.facts import Outcome
from comfy_serverless.errors import EngineCrashed, OutOfMemory

#: Every job gets at most one second chance.
MAX_ATTEMPTS = 2


class Recovery(Enum):
    """What to do after an outcome."""

    DELIVER = "deliver"
    RESTART_AND_RETRY = "restart_and_retry"
    FREE_MEMORY_AND_RETRY = "free_memory_and_retry"
    RETRY = "retry"


#: What a success can lack; a warning if another attempt lacks it too.
FILES_ARE_GONE = "ComfyUI named files that no longer exist"
FRAMES_ARE_MISSING = "the websocket was lost while pictures came through it: some may be missing"


def after(outcome: Outcome, *, attempt: int, lost: str | None) -> Recovery:
    """What to do with an outcome.

    Args:
        outcome: how the prompt ended.
        attempt: 1 for the first.
        lost: what a success lacks: one of the constants above.
    """
    if attempt >= MAX_ATTEMPTS:
        return Recovery.DELIVER
    if isinstance(outcome.error, EngineCrashed):
        return Recovery.RESTART_AND_RETRY
    # ComfyUI does not run a cached node again even if its file has been deleted: the cache has to go.
    if isinstance(outcome.error, OutOfMemory) or lost == FILES_ARE_GONE:
        return Recovery.FREE_MEMORY_AND_RETRY
    return Recovery.RETRY if lost == FRAMES_ARE_MISSING else Recovery.DELIVER
