"""Reports to the operator: JSON log lines with the job's id on each, and CloudWatch metrics.

Events, requests and links are never logged: they hold other people's data, and links are keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric

NAMESPACE = "ComfyServerless"

#: The service's name is also that of our package's standard logger: the lines of `comfy_serverless.connector` come out
#: of the same handler, with the same keys.
log = Logger(service="comfy_serverless")


def emit_failure(code: str) -> None:
    """Count a job that failed without a worker as one of the workers' failures, so that the same alarms cover it."""
    with single_metric(
        "Failures", MetricUnit.Count, 1, namespace=NAMESPACE, default_dimensions={"service": "generate"}
    ) as failure:
        failure.add_dimension("code", code)


def emit_wait(seconds: float, *, is_batch: bool) -> None:
    """Report how long a job has waited for its first worker: one that a caller waits for, or one of a batch."""
    with single_metric(
        "WaitedSeconds",
        MetricUnit.Seconds,
        seconds,
        namespace=NAMESPACE,
        default_dimensions={"service": "comfy_serverless"},
    ) as wait:
        wait.add_dimension("class", "batches" if is_batch else "callers")


class Failures:
    """Failures of some among many: they are logged, the others have their turn, and the last one is raised at the end.

    with Failures() as failures:
        for job in jobs:
            with failures.logged("a job could not be looked after", job_id=job.id):
                look_after(job)
    """

    def __init__(self) -> None:
        self._last: Exception | None = None

    @contextmanager
    def logged(self, message: str, **keys: Any) -> Iterator[None]:  # noqa: ANN401  (as Powertools takes them)
        """Keep a failure in this block until the end."""
        try:
            yield
        except Exception as error:
            log.exception(message, **keys)
            self._last = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Raise the last failure, if there was one and nothing else is on its way."""
        if self._last is not None and kind is None:
            raise self._last
