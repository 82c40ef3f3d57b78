"""The Lambda function between a queue of batch jobs and a SageMaker endpoint: it lets through what that can run.

An endpoint has one queue, first come, first served: a batch in it would keep all other jobs waiting. So the batch waits
before it, and just enough of its jobs wait in the endpoint that no instance runs dry. Their number comes from the jobs
table, at once; the endpoint's own figure is a minute or two old, in which it may have run dry. Jobs of a batch that is
paused or canceled do not get there at all: no instance starts for them.

It starts each minute, one at a time (reserved concurrency of 1), and takes messages itself: a queue that invokes a
function would count each message that has to wait as delivered, and put it aside in the end.
"""

from __future__ import annotations

import time
from typing import Any

from comfy_serverless.handlers import wiring

#: The pause between two checks while there is no room.
PAUSE_S = 2
#: The part of an invocation that is kept back.
RESERVE_S = 5.0

wiring.at_start(wiring.gate)


def handler(_event: object, context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """Let jobs through until none waits or the time is over; returns how many messages passed."""
    count = 0
    while context.get_remaining_time_in_millis() / 1000 > RESERVE_S + PAUSE_S:
        if free := wiring.gate().free():
            gone = wiring.gate().let_through(free)
            count += gone
            if gone == 0:
                break
        else:
            time.sleep(PAUSE_S)
    return {"messages": count}
