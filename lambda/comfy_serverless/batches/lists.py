"""What leads to batches: by their ids, by the names that owners gave them, and in lists.

batch#{id}         the batch itself
batch#{address}    which batch was dropped there last
batch#             a row for each batch, for the operator
batches#{owner}    rows of an owner's batches: by moment, for lists, and the newest of each name
"""

from __future__ import annotations

from collections.abc import Sequence

from comfy_serverless.aws.dynamodb import NOT_THERE, ConditionFailed, Item, Table, not_there, now_s, put_write
from comfy_serverless.batches.batch import Batch
from comfy_serverless.batches.ranges import Range, batch_key, batch_pk
from comfy_serverless.errors import IdempotencyKeyReuse
from comfy_serverless.jobs.document import RETENTION
from comfy_serverless.jobs.drop_names import plain_manifest
from comfy_serverless.table.job_item import idempotency_item

#: The partition of the list of all batches.
ALL = "batch#"
#: How the sort keys of an owner's rows begin: of those by moment, and of those by name.
_AT, _NAME = "at#", "name#"


class BatchLists:
    """The part of `BatchStore` that makes batches of the API, and finds those of an owner."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def get(self, batch_id: str) -> Batch | None:
        """A batch. One read."""
        item = self._table.get(*batch_key(batch_id))
        return Batch.from_item(item) if item else None

    def announce(self, batch: Batch, ranges: Sequence[tuple[int, int]], *, idempotency_key: str | None) -> bool:
        """Write a batch of the API with all that leads to it, or nothing. Returns False if the batch exists already.

        Args:
            ranges: at most a few; of one whose lines are taken later, none.

        Raises IdempotencyKeyReuse: the key was used within the last 24 hours.
        """
        expires = expires_at()
        parts = [Range(start=start, end=end, offset=start, begun=0, touched=now_s()) for start, end in ranges]
        writes = [put_write(batch.to_item(expires), condition=NOT_THERE, values=not_there())]
        if idempotency_key is not None:
            key = idempotency_item(batch.owner, idempotency_key)
            writes.append(put_write(key, condition=NOT_THERE, values=not_there()))
        writes += map(put_write, [*(part.to_item(batch.id, expires) for part in parts), *rows_of(batch, expires)])
        if not batch.is_owned:
            writes.append(put_write(newest_dropped(batch, expires)))
        try:
            self._table.transact(writes)
        except ConditionFailed as failure:
            if failure.index == 0:
                return False
            raise IdempotencyKeyReuse(
                "this Idempotency-Key has been used within the last 24 hours, for something else: send another key."
            ) from None
        return True

    def named(self, owner: str, name: str) -> Batch | None:
        """The newest batch of an owner that is called so, or the one of his with this id."""
        row = self._table.get(_of(owner), f"{_NAME}{name}")
        found = self.get(str(row["batch"])) if row else None
        if found is None:
            found = self.get(name)
        return found if found is not None and found.owner == owner else None

    def page(self, owner: str, *, limit: int, before: str | None) -> tuple[list[Batch], str | None]:
        """Batches of an owner, the newest first, and where the next page begins; None at the end.

        Dropped ones of releases that wrote no such rows are not in it. One query, and one read of all items together.
        """
        values = {"pk": _of(owner), "first": _AT, "last": f"{_AT}{before}" if before else f"{_AT}~"}
        page = self._table.query(
            # The end of a page comes once more, and is left out: BETWEEN has both ends.
            "#pk = :pk AND #sk BETWEEN :first AND :last",
            values,
            newest_first=True,
            limit=limit + (2 if before else 1),
        )
        rows = [item for item in page.items if item["sk"] != values["last"]]
        shown = rows[:limit]
        items = {item["id"]: item for item in self._table.get_all([batch_key(row["batch"]) for row in shown])}
        found = [Batch.from_item(items[row["batch"]]) for row in shown if row["batch"] in items]
        return found, str(shown[-1]["sk"]).removeprefix(_AT) if len(rows) > limit else None


def expires_at() -> int:
    """When what is written now of a batch is forgotten, in seconds since 1970."""
    return now_s() + int(RETENTION.total_seconds())


def rows_of(batch: Batch, expires: int) -> list[Item]:
    """What lists and look-ups by name find a batch with."""
    row = {"batch": batch.id, "expires": expires}
    moment = f"{batch.created_at}#{batch.id}"
    return [
        {"pk": ALL, "sk": moment, **row},
        {"pk": _of(batch.owner), "sk": f"{_AT}{moment}", **row},
        {"pk": _of(batch.owner), "sk": f"{_NAME}{batch.called}", **row},
    ]


def newest_dropped(batch: Batch, expires: int) -> Item:
    """What names the batch that was last dropped at an address."""
    return {"pk": batch_pk(plain_manifest(batch.source)), "sk": "newest", "batch": batch.id, "expires": expires}


def _of(owner: str) -> str:
    return f"batches#{owner}"
