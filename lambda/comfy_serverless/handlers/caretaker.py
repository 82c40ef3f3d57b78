"""The Lambda function that looks after neglected jobs and expired assets, every minute."""

from __future__ import annotations

import json
from typing import Any

from comfy_serverless.handlers import wiring
from comfy_serverless.table.care import MAX_JOBS

wiring.at_start(wiring.caretaker)


def have_batches_looked_at() -> int:
    """Tell `ingest` of batches that nobody has looked at for a minute; returns how many."""
    if wiring.settings().manifest_queue_url is None:
        return 0
    batches = wiring.batches().neglected(limit=MAX_JOBS)
    if batches:
        wiring.manifest_queue().send_many([json.dumps({"batch": batch_id}) for batch_id in batches])
    return len(batches)


def handler(_event: object, _context: Any) -> dict[str, int]:  # noqa: ANN401  (Lambda's context)
    """One round; returns how many jobs needed somebody, and how many assets had expired.

    Fails if one of them could not be looked after, and after all others were: then an alarm tells.
    """
    care, assets = wiring.caretaker()
    try:
        count = care.round()
    finally:
        try:
            looked_at = have_batches_looked_at()
        finally:
            removed = assets.remove_expired(limit=MAX_JOBS)
    return {"jobs": count, "batches": looked_at, "assets": removed}
