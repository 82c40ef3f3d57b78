"""What an operator sees: JSON log lines with the job's id on each, and CloudWatch metrics.

Never logged: events, requests, links. They hold other people's data, and links are keys.
"""

from __future__ import annotations

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric

NAMESPACE = "ComfyServerless"

#: The service's name is also that of our package's standard logger: what `comfy_serverless.connector` logs comes
#: out of the same handler, with the same keys.
log = Logger(service="comfy_serverless")


def emit_failure(code: str) -> None:
    """Count a job that failed without a worker: as one of the workers' failures, so that the same alarms hear of it."""
    with single_metric(
        "Failures", MetricUnit.Count, 1, namespace=NAMESPACE, default_dimensions={"service": "generate"}
    ) as failure:
        failure.add_dimension("code", code)
