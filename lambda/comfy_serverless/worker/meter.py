"""Counts the jobs of one process in the metrics, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comfy_serverless.worker.metrics import emit_metrics
from comfy_serverless.worker.worker import Outcome


@dataclass(slots=True)
class Meter:
    """Counts the jobs of one process in the metrics.

    Attributes:
        starts: returns how often the engine has been started.
    """

    starts: Callable[[], int]
    _invocations: int = 0
    _counted_starts: int = 0

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count how the jobs of one invocation ended."""
        starts = self.starts()
        emit_metrics(
            # A job answered from its stored result has been counted already.
            [outcome.job for outcome in outcomes if outcome.has_run or outcome.error is not None],
            is_cold_start=self._invocations == 0,
            engine_starts=starts - self._counted_starts,
        )
        self._invocations += 1
        self._counted_starts = starts
