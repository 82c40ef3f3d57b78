"""The Lambda function that looks after neglected jobs and expired assets, every minute; then after named workflows."""

from __future__ import annotations

import time
from typing import Any, Final

from comfy_serverless.batches.orders import Order
from comfy_serverless.handlers import wiring
from comfy_serverless.observability import emit_broken_workflows
from comfy_serverless.table.care import MAX_JOBS

wiring.at_start(wiring.caretaker)

#: How long named workflows are checked in a round, in seconds: the last may take a while more.
RECHECK_S: Final = 20.0


def _wake_stale_batches() -> int:
    """Send orders to advance the batches that have waited for a minute. Returns how many."""
    if wiring.settings().manifest_queue_url is None:
        return 0
    batches = wiring.batches().neglected(limit=MAX_JOBS)
    if batches:
        wiring.manifest_queue().send_many([(batch_id, Order(batch_id=batch_id).to_text()) for batch_id in batches])
    return len(batches)


def _recheck_workflows() -> None:
    """Go on checking everybody's named workflows, if that is due, and tell how many would fail, if that is known."""
    broken = wiring.recheck().go_on(until=time.monotonic() + RECHECK_S)
    if broken is not None:
        emit_broken_workflows(broken)


def handler(_event: object, _context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """Do one round; returns how many jobs and batches needed care, and how many assets had expired.

    Fails at the end if one of them could not be looked after: then there is an alarm.
    """
    care, assets = wiring.caretaker()
    try:
        count = care.round()
    finally:
        try:
            woken = _wake_stale_batches()
        finally:
            try:
                removed = assets.remove_expired(limit=MAX_JOBS)
            finally:
                _recheck_workflows()
    return {"jobs": count, "batches": woken, "assets": removed}
