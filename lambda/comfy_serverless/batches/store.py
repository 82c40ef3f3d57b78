"""Batches in the table: what was dropped, how far its ranges have been read, which lines were bad, and how it ended.

read ──► running ──► completed
          │  ▲
       paused, canceled
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from comfy_serverless.aws.dynamodb import ConditionFailed, Item, Table, Update, now_s, now_text
from comfy_serverless.jobs.document import RETENTION

#: Who looks after a batch: the caretaker has it looked at as often as this, in seconds.
LOOK_EVERY_S = 60
#: A range that nobody has moved on for so long is read by nobody, in seconds: a chunk of it takes one or two.
UNTOUCHED_S = 120
LEASE = "batch"


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

    @property
    def final_status(self) -> BatchStatus:
        """What it is once its report is there."""
        return BatchStatus.CANCELED if self.status is BatchStatus.CANCELED else BatchStatus.COMPLETED


class BatchStore:
    """The batches of one table. Thread-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def create(self, batch: Batch, ranges: Sequence[tuple[int, int]]) -> bool:
        """Write a batch and its ranges down. Answers False if it is there already."""
        if self.get(batch.id) is not None:
            return False
        self._table.put_all([_range_item(batch.id, start, end) for start, end in ranges])
        expires = now_s() + int(RETENTION.total_seconds())
        # For people, who know it by its name. Before the batch is there, nobody finds it by that.
        self._table.put({"pk": _pk(batch.source), "sk": "newest", "batch": batch.id, "expires": expires})
        head = {
            "pk": _pk(batch.id),
            "sk": "batch",
            "id": batch.id,
            "owner_name": batch.owner,
            "source": batch.source,
            "manifest": batch.manifest,
            "size_bytes": batch.size_bytes,
            "status": batch.status.value,
            "created_at": batch.created_at,
            "settled": 0,
            "lease": LEASE,
            "lease_until": now_s() + LOOK_EVERY_S,
            "expires": expires,
        }
        try:
            self._table.put(head, condition="attribute_not_exists(pk)")
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
        return _batch_of(item) if item else None

    def range_at(self, batch_id: str, start: int) -> Range | None:
        """The range that begins there. One read."""
        item = self._table.get(_pk(batch_id), _range_sk(start))
        return _range_of(item) if item else None

    def ranges(self, batch_id: str) -> list[Range]:
        """Its ranges, in order."""
        condition = "#pk = :pk AND #sk BETWEEN :first AND :last"
        values = {"pk": _pk(batch_id), "first": "range#", "last": "range~"}
        return [_range_of(item) for item in self._table.query_all(condition, values)]

    def bad_lines(self, batch_id: str) -> Iterator[tuple[int, str]]:
        """Where bad lines begin, and what is wrong with them."""
        condition = "#pk = :pk AND #sk BETWEEN :first AND :last"
        values = {"pk": _pk(batch_id), "first": "bad#", "last": "bad~"}
        for item in self._table.query_all(condition, values):
            yield int(item["sk"].partition("#")[2]), item["message"]

    def mark_read(self, batch_id: str, before: Range, after: Range, bad: Sequence[tuple[int, str]]) -> bool:
        """Write down how far a range has been read. Answers False if somebody else has been here."""
        expires = now_s() + int(RETENTION.total_seconds())
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
        return self._unless_changed(change)

    def begin_look(self, batch_id: str) -> bool:
        """Be the only one who looks after a batch, for a while. Answers False if somebody else does."""
        change = self._change(batch_id, {"looking_until": now_s() + LOOK_EVERY_S})
        free = f"{change.condition} AND (attribute_not_exists(#looking_until) OR #looking_until < :now)"
        return self._unless_changed(replace(change, condition=free, values={"now": now_s()}))

    def extend(self, batch: Batch, settled: int, *, for_s: int | None = None) -> None:
        """Write down up to where all jobs have ended; whoever looks needs so much longer."""
        until = now_s() + (LOOK_EVERY_S if for_s is None else for_s)
        self._unless_changed(self._change(batch.id, {"settled": settled, "lease_until": until, "looking_until": until}))

    def end_look(self, batch_id: str) -> None:
        """Have the batch looked at again later, by whoever it may be."""
        self._unless_changed(self._change(batch_id, {"lease_until": now_s() + LOOK_EVERY_S, "looking_until": 0}))

    def mark_reported(self, batch_id: str, part: Range) -> None:
        """A range's part of the report is written."""
        change = Update(
            pk=_pk(batch_id), sk=_range_sk(part.start), assign={"is_told": True}, condition="attribute_exists(pk)"
        )
        self._unless_changed(change)

    def read_by(self, batch_id: str, execution: str) -> None:
        """Remember which execution of the state machine reads it."""
        self._unless_changed(self._change(batch_id, {"execution": execution}))

    def complete(self, batch: Batch, report: str) -> bool:
        """The report is there. Answers False if it was before."""
        change = self._change(
            batch.id,
            {
                "status": batch.final_status.value,
                "report": report,
                "settled": batch.size_bytes,
                "updated_at": now_text(),
            },
        )
        remove = ["lease", "lease_until"]
        return self._unless_changed(
            Update(
                pk=change.pk,
                sk=change.sk,
                assign=change.assign,
                remove=remove,
                condition="attribute_exists(pk) AND attribute_not_exists(#report)",
            )
        )

    def set_status(self, batch_id: str, status: BatchStatus, *, was: Sequence[BatchStatus]) -> bool:
        """Pause, resume or cancel. Answers False where it is in none of those states."""
        names = {f"was{number}": one.value for number, one in enumerate(was)}
        change = Update(
            pk=_pk(batch_id),
            sk="batch",
            assign={"status": status.value, "updated_at": now_text()},
            condition=f"#status IN ({', '.join(f':{name}' for name in names)}) AND attribute_not_exists(#report)",
            values=names,
        )
        return self._unless_changed(change)

    def neglected(self, *, limit: int) -> list[str]:
        """Batches that have not been looked at for a while; whoever asks looks, and nobody else for as long."""
        page = self._table.query(
            "#lease = :lease AND #lease_until < :now", {"lease": LEASE, "now": now_s()}, index="leases", limit=limit
        )
        found = []
        for key in page.items:
            item = self._table.get(key["pk"], key["sk"])
            if item is None or item.get("lease_until", now_s()) >= now_s():
                continue
            change = Update(
                pk=item["pk"],
                sk=item["sk"],
                assign={"lease_until": now_s() + LOOK_EVERY_S},
                condition="#lease_until = :seen",
                values={"seen": item["lease_until"]},
            )
            if self._unless_changed(change):
                found.append(str(item["id"]))
        return found

    def _change(self, batch_id: str, assign: dict[str, Any]) -> Update:
        return Update(pk=_pk(batch_id), sk="batch", assign=assign, condition="attribute_not_exists(#report)")

    def _unless_changed(self, change: Update) -> bool:
        try:
            self._table.update(change)
        except ConditionFailed:
            return False
        return True


def _pk(batch_id: str) -> str:
    return f"batch#{batch_id}"


def _range_sk(start: int) -> str:
    return f"range#{start:015}"


def _range_item(batch_id: str, start: int, end: int) -> Item:
    expires = now_s() + int(RETENTION.total_seconds())
    sort_key = _range_sk(start)
    return {
        "pk": _pk(batch_id),
        "sk": sort_key,
        "start": start,
        "end": end,
        "offset": start,
        "touched": now_s(),
        "expires": expires,
    }


def _range_of(item: Item) -> Range:
    names = ("start", "end", "offset", "lines", "bad", "touched", "is_told")
    return Range(**{name: item[name] for name in names if name in item})


def _batch_of(item: Item) -> Batch:
    return Batch(
        id=item["id"],
        owner=item["owner_name"],
        source=item["source"],
        manifest=item["manifest"],
        size_bytes=item["size_bytes"],
        status=BatchStatus(item["status"]),
        created_at=item["created_at"],
        settled=item["settled"],
        report=item.get("report"),
        execution=item.get("execution"),
    )
