"""Reports ended jobs to the operator, in CloudWatch metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comfy_serverless.connector.upkeep import Condition
from comfy_serverless.errors import kind_of
from comfy_serverless.observability import emit, emit_failure

if TYPE_CHECKING:
    from comfy_serverless.jobs.document import Job
    from comfy_serverless.worker.outcomes import Outcome


@dataclass(slots=True)
class Meter:
    """Counts the jobs of one process in the metrics, each once.

    Attributes:
        condition: returns how its engine has been.
        not_loaded: returns how many packs of custom nodes could not import.
    """

    condition: Callable[[], Condition]
    not_loaded: Callable[[], int]
    _invocations: int = 0
    _counted: Condition = field(default_factory=Condition)

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count how the jobs of one invocation ended."""
        now, before = self.condition(), self._counted
        emit_metrics(
            # A job answered from its stored result has been counted already.
            [outcome.job for outcome in outcomes if outcome.has_run or outcome.error is not None],
            is_cold_start=self._invocations == 0,
            engine_starts=now.starts - before.starts,
            engine_recycled=now.recycled - before.recycled,
            engine_bytes=now.resident_bytes,
            gpu_bytes=now.gpu_bytes,
            nodes_not_loaded=self.not_loaded(),
        )
        self._invocations += 1
        self._counted = now


def emit_metrics(
    jobs: Iterable[Job],
    *,
    is_cold_start: bool,
    engine_starts: int,
    engine_recycled: int = 0,
    engine_bytes: int = 0,
    gpu_bytes: int = 0,
    nodes_not_loaded: int = 0,
) -> None:
    """Write one invocation's metrics. What the engine holds is 0 where that is not known."""
    figures: defaultdict[str, list[float]] = defaultdict(list)
    figures["ColdStart"].append(int(is_cold_start))
    figures["EngineStarts"].append(engine_starts)
    figures["EngineRecycled"].append(engine_recycled)
    if nodes_not_loaded:
        figures["NodesNotLoaded"].append(nodes_not_loaded)
    for name, held in (("EngineMemoryMb", engine_bytes), ("EngineGpuMemoryMb", gpu_bytes)):
        if held:
            figures[name].append(round(held / 1_000_000))
    for job in jobs:
        figures["Jobs"].append(1)
        figures["Outputs"].append(job.outputs_made)
        figures["OutputBytes"].append(sum(output.size_bytes for output in job.outputs))
        if "executing" in job.timings_ms:
            figures["ExecutionMs"].append(job.timings_ms["executing"])
            figures["OverheadMs"].append(job.timings_ms["overhead"])
        if job.error is not None:
            emit_failure(job.error.code, kind_of(job.error.code, retryable=job.error.retryable))
    emit(figures, {"service": "comfy_serverless"})
