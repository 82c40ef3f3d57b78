"""The Lambda function that hears from SageMaker how invocations ended: notifications of SNS, one or more times each.

The worker tells the table itself how a job ended, and that stands. What is heard here is for jobs that no worker has
told about: it never took them, or died with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.handlers import wiring
from comfy_serverless.observability import Failures

wiring.at_start(wiring.settlement)


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """Settle what an event of SNS tells. Fails, so that SNS tells again, if something could not be settled."""
    settled = 0
    with Failures() as failures:
        for record in event["Records"]:
            with failures.logged("a notification could not be settled"):
                settled += wiring.settlement().hear(record["Sns"]["Message"])
    return {"settled": settled}
