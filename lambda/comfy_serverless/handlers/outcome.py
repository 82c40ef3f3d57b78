"""The Lambda function that hears from SageMaker how invocations ended: notifications of SNS, one or more times each.

The worker itself records how a job ended, and that stands. These notifications serve jobs whose end no worker has
recorded: it never took them, or died with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.handlers import wiring
from comfy_serverless.observability import Failures

wiring.at_start(wiring.settlement)


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """Settle the jobs that an event of SNS names. Fails if one could not be settled, so that SNS sends it again."""
    settled = 0
    with Failures() as failures:
        for record in event["Records"]:
            with failures.logged("a notification could not be settled"):
                settled += wiring.settlement().hear(record["Sns"]["Message"])
    return {"settled": settled}
