"""What an operator sees of a job that ended: one log line, and CloudWatch metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aws_lambda_powertools import Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from comfy_serverless.observability import NAMESPACE, log

if TYPE_CHECKING:
    from comfy_serverless.jobs.document import Job

_QUERY = re.compile(r"""(\bhttps?://[^\s?'"<>]*)\?[^\s'"<>]+""", re.IGNORECASE)


def log_job(job: Job) -> None:
    """The one line that tells how a job ended."""
    facts = {
        "status": job.status.value,
        "outputs": len(job.outputs),
        "output_bytes": sum(output.size_bytes for output in job.outputs),
        "timings_ms": job.timings_ms,
        "result_uri": job.result_uri,
    }
    if job.error is None:
        log.info("job finished", extra=facts)
    else:
        log.warning(
            "job failed",
            extra={
                **facts,
                "code": job.error.code,
                "reason": _without_queries(job.error.message),
                "retryable": job.error.retryable,
            },
        )


def _without_queries(text: str) -> str:
    """A text without the queries of the web addresses in it: nodes that fetch something name their links whole."""
    return _QUERY.sub(r"\1?…", text)


def emit_metrics(jobs: Iterable[Job], *, is_cold_start: bool, engine_starts: int) -> None:
    """Write one invocation's metrics to standard output, in CloudWatch's embedded format."""
    metrics = Metrics(namespace=NAMESPACE, service="comfy_serverless")
    metrics.add_metric("ColdStart", MetricUnit.Count, int(is_cold_start))
    metrics.add_metric("EngineStarts", MetricUnit.Count, engine_starts)
    for job in jobs:
        metrics.add_metric("Jobs", MetricUnit.Count, 1)
        metrics.add_metric("Outputs", MetricUnit.Count, len(job.outputs))
        metrics.add_metric("OutputBytes", MetricUnit.Bytes, sum(output.size_bytes for output in job.outputs))
        if "executing" in job.timings_ms:
            metrics.add_metric("ExecutionMs", MetricUnit.Milliseconds, job.timings_ms["executing"])
            metrics.add_metric("OverheadMs", MetricUnit.Milliseconds, job.timings_ms["overhead"])
        if job.error is not None:
            with single_metric("Failures", MetricUnit.Count, 1, namespace=NAMESPACE) as failure:
                failure.add_dimension("code", job.error.code)
    metrics.flush_metrics()
