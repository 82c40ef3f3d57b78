"""The Lambda function between the queues and a SageMaker endpoint: it lets through what that can run (`table.gate`).

Both queues invoke it, with one message at a time and few invocations at once. A job for which there is no room waits
in its invocation, so that it is sent the moment there is; all others wait in the queues, where SQS decides which owner
is next. While no job waits, the clock alone starts it, each minute and without a message, so that the next job finds it
warm.

A job that has waited for as long as an invocation lasts is sent to its queue again, as a new message: given back, it
would count as one that could not be delivered, and end among the dead letters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from comfy_serverless.aws.sqs import take_each
from comfy_serverless.handlers import again, wiring
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.observability import log

#: The pause between two looks while there is no room. A container has the next job in hand meanwhile.
PAUSE_S = 1.0
#: The part of an invocation that is kept back.
RESERVE_S = 5.0

wiring.at_start(wiring.gate)


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Send jobs on, each as soon as there is room for it."""
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_S

    def take(message: Mapping[str, Any]) -> bool:
        job = JobMessage.parse(str(message["body"]))
        if job is None:
            raise ValueError("the message is no job: it is left for the dead letters")
        _send_on(job, until)
        return True

    answer = take_each(event.get("Records", ()), take, failing="a job was not sent on, and its message comes again")
    return again.put_off(event, answer, pauses_s=again.JOBS_AGAIN_AFTER_S)


def _send_on(job: JobMessage, until: float) -> None:
    while not wiring.gate().let_through(job):
        if time.monotonic() + PAUSE_S > until:
            wiring.workers().send(job, is_batch=job.batch_id is not None)
            log.info("the endpoint has no room yet: the job goes on waiting in its queue", job_id=job.job_id)
            return
        time.sleep(PAUSE_S)
