"""SIGTERM: the process is about to be taken away (scale-in, a spot instance, a deployment)."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from comfy_serverless import tracing

logger = logging.getLogger(__name__)

#: SageMaker kills the container 30 s after SIGTERM: see AWS's "How containers serve requests".
SHUTDOWN_S = 25.0
#: The part that is kept back for the end of ComfyUI (`ComfyProcess.stop`) and for the last answers to leave.
_RESERVE_S = 7.0
_LAST_ANSWER_S = 0.5


class Drains(Protocol):
    """Can be drained: see `Worker.drain`."""

    def drain(self, *, within_s: float) -> bool: ...


def drain_on_sigterm(*, worker: Drains, stop_engine: Callable[[], None], leave: Callable[[], None]) -> None:
    """Let SIGTERM end this process in order: jobs finish or are stopped and reported, then ComfyUI ends.

    A separate thread does the work, since the main thread may be amid a job. Call this from the main thread.

    Args:
        stop_engine: ends ComfyUI and all it has started; a job that still runs on it ends with it.
        leave: ends the process, at last.
    """

    def shut_down() -> None:
        logger.warning("SIGTERM: no more jobs are begun")
        try:
            if not worker.drain(within_s=SHUTDOWN_S - _RESERVE_S):
                logger.error("a job could not be stopped in time, and ends with ComfyUI")
            stop_engine()
            # A job that ended with the engine reports now, and answers are on their way out.
            worker.drain(within_s=2 * _LAST_ANSWER_S)
            threading.Event().wait(_LAST_ANSWER_S)
            tracing.flush(_LAST_ANSWER_S)
        except Exception:
            logger.exception("bug: the shutdown failed")
        finally:
            leave()

    thread = threading.Thread(target=shut_down, name="shutdown", daemon=True)

    is_begun = False

    def begin(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_begun
        if not is_begun:
            is_begun = True  # before the thread begins: another signal may come meanwhile
            thread.start()

    signal.signal(signal.SIGTERM, begin)


def leave_process() -> None:
    """End at once, also if other threads still wait: everything that matters has ended."""
    logging.shutdown()
    os._exit(0)
