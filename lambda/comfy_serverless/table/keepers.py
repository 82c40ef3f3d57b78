"""Who looks after an item, and until when: what items of jobs, batches and assets have in common.

Items that somebody has to look after have two attributes more, and so are in an index. In DynamoDB, attributes and
index are called after leases.
"""

from __future__ import annotations

from collections.abc import Iterator

from comfy_serverless.aws.dynamodb import Item, Table, now_s

#: What the attributes are called in the table: who looks after an item, and when that is due (seconds since 1970).
KEEPER, KEEPER_DUE = "lease", "lease_until"
#: Keepers of jobs: the worker or the caretaker; or the job's queue, as long as that has messages. A job that waits for
#: its batch to be resumed has no keeper.
OPEN, QUEUED, QUEUED_BATCH = "open", "queued", "queued_batch"
#: Keepers of batches, and of assets that have an end of their own.
BATCH, ASSET = "batch", "asset"


def neglected(table: Table, keeper: str, *, limit: int) -> Iterator[Item]:
    """Items that this keeper should have looked after by now, the longest neglected first."""
    page = table.query(
        f"#{KEEPER} = :keeper AND #{KEEPER_DUE} < :now", {"keeper": keeper, "now": now_s()}, index="leases", limit=limit
    )
    for key in page.items:
        item = table.get(key["pk"], key["sk"])  # the index has its keys alone, and is behind
        if item is not None and item.get(KEEPER_DUE, now_s()) < now_s():
            yield item
