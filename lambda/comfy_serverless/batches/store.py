"""Batches in the table: what was dropped, how far its ranges have been read, which lines were bad, and how it ended.

read ──► running ──► completed
          │  ▲
       paused, canceled
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from comfy_serverless.aws.dynamodb import ConditionFailed, Item, Table, Update, now_s
from comfy_serverless.jobs.document import RETENTION
from comfy_serverless.table.columns import read_columns, write_columns
from comfy_serverless.table.keepers import BATCH, KEEPER, KEEPER_DUE, neglected

#: Who looks after a batch: the caretaker has it looked at as often as this, in seconds.
LOOK_EVERY_S = 60
#: A range that nobody has moved on for so long is read by nobody, in seconds: a chunk of it takes one or two.
UNTOUCHED_S = 120
#: What columns of a batch are called in the table, where it is not the name of the field.
_STORED = {"owner": "owner_name"}


class BatchStatus(StrEnum):
    """What is wanted of a batch, and that it is over."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELED = "canceled"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A part of a manifest.

    Attributes:
        start, end: it has the lines that begin here, in bytes.
        offset: how far it has been read: the beginning of the next line.
        lines, bad: how many it had up to there, blank ones not counted.
        touched: when it was last read on, in seconds since 1970.
        is_told: whether its part of the report is written.
    """

    start: int
    end: int
    offset: int
    lines: int = 0
    bad: int = 0
    touched: int = 0
    is_told: bool = False

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read a range's item."""
        return cls(**read_columns(cls, item))

    def to_item(self, batch_id: str, expires: int) -> Item:
        """The item of a range that nobody has read."""
        return {"pk": _pk(batch_id), "sk": _range_sk(self.start), **write_columns(self), "expires": expires}

    @property
    def is_read(self) -> bool:
        """Whether there is nothing left in it."""
        return self.offset >= self.end

    @property
    def is_abandoned(self) -> bool:
        """Whether it is to be read on, and nobody seems to do that."""
        return not self.is_read and self.touched < now_s() - UNTOUCHED_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A manifest that was dropped.

    Attributes:
        source: where it was dropped.
        manifest: our own copy, which nobody changes.
        settled: up to here every job has ended, in bytes.
        execution: of the state machine that reads it, the newest; None if none does.
    """

    id: str
    owner: str
    source: str
    manifest: str
    size_bytes: int
    status: BatchStatus
    created_at: str
    settled: int = 0
    report: str | None = None
    execution: str | None = None

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read a batch's item."""
        columns = read_columns(cls, item, stored=_STORED)
        return cls(**{**columns, "status": BatchStatus(columns["status"])})

    def to_item(self, expires: int) -> Item:
        """The item of a batch that was just dropped. `looking_until` and `report` come later."""
        return {
            "pk": _pk(self.id),
            "sk": "batch",
            **write_columns(self, stored=_STORED),
            "status": self.status.value,
            "settled": self.settled,
            KEEPER: BATCH,
            KEEPER_DUE: now_s() + LOOK_EVERY_S,
            "expires": expires,
        }

    @property
    def final_status(self) -> BatchStatus:
        """What it is once its report is there."""
        return BatchStatus.CANCELED if self.status is BatchStatus.CANCELED else BatchStatus.COMPLETED


class BatchStore:
    """The batches of one table. Thread-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def create(self, batch: Batch, ranges: Sequence[tuple[int, int]]) -> bool:
        """Write a batch and its ranges down. Returns False if it is there already."""
        if self.get(batch.id) is not None:
            return False
        expires = _expires()
        self._table.put_all(
            [
                Range(start=start, end=end, offset=start, touched=now_s()).to_item(batch.id, expires)
                for start, end in ranges
            ]
        )
        # For people, who know it by its name. Before the batch is there, nobody finds it by that.
        self._table.put({"pk": _pk(batch.source), "sk": "newest", "batch": batch.id, "expires": expires})
        try:
            self._table.put(batch.to_item(expires), condition="attribute_not_exists(pk)")
        except ConditionFailed:
            return False
        return True

    def newest(self, source: str) -> Batch | None:
        """The batch that was last dropped there."""
        item = self._table.get(_pk(source), "newest")
        return self.get(str(item["batch"])) if item else None

    def get(self, batch_id: str) -> Batch | None:
        """A batch. One read."""
        item = self._table.get(_pk(batch_id), "batch")
        return Batch.from_item(item) if item else None

    def range_at(self, batch_id: str, start: int) -> Range | None:
        """The range that begins there. One read."""
        item = self._table.get(_pk(batch_id), _range_sk(start))
        return Range.from_item(item) if item else None

    def ranges(self, batch_id: str) -> list[Range]:
        """Its ranges, in order."""
        condition = "#pk = :pk AND #sk BETWEEN :first AND :last"
        values = {"pk": _pk(batch_id), "first": "range#", "last": "range~"}
        return [Range.from_item(item) for item in self._table.query_all(condition, values)]

    def bad_lines(self, batch_id: str) -> Iterator[tuple[int, str]]:
        """Where bad lines begin, and what is wrong with them."""
        condition = "#pk = :pk AND #sk BETWEEN :first AND :last"
        values = {"pk": _pk(batch_id), "first": "bad#", "last": "bad~"}
        for item in self._table.query_all(condition, values):
            yield int(item["sk"].partition("#")[2]), item["message"]

    def mark_read(self, batch_id: str, before: Range, after: Range, bad: Sequence[tuple[int, str]]) -> bool:
        """Write down how far a range has been read. Returns False if somebody else has been here."""
        expires = _expires()
        self._table.put_all(
            [
                {"pk": _pk(batch_id), "sk": f"bad#{offset:015}", "message": message, "expires": expires}
                for offset, message in bad
            ]
        )
        change = Update(
            pk=_pk(batch_id),
            sk=_range_sk(before.start),
            assign={"offset": after.offset, "lines": after.lines, "bad": after.bad, "touched": now_s()},
            condition="#offset = :seen",
            values={"seen": before.offset},
        )
        return self._table.try_update(change)

    def begin_look(self, batch_id: str) -> bool:
        """Be the only one who looks after a batch, for a while. Returns False if somebody else does."""
        change = self._change(batch_id, {"looking_until": now_s() + LOOK_EVERY_S})
        free = f"{change.condition} AND (attribute_not_exists(#looking_until) OR #looking_until < :now)"
        return self._table.try_update(replace(change, condition=free, values={"now": now_s()}))

    def extend(self, batch: Batch, settled: int, *, for_s: int | None = None) -> None:
        """Write down up to where all jobs have ended; whoever looks needs so much longer."""
        until = now_s() + (LOOK_EVERY_S if for_s is None else for_s)
        self._table.try_update(self._change(batch.id, {"settled": settled, KEEPER_DUE: until, "looking_until": until}))

    def end_look(self, batch_id: str) -> None:
        """Have the batch looked at again later, by whoever it may be."""
        self._table.try_update(self._change(batch_id, {KEEPER_DUE: now_s() + LOOK_EVERY_S, "looking_until": 0}))

    def mark_reported(self, batch_id: str, part: Range) -> None:
        """A range's part of the report is written."""
        change = Update(
            pk=_pk(batch_id), sk=_range_sk(part.start), assign={"is_told": True}, condition="attribute_exists(pk)"
        )
        self._table.try_update(change)

    def read_by(self, batch_id: str, execution: str) -> None:
        """Remember which execution of the state machine reads it."""
        self._table.try_update(self._change(batch_id, {"execution": execution}))

    def complete(self, batch: Batch, report: str) -> bool:
        """The report is there. Returns False if it was before."""
        change = self._change(
            batch.id,
            {
                "status": batch.final_status.value,
                "report": report,
                "settled": batch.size_bytes,
            },
        )
        remove = [KEEPER, KEEPER_DUE]
        return self._table.try_update(
            Update(
                pk=change.pk,
                sk=change.sk,
                assign=change.assign,
                remove=remove,
                condition="attribute_exists(pk) AND attribute_not_exists(#report)",
            )
        )

    def set_status(self, batch_id: str, status: BatchStatus, *, was: Sequence[BatchStatus]) -> bool:
        """Pause, resume or cancel. Returns False where it is in none of those states."""
        names = {f"was{number}": one.value for number, one in enumerate(was)}
        change = Update(
            pk=_pk(batch_id),
            sk="batch",
            assign={"status": status.value},
            condition=f"#status IN ({', '.join(f':{name}' for name in names)}) AND attribute_not_exists(#report)",
            values=names,
        )
        return self._table.try_update(change)

    def neglected(self, *, limit: int) -> list[str]:
        """Batches that have not been looked at for a while; whoever asks looks, and nobody else for as long."""
        found = []
        for item in neglected(self._table, BATCH, limit=limit):
            change = Update(
                pk=item["pk"],
                sk=item["sk"],
                assign={KEEPER_DUE: now_s() + LOOK_EVERY_S},
                condition=f"#{KEEPER_DUE} = :seen",
                values={"seen": item[KEEPER_DUE]},
            )
            if self._table.try_update(change):
                found.append(str(item["id"]))
        return found

    def _change(self, batch_id: str, assign: dict[str, Any]) -> Update:
        return Update(pk=_pk(batch_id), sk="batch", assign=assign, condition="attribute_not_exists(#report)")


def _expires() -> int:
    return now_s() + int(RETENTION.total_seconds())


def _pk(batch_id: str) -> str:
    return f"batch#{batch_id}"


def _range_sk(start: int) -> str:
    return f"range#{start:015}"
