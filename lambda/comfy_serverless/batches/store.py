"""Batches in the table: where lines came from, how far their ranges are read, which are bad, and how the batch ended.

read ──► running ──► completed, or failed
          │  ▲
       paused, canceled

batch#{id}         the batch, its ranges, its bad lines
batch#{address}    which batch was dropped there last
batch#             a row for each batch, for the operator
batches#{owner}    rows of an owner's batches: by moment, for lists, and the newest of each name
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from comfy_serverless.aws.dynamodb import ConditionFailed, Item, Table, Update, now_s, now_text, put_write
from comfy_serverless.batches.progress import BatchProgress, Counting, progress_at_end, progress_of
from comfy_serverless.batches.ranges import BadLine, Range, batch_pk, first_lines, range_sk
from comfy_serverless.errors import IdempotencyKeyReuse
from comfy_serverless.jobs.document import RETENTION
from comfy_serverless.jobs.drop_names import plain_manifest
from comfy_serverless.table.columns import BATCH, KEEPER, KEEPER_DUE, neglected, read_columns, write_columns
from comfy_serverless.table.job_item import idempotency_item
from comfy_serverless.table.turns import again_after_s

if TYPE_CHECKING:
    from comfy_serverless.jobs.message import JobMessage
    from comfy_serverless.table.jobs import JobStore

#: How often the caretaker has a batch advanced, in seconds.
ADVANCE_EVERY_S = 60
#: The columns of batches whose name in the table is not that of the field.
_STORED = {"owner": "owner_name"}
#: The partition of the list of all batches.
_ALL = "batch#"
#: How the sort keys of an owner's rows begin: of those by moment, and of those by name.
_AT, _NAME = "at#", "name#"


class BatchStatus(StrEnum):
    """What the owner wants of a batch, and that it is over."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELED = "canceled"
    COMPLETED = "completed"
    FAILED = "failed"  # it is over, and no line of it was a request; in the table it is "completed" with `is_failed`


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A manifest that was dropped, or that an owner has sent to the API.

    Attributes:
        name: what its owner calls it, if it came to the API; None of a dropped one.
        source: where it was dropped; of one that came to the API, `manifest`.
        manifest: where our own copy is, which never changes.
        settled: up to here every job has ended, in bytes.
        execution: the newest execution of the state machine that reads it; None if there is none.
        wakes: how often its keeper has been woken since it last came.
        counted_at: when its lines were last counted (`batches.progress`).
        counted_before: how many had ended some time before, and when: for the rate.
        take_from: where its lines come from, until `manifest` has them: it has no ranges before (`batches.taking`).
        only: which lines of the report at `take_from` it has (`batches.retry`); None if that is no report.
        summary: of a batch that has ended (`report.Written`): `counts`, by the names of `batches.progress`, `codes`,
            `curable`, `completed_at` and the first `failures`; older releases wrote none.
        key_id: of the API key that it came with.
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
    wakes: int = 0
    is_failed: bool = False
    counted_at: str | None = None
    counted_before: Mapping[str, Any] | None = None
    name: str | None = None
    take_from: str | None = None
    only: str | None = None
    summary: Mapping[str, Any] | None = None
    key_id: str | None = None

    @classmethod
    def from_item(cls, item: Item) -> Self:
        columns = read_columns(cls, item, stored=_STORED)
        status = BatchStatus.FAILED if columns.get("is_failed") else BatchStatus(columns["status"])
        return cls(**{**columns, "status": status})

    def to_item(self, expires: int) -> Item:
        """The item of a new batch. `looking_until` and `report` come later."""
        return {
            "pk": batch_pk(self.id),
            "sk": "batch",
            **write_columns(self, stored=_STORED),
            "status": self.status.value,
            "settled": self.settled,
            KEEPER: BATCH,
            KEEPER_DUE: now_s() + ADVANCE_EVERY_S,
            "expires": expires,
        }

    @property
    def is_owned(self) -> bool:
        """Whether its lines are requests of its owner to the API, and no others' (`jobs.runnable`)."""
        return self.name is not None

    @property
    def called(self) -> str:
        """What people call it: its name, or that of the manifest."""
        return self.name or self.source.partition("/batches/")[2].removesuffix(".jsonl") or self.id

    @property
    def counting(self) -> Counting:
        """When its lines were counted."""
        return Counting(
            created_at=self.created_at,
            counted_at=self.counted_at,
            before=self.counted_before,
            is_over=self.report is not None,
        )

    def progress(self, ranges: Sequence[Range]) -> BatchProgress:
        """How far it is with these ranges, as of when they were last counted."""
        return progress_of(ranges, self.counting, status=self.status.value, is_taken=self.take_from is None)

    def progress_at_end(self, counts: Mapping[str, int]) -> BatchProgress:
        """How it has ended, by the counts of its report."""
        return progress_at_end(counts, self.counting, status=self.status.value)

    def final_status(self, *, is_all_bad: bool) -> BatchStatus:
        """The status once the report is written."""
        if self.status is BatchStatus.CANCELED:
            return BatchStatus.CANCELED
        return BatchStatus.FAILED if is_all_bad else BatchStatus.COMPLETED


class BatchStore:
    """The batches of one table. Thread-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def create(self, batch: Batch, ranges: Sequence[tuple[int, int]]) -> bool:
        """Write a batch and its ranges. Returns False if the batch exists already."""
        if self.get(batch.id) is not None:
            return False
        expires = _expires()
        self._table.put_all(
            [
                Range(start=start, end=end, offset=start, begun=0, touched=now_s()).to_item(batch.id, expires)
                for start, end in ranges
            ]
        )
        # For people, who know the batch by its name. `newest` finds it only once the batch itself is written.
        self._table.put(_newest_dropped(batch, expires))
        self._table.put_all(_rows(batch, expires))
        try:
            self._table.put(batch.to_item(expires), condition="attribute_not_exists(pk)")
        except ConditionFailed:
            return False
        return True

    def announce(self, batch: Batch, ranges: Sequence[tuple[int, int]], *, idempotency_key: str | None) -> bool:
        """Write a batch of the API with all that leads to it, or nothing. Returns False if the batch exists already.

        Args:
            ranges: at most a few; of one whose lines are taken later, none.

        Raises IdempotencyKeyReuse: the key was used within the last 24 hours.
        """
        expires = _expires()
        parts = [Range(start=start, end=end, offset=start, begun=0, touched=now_s()) for start, end in ranges]
        writes = [put_write(batch.to_item(expires), condition="attribute_not_exists(pk)")]
        if idempotency_key is not None:
            free = "attribute_not_exists(pk) OR #expires < :now"
            key = idempotency_item(batch.owner, idempotency_key)
            writes.append(put_write(key, condition=free, values={"now": now_s()}))
        writes += map(put_write, [*(part.to_item(batch.id, expires) for part in parts), *_rows(batch, expires)])
        if not batch.is_owned:
            writes.append(put_write(_newest_dropped(batch, expires)))
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
        items = {item["id"]: item for item in self._table.get_all([(batch_pk(row["batch"]), "batch") for row in shown])}
        found = [Batch.from_item(items[row["batch"]]) for row in shown if row["batch"] in items]
        return found, str(shown[-1]["sk"]).removeprefix(_AT) if len(rows) > limit else None

    def newest(self, source: str) -> Batch | None:
        """The batch that was last dropped at this address, however it was packed."""
        item = self._table.get(batch_pk(plain_manifest(source)), "newest")
        return self.get(str(item["batch"])) if item else None

    def all(self, *, limit: int, before: str | None = None) -> list[Batch]:
        """The batches that are kept, the newest first. Those of releases that had no such list are not in it.

        Args:
            before: only batches that are older than this moment (`Batch.created_at`).
        """
        page = self._table.query(
            "#pk = :pk AND #sk < :before",
            {"pk": _ALL, "before": before or "~"},
            newest_first=True,
            limit=limit,
        )
        found = self._table.get_all([(batch_pk(str(item["batch"])), "batch") for item in page.items])
        return sorted(map(Batch.from_item, found), key=lambda batch: batch.created_at, reverse=True)

    def get(self, batch_id: str) -> Batch | None:
        """A batch. One read."""
        item = self._table.get(batch_pk(batch_id), "batch")
        return Batch.from_item(item) if item else None

    def names(self, owner: str, batch_ids: Collection[str]) -> dict[str, str]:
        """What people call those of these batches that are the owner's, by their ids. One read of all together."""
        keys = [(batch_pk(batch_id), "batch") for batch_id in batch_ids]
        found = map(Batch.from_item, self._table.get_all(keys)) if keys else ()
        return {batch.id: batch.called for batch in found if batch.owner == owner}

    def range_at(self, batch_id: str, start: int) -> Range | None:
        """The range that begins at this offset. One read."""
        item = self._table.get(batch_pk(batch_id), range_sk(start))
        return Range.from_item(item) if item else None

    def ranges(self, batch_id: str) -> list[Range]:
        """Its ranges, in order."""
        return [Range.from_item(item) for item in self._items(batch_id, "range")]

    def progress(self, batch: Batch) -> BatchProgress:
        """How far a batch is, as of when it was last counted. One read; of one that has ended, mostly none."""
        if batch.summary is not None:
            return batch.progress_at_end(batch.summary["counts"])
        return batch.progress(self.ranges(batch.id))

    def bad_lines(self, batch_id: str) -> Iterator[BadLine]:
        """The lines that are no requests, in order, as far as the manifest is read."""
        yield from self._bad_of(self.ranges(batch_id), self._items(batch_id, "bad"))

    def first_bad(self, batch_id: str, ranges: Sequence[Range], *, limit: int) -> list[BadLine]:
        """The first of them. One read of no more than these."""
        values = {"pk": batch_pk(batch_id), "first": "bad#", "last": "bad~"}
        page = self._table.query("#pk = :pk AND #sk BETWEEN :first AND :last", values, limit=limit)
        return list(self._bad_of(ranges, page.items))

    @staticmethod
    def _bad_of(ranges: Sequence[Range], items: Iterable[Item]) -> Iterator[BadLine]:
        firsts = first_lines(ranges)
        starts = [part.start for part in ranges]
        for item in items:
            offset = int(item["sk"].partition("#")[2])
            first, number = firsts[bisect_right(starts, offset) - 1], item.get("line")
            line = None if first is None or number is None else first + number - 1
            yield BadLine(offset=offset, line=line, message=item["message"])

    def _items(self, batch_id: str, kind: str) -> Iterator[Item]:
        values = {"pk": batch_pk(batch_id), "first": f"{kind}#", "last": f"{kind}~"}
        return self._table.query_all("#pk = :pk AND #sk BETWEEN :first AND :last", values)

    def bad_between(self, batch_id: str, first: int, last: int) -> dict[int, str]:
        """What was wrong with bad lines when they were read, by their offsets: of those from one offset to another.

        A line that names a workflow is judged when it is read, and not again.
        """
        values = {"pk": batch_pk(batch_id), "first": _bad_sk(first), "last": _bad_sk(last)}
        found = self._table.query_all("#pk = :pk AND #sk BETWEEN :first AND :last", values)
        return {int(item["sk"].partition("#")[2]): str(item["message"]) for item in found}

    def mark_bad(self, batch_id: str, bad: Sequence[BadLine]) -> None:
        """Write which lines are bad, with their numbers in the range."""
        expires = _expires()
        self._table.put_all(
            [
                {
                    "pk": batch_pk(batch_id),
                    "sk": _bad_sk(one.offset),
                    "line": one.line,
                    "message": one.message,
                    "expires": expires,
                }
                for one in bad
            ]
        )

    def mark_read(self, batch_id: str, before: Range, after: Range, bad: Sequence[BadLine]) -> bool:
        """Write how far a range has been read. Returns False if another reader was faster.

        Args:
            bad: lines with their numbers in the range.
        """
        self.mark_bad(batch_id, bad)
        read: dict[str, Any] = {"offset": after.offset, "lines": after.lines, "bad": after.bad, "touched": now_s()}
        if after.begun is not None:
            read["begun"] = after.begun
        if after.drawing != before.drawing:
            read["drawing"] = sorted(after.drawing)
        if after.steady != before.steady:
            read["steady"] = sorted(after.steady)
        change = Update(
            pk=batch_pk(batch_id),
            sk=range_sk(before.start),
            assign=read,
            remove=["orders"],
            condition="#offset = :seen",
            values={"seen": before.offset},
        )
        return self._table.try_update(change)

    def mark_ordered(self, batch_id: str, part: Range) -> None:
        """Write that an abandoned range has been ordered again: if nothing comes of it, the next order is later."""
        change = Update(
            pk=batch_pk(batch_id),
            sk=range_sk(part.start),
            assign={"touched": now_s(), "orders": part.orders + 1},
            condition="#offset = :seen",
            values={"seen": part.offset},
        )
        self._table.try_update(change)

    def leave(self, batch_id: str, part: Range) -> None:
        """Write that nobody reads a range, as its batch is paused: it is read as soon as that is resumed."""
        change = Update(
            pk=batch_pk(batch_id),
            sk=range_sk(part.start),
            assign={"touched": 0},
            remove=["orders"],
            condition="#offset = :seen",
            values={"seen": part.offset},
        )
        self._table.try_update(change)

    def begin_advance(self, batch_id: str) -> bool:
        """Become the only caller that advances a batch, for a while. Returns False if another caller does."""
        change = self._change(batch_id, {"looking_until": now_s() + ADVANCE_EVERY_S})
        free = f"{change.condition} AND (attribute_not_exists(#looking_until) OR #looking_until < :now)"
        return self._table.try_update(replace(change, remove=["wakes"], condition=free, values={"now": now_s()}))

    def extend(self, batch: Batch, settled: int, *, for_s: int | None = None) -> None:
        """Write up to where all jobs have ended, and give the caller that advances the batch more time."""
        until = now_s() + (ADVANCE_EVERY_S if for_s is None else for_s)
        self._table.try_update(self._change(batch.id, {"settled": settled, KEEPER_DUE: until, "looking_until": until}))

    def end_advance(self, batch_id: str) -> None:
        """Have the batch advanced again later, by any caller."""
        self._table.try_update(self._change(batch_id, {KEEPER_DUE: now_s() + ADVANCE_EVERY_S, "looking_until": 0}))

    def mark_reported(self, batch_id: str, part: Range, *, form: int) -> None:
        """Write that a range's part of the report is written, in this form."""
        self._change_range(batch_id, part, {"part_form": form})

    def mark_counted(self, batch_id: str, part: Range) -> None:
        """Write how far the lines of a range have ended, and what was counted of them."""
        counted: dict[str, Any] = {"ended": part.ended, "ends": part.ends, "ahead": part.ahead}
        if part.ended_lines is not None:
            counted |= {"ended_lines": part.ended_lines, "failures": list(part.failures)}
        self._change_range(batch_id, part, counted)

    def _change_range(self, batch_id: str, part: Range, assign: Mapping[str, Any]) -> None:
        change = Update(pk=batch_pk(batch_id), sk=range_sk(part.start), assign=assign, condition="attribute_exists(pk)")
        self._table.try_update(change)

    def counted(self, batch: Batch, before: Mapping[str, Any] | None) -> None:
        """Write that a batch's lines were counted just now; `before` is what the rate is measured from."""
        assign: dict[str, Any] = {"counted_at": now_text()}
        if before is not None:
            assign["counted_before"] = before
        self._table.try_update(self._change(batch.id, assign))

    def mark_taken(self, batch: Batch, size_bytes: int, ranges: Sequence[tuple[int, int]]) -> Batch | None:
        """Write that `manifest` has the lines of a batch, and their ranges. Returns it; None if it was so before."""
        expires = _expires()
        # They have no reader yet: whoever resumes a batch that is paused meanwhile has them read.
        parts = [Range(start=start, end=end, offset=start, begun=0) for start, end in ranges]
        self._table.put_all([part.to_item(batch.id, expires) for part in parts])
        change = replace(
            self._change(batch.id, {"size_bytes": size_bytes}),
            remove=["take_from", "only"],
            condition="attribute_exists(#take_from)",
        )
        try:
            return Batch.from_item(self._table.update(change))
        except ConditionFailed:
            return None

    def read_by(self, batch_id: str, execution: str) -> None:
        """Write which execution of the state machine reads the batch."""
        self._table.try_update(self._change(batch_id, {"execution": execution}))

    def complete(self, batch: Batch, report: str, *, status: BatchStatus, summary: Mapping[str, Any]) -> bool:
        """Write that the report is written. Returns False if it was before."""
        assign = {"status": status.value, "report": report, "settled": batch.size_bytes, "summary": dict(summary)}
        if status is BatchStatus.FAILED:  # a state that older releases do not know
            assign |= {"status": BatchStatus.COMPLETED.value, "is_failed": True}
        change = self._change(batch.id, assign)
        condition = f"attribute_exists(pk) AND {change.condition}"
        return self._table.try_update(replace(change, remove=[KEEPER, KEEPER_DUE], condition=condition))

    def set_status(self, batch_id: str, status: BatchStatus, *, was: Sequence[BatchStatus]) -> bool:
        """Pause, resume or cancel. Returns False if it is in none of those states."""
        values = {f"was{number}": one.value for number, one in enumerate(was)}
        change = self._change(batch_id, {"status": status.value})
        condition = f"#status IN ({', '.join(f':{name}' for name in values)}) AND {change.condition}"
        return self._table.try_update(replace(change, condition=condition, values=values))

    def neglected(self, *, limit: int) -> list[str]:
        """Claim batches that have not been advanced for a while: for as long, no other caller gets them.

        If nobody advances one that was claimed, it is found again later each time.
        """
        found = []
        for item in neglected(self._table, BATCH, limit=limit):
            wakes = item.get("wakes", 0)
            change = Update(
                pk=item["pk"],
                sk=item["sk"],
                assign={KEEPER_DUE: now_s() + again_after_s(wakes), "wakes": wakes + 1},
                condition=f"#{KEEPER_DUE} = :seen",
                values={"seen": item[KEEPER_DUE]},
            )
            if self._table.try_update(change):
                found.append(str(item["id"]))
        return found

    def _change(self, batch_id: str, assign: dict[str, Any]) -> Update:
        return Update(pk=batch_pk(batch_id), sk="batch", assign=assign, condition="attribute_not_exists(#report)")


def _rows(batch: Batch, expires: int) -> list[Item]:
    """What lists and look-ups by name find a batch with."""
    row = {"batch": batch.id, "expires": expires}
    moment = f"{batch.created_at}#{batch.id}"
    return [
        {"pk": _ALL, "sk": moment, **row},
        {"pk": _of(batch.owner), "sk": f"{_AT}{moment}", **row},
        {"pk": _of(batch.owner), "sk": f"{_NAME}{batch.called}", **row},
    ]


def _newest_dropped(batch: Batch, expires: int) -> Item:
    """What names the batch that was last dropped at an address."""
    return {"pk": batch_pk(plain_manifest(batch.source)), "sk": "newest", "batch": batch.id, "expires": expires}


def _of(owner: str) -> str:
    return f"batches#{owner}"


def _bad_sk(offset: int) -> str:
    return f"bad#{offset:015}"


def _expires() -> int:
    return now_s() + int(RETENTION.total_seconds())


def hold_back(jobs: JobStore, batches: BatchStore, source: JobMessage) -> bool:
    """Keep a job whose message has come from being run, if all batches that want it are paused or canceled.

    Nothing of the job is read, because a function that runs workflows may not. If other batches want it too, the
    conditional write fails and returns them. Returns whether the message is done with.
    """
    wanted_by = frozenset({source.batch_id} if source.batch_id is not None else ())
    while wanted_by:
        statuses = {batch.status for batch in map(batches.get, wanted_by) if batch is not None}
        if BatchStatus.RUNNING in statuses or not statuses & {BatchStatus.PAUSED, BatchStatus.CANCELED}:
            return False
        hold = jobs.park if BatchStatus.PAUSED in statuses else jobs.leave
        standing = hold(source.job_id, batches=wanted_by)
        if standing is None:
            return True
        if standing == wanted_by:
            return False
        wanted_by = standing
    return False
