"""The columns of items: each is a field of a dataclass. Two say which keeper looks after an item, and until when.

An item may have been written by an older or a newer release. A missing attribute has its field's default; an unknown
one is ignored, and stays, because items are changed attribute by attribute. Items that need a keeper have two
attributes more, and so are in an index; in DynamoDB, attributes and index are named for leases.

    keeper  open ──► lease  open#0 … open#9, by the item's name        batch ──► batch

One key of an index takes about 1,000 writes a second, and a running job moves in it about once a second: two writes.
So the keepers of jobs have ten keys each. Releases before that wrote the keeper alone, and workers of such a release
still do: whoever asks for neglected items asks for those, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from zlib import crc32

from comfy_serverless.aws.dynamodb import EXPIRES, Item, Table, Update, now_s

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: The attributes' names in the table: who looks after an item, and when that is due (seconds since 1970).
KEEPER, KEEPER_DUE = "lease", "lease_until"
#: The keepers of jobs: the worker or the caretaker; or the job's queue, as long as that has messages. A job that waits
#: for its batch to be resumed has no keeper.
OPEN, QUEUED, QUEUED_BATCH = "open", "queued", "queued_batch"
#: The keepers of batches, and of assets that have their own end.
BATCH, ASSET = "batch", "asset"
#: The keepers whose items are written so often that one key of the index is too little, and how many keys they have.
_SHARDED, SHARDS = frozenset({OPEN, QUEUED, QUEUED_BATCH}), 10
_SAME: Mapping[str, str] = {}
#: How long an idempotency key is remembered, by the contract, in seconds.
IDEMPOTENCY_S = 24 * 3600
#: How long an item rests that could not be looked after, in seconds.
PUT_OFF_S = 5 * 60


def read_columns(cls: type[DataclassInstance], item: Item, *, stored: Mapping[str, str] = _SAME) -> dict[str, Any]:
    """The fields of a class that an item has; `stored` has the names of attributes that are not their fields'."""
    names = ((column.name, stored.get(column.name, column.name)) for column in fields(cls))
    return {name: item[attribute] for name, attribute in names if attribute in item}


def write_columns(
    value: DataclassInstance, *, of: type[DataclassInstance] | None = None, stored: Mapping[str, str] = _SAME
) -> Item:
    """The fields that are not at their default, as attributes; `of` is the class to write of a value of a subclass."""
    found = ((column, getattr(value, column.name)) for column in fields(of or value))
    return {stored.get(column.name, column.name): one for column, one in found if one != column.default}


def lease_of(keeper: str, name: str) -> str:
    """The key of the index under which a keeper has the item of this name: always the same."""
    return f"{keeper}#{crc32(name.encode()) % SHARDS}" if keeper in _SHARDED else keeper


def keeper_of(lease: str) -> str:
    """The keeper that has this key of the index."""
    return lease.partition("#")[0]


def leases_of(keeper: str) -> list[str]:
    """All keys of the index that a keeper has; the first is that of items which an older release has written."""
    return [keeper, *(f"{keeper}#{shard}" for shard in range(SHARDS))] if keeper in _SHARDED else [keeper]


def neglected(table: Table, keeper: str, *, limit: int) -> Iterator[Item]:
    """Items that this keeper should have looked after by now, the longest neglected first."""
    condition, now = f"#{KEEPER} = :lease AND #{KEEPER_DUE} < :now", now_s()
    keys = [
        key
        for lease in leases_of(keeper)
        for key in table.query(condition, {"lease": lease, "now": now}, index="leases", limit=limit).items
    ]
    for key in sorted(keys, key=itemgetter(KEEPER_DUE))[:limit]:
        item = table.get(key["pk"], key["sk"])  # the index has only the keys, and is behind
        if item is None:
            _release(table, key)
        elif item.get(KEEPER_DUE, now_s()) < now_s():
            yield item


def _release(table: Table, key: Item) -> None:
    """Take an item that has expired out of the index: until it is deleted, it would be the longest neglected of all."""
    change = Update(
        pk=key["pk"],
        sk=key["sk"],
        assign={},
        remove=[KEEPER, KEEPER_DUE],
        condition=f"#{EXPIRES} <= :now",
        values={"now": now_s()},
    )
    table.try_update(change)


def put_off(table: Table, item: Item) -> None:
    """Let a neglected item rest, so that those which fail each time do not fill every round."""
    table.try_update(
        Update(
            pk=item["pk"],
            sk=item["sk"],
            assign={KEEPER_DUE: now_s() + PUT_OFF_S},
            condition=f"#{KEEPER_DUE} = :seen",
            values={"seen": item[KEEPER_DUE]},
        )
    )
