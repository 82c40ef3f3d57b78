"""Reports ended jobs to the operator, in CloudWatch metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from comfy_serverless.connector.upkeep import Condition
from comfy_serverless.observability import NAMESPACE

if TYPE_CHECKING:
    from comfy_serverless.jobs.document import Job
    from comfy_serverless.worker.worker import Outcome


@dataclass(slots=True)
class Meter:
    """Counts the jobs of one process in the metrics, each once; `condition` returns how its engine has been."""

    condition: Callable[[], Condition]
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
) -> None:
    """Write one invocation's metrics to standard output, in CloudWatch's embedded format.

    What the engine holds is 0 where that is not known.
    """
    metrics = Metrics(namespace=NAMESPACE, service="comfy_serverless")
    metrics.add_metric("ColdStart", MetricUnit.Count, int(is_cold_start))
    metrics.add_metric("EngineStarts", MetricUnit.Count, engine_starts)
    metrics.add_metric("EngineRecycled", MetricUnit.Count, engine_recycled)
    for name, held in (("EngineMemoryMb", engine_bytes), ("EngineGpuMemoryMb", gpu_bytes)):
        if held:
            metrics.add_metric(name, MetricUnit.Megabytes, round(held / 1_000_000))
    for job in jobs:
        metrics.add_metric("Jobs", MetricUnit.Count, 1)
        metrics.add_metric("Outputs", MetricUnit.Count, job.outputs_made)
        metrics.add_metric("OutputBytes", MetricUnit.Bytes, sum(output.size_bytes for output in job.outputs))
        if "executing" in job.timings_ms:
            metrics.add_metric("ExecutionMs", MetricUnit.Milliseconds, job.timings_ms["executing"])
            metrics.add_metric("OverheadMs", MetricUnit.Milliseconds, job.timings_ms["overhead"])
        if job.error is not None:
            with single_metric("Failures", MetricUnit.Count, 1, namespace=NAMESPACE) as failure:
                failure.add_dimension("code", job.error.code)
    metrics.flush_metrics()
