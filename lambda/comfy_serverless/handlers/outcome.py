"""The Lambda function that hears from SageMaker how invocations ended: notifications of SNS, one or more times each.

The worker tells the table itself how a job ended, and that stands. What is heard here is for jobs that no worker has
told about: it never took them, or died with them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from comfy_serverless.handlers.caretaker import care
from comfy_serverless.observability import log
from comfy_serverless.table.settlement import Notification, Settlement, Unreadable


@functools.cache
def settlement() -> Settlement:
    """The table and the queues of this process."""
    return Settlement(care())


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """Settle what an event of SNS tells. Fails, so that SNS tells again, if something could not be settled."""
    settled, failure = 0, None
    for record in event["Records"]:
        try:
            settlement().settle(Notification.parse(record["Sns"]["Message"]))
            settled += 1
        except Unreadable:
            log.exception("a notification cannot be read")  # nor could it the next time
        except Exception as error:  # noqa: BLE001  (the others must not pay for it)
            log.exception("a notification could not be settled")
            failure = error
    if failure is not None:
        raise failure
    return {"settled": settled}
