"""Batches in the table: where lines came from, how far their ranges are read, which are bad, and how the batch ended.

read ──► running ──► completed, or failed
          │  ▲
       paused, canceled

What a batch is: `batches.batch`. What leads to it: `batches.lists`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comfy_serverless.aws.dynamodb import NOT_THERE, ConditionFailed, Item, Update, not_there, now_s, now_text
from comfy_serverless.batches.batch import ADVANCE_EVERY_S, Batch, BatchStatus
from comfy_serverless.batches.lists import ALL, BatchLists, expires_at, newest_dropped, rows_of
from comfy_serverless.batches.ranges import BadLine, Range, batch_key, batch_pk, first_lines, range_sk
from comfy_serverless.jobs.drop_names import plain_manifest
from comfy_serverless.table.columns import BATCH, KEEPER, KEEPER_DUE, neglected
from comfy_serverless.table.turns import again_after_s

if TYPE_CHECKING:
    from comfy_serverless.batches.progress import BatchProgress
    from comfy_serverless.jobs.message import JobMessage
    from comfy_serverless.table.jobs import JobStore


class BatchStore(BatchLists):
    """The batches of one table. Thread-safe."""

    def create(self, batch: Batch, ranges: Sequence[tuple[int, int]]) -> bool:
        """Write a batch and its ranges. Returns False if the batch exists already."""
        if self.get(batch.id) is not None:
            return False
        expires = expires_at()
        self._table.put_all(
            [
                Range(start=start, end=end, offset=start, begun=0, touched=now_s()).to_item(batch.id, expires)
                for start, end in ranges
            ]
        )
        # For people, who know the batch by its name. `newest` finds it only once the batch itself is written.
        self._table.put(newest_dropped(batch, expires))
        self._table.put_all(rows_of(batch, expires))
        try:
            self._table.put(batch.to_item(expires), condition=NOT_THERE, values=not_there())
        except ConditionFailed:
            return False
        return True

    def newest(self, source: str) -> Batch | None:
        """The batch that was last dropped at this address, however it was packed."""
        item = self._table.get(batch_pk(plain_manifest(source)), "newest")
        return self.get(str(item["batch"])) if item else None

    def all(self, *, limit: int) -> list[Batch]:
        """The newest batches that are kept, the newest first. Those of releases that had no such list are not in it."""
        page = self._table.query("#pk = :pk", {"pk": ALL}, newest_first=True, limit=limit)
        found = self._table.get_all([batch_key(str(item["batch"])) for item in page.items])
        return sorted(map(Batch.from_item, found), key=lambda batch: batch.created_at, reverse=True)

    def names(self, owner: str, batch_ids: Collection[str]) -> dict[str, str]:
        """What people call those of these batches that are the owner's, by their ids. One read of all together."""
        keys = [batch_key(batch_id) for batch_id in batch_ids]
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

    def mark_bad(self, batch: Batch, bad: Sequence[BadLine]) -> None:
        """Write which lines are bad, with their numbers in the range."""
        expires = batch.expires or expires_at()
        self._table.put_all(
            [
                {
                    "pk": batch_pk(batch.id),
                    "sk": _bad_sk(one.offset),
                    "line": one.line,
                    "message": one.message,
                    "expires": expires,
                }
                for one in bad
            ]
        )

    def mark_read(self, batch: Batch, before: Range, after: Range, bad: Sequence[BadLine]) -> bool:
        """Write how far a range has been read. Returns False if another reader was faster.

        Args:
            bad: lines with their numbers in the range.
        """
        self.mark_bad(batch, bad)
        read: dict[str, Any] = {"offset": after.offset, "lines": after.lines, "bad": after.bad, "touched": now_s()}
        if after.begun is not None:
            read["begun"] = after.begun
        if after.drawing != before.drawing:
            read["drawing"] = sorted(after.drawing)
        if after.steady != before.steady:
            read["steady"] = sorted(after.steady)
        change = Update(
            pk=batch_pk(batch.id),
            sk=range_sk(before.start),
            assign=read,
            # A range whose rest is not read may have its part of the report before a reader's last chunk.
            remove=["orders", "part_form"],
            condition="#offset = :seen",
            values={"seen": before.offset},
        )
        return self._table.try_update(change)

    def count_bad(self, batch_id: str, count: int) -> int:
        """Count bad lines that were just found; returns how many the batch has. One that is cut off counts fewer."""
        pk, sk = batch_key(batch_id)
        change = Update(pk=pk, sk=sk, assign={}, add={"bad_lines": count}, condition="attribute_exists(pk)")
        return int(self._table.update(change)["bad_lines"])

    def cut(self, batch_id: str, why: str) -> None:
        """Write that no more of a batch's manifest is read, and why."""
        self._table.try_update(self._change(batch_id, {"cut": why}))

    def cut_range(self, batch_id: str, part: Range) -> None:
        """Write that nothing of a range is read behind what is."""
        change = Update(
            pk=batch_pk(batch_id),
            sk=range_sk(part.start),
            assign={"is_cut": True, "touched": now_s()},
            condition="#offset = :seen",
            values={"seen": part.offset},
        )
        self._table.try_update(change)

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
        expires = batch.expires or expires_at()
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

    def set_status(
        self, batch_id: str, status: BatchStatus, *, was: Sequence[BatchStatus], why: str | None = None
    ) -> bool:
        """Pause, resume or cancel. Returns False if it is in none of those states.

        Args:
            why: of a pause that no person has asked for.
        """
        values = {f"was{number}": one.value for number, one in enumerate(was)}
        change = self._change(batch_id, {"status": status.value, **({"pause": why} if why is not None else {})})
        if status is BatchStatus.PAUSED and why is None:
            change = replace(change, remove=["pause"])
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
        pk, sk = batch_key(batch_id)
        return Update(pk=pk, sk=sk, assign=assign, condition="attribute_not_exists(#report)")


def _bad_sk(offset: int) -> str:
    return f"bad#{offset:015}"


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
