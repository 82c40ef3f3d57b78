"""The Lambda function that looks after neglected jobs and expired assets, every minute."""

from __future__ import annotations

from typing import Any

from comfy_serverless.batches.orders import Order
from comfy_serverless.handlers import wiring
from comfy_serverless.table.care import MAX_JOBS

wiring.at_start(wiring.caretaker)


def _wake_stale_batches() -> int:
    """Send orders to advance the batches that have waited for a minute. Returns how many."""
    if wiring.settings().manifest_queue_url is None:
        return 0
    batches = wiring.batches().neglected(limit=MAX_JOBS)
    if batches:
        wiring.manifest_queue().send_many([(batch_id, Order(batch_id=batch_id).to_text()) for batch_id in batches])
    return len(batches)


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
            removed = assets.remove_expired(limit=MAX_JOBS)
    return {"jobs": count, "batches": woken, "assets": removed}
