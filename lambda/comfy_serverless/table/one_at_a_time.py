"""One at a time: who changes which release is live holds the only place in the table. SSM has no conditional write."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from comfy_serverless.aws.dynamodb import NOT_THERE, ConditionFailed, Table, delete_write, not_there, now_s
from comfy_serverless.errors import UpstreamError

#: How long a place is held at most, in seconds: that of a holder who has died is another's then.
HELD_S = 60
#: How long somebody waits for the place, and how often they ask, in seconds.
WAIT_S, ASK_EVERY_S = 75.0, 0.5
PK, SK = "live", "turn"  # as releases before have it


@contextmanager
def one_at_a_time(table: Table) -> Iterator[None]:
    """Hold the place for the block.

    Raises:
        UpstreamError: others have held it for the whole time.
    """
    holder = str(uuid.uuid4())
    until = time.monotonic() + WAIT_S
    while not _take(table, holder):
        if time.monotonic() > until:
            raise UpstreamError("others are changing which release is live, one after the other: try again.")
        time.sleep(ASK_EVERY_S)
    try:
        yield
    finally:
        _give_back(table, holder)


def _take(table: Table, holder: str) -> bool:
    item = {"pk": PK, "sk": SK, "holder": holder, "expires": now_s() + HELD_S}
    try:
        # It is ours already if only the first answer was lost.
        table.put(item, condition=f"{NOT_THERE} OR #holder = :me", values={**not_there(), "me": holder})
    except ConditionFailed:
        return False
    return True


def _give_back(table: Table, holder: str) -> None:
    try:
        table.transact([delete_write(PK, SK, condition="#holder = :me", values={"me": holder})])
    except ConditionFailed:
        return  # it took too long, and the place is another's by now
