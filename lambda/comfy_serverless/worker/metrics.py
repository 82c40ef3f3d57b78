"""Reports ended jobs to the operator, in CloudWatch metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from comfy_serverless.observability import NAMESPACE

if TYPE_CHECKING:
    from comfy_serverless.jobs.document import Job
    from comfy_serverless.worker.worker import Outcome


@dataclass(slots=True)
class Meter:
    """Counts the jobs of one process in the metrics, each once.

    Attributes:
        starts: returns how often its engine has started.
        not_loaded: returns how many packs of custom nodes that could not import.
    """

    starts: Callable[[], int]
    not_loaded: Callable[[], int]
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
            nodes_not_loaded=self.not_loaded(),
        )
        self._invocations += 1
        self._counted_starts = starts


def emit_metrics(jobs: Iterable[Job], *, is_cold_start: bool, engine_starts: int, nodes_not_loaded: int) -> None:
    """Write one invocation's metrics to standard output, in CloudWatch's embedded format."""
    metrics = Metrics(namespace=NAMESPACE, service="comfy_serverless")
    metrics.add_metric("ColdStart", MetricUnit.Count, int(is_cold_start))
    metrics.add_metric("EngineStarts", MetricUnit.Count, engine_starts)
    metrics.add_metric("NodesNotLoaded", MetricUnit.Count, nodes_not_loaded)
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
