"""A batch as the table has it: what its owner wants of it, where its lines are, and how far they are. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from comfy_serverless.aws.dynamodb import Item, now_s
from comfy_serverless.batches.progress import BatchProgress, Counting, progress_at_end, progress_of
from comfy_serverless.batches.ranges import Range, batch_key
from comfy_serverless.table.columns import BATCH, KEEPER, KEEPER_DUE, read_columns, write_columns

#: How often the caretaker has a batch advanced, in seconds.
ADVANCE_EVERY_S = 60
#: The columns of batches whose name in the table is not that of the field.
_STORED = {"owner": "owner_name"}


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
        report: the address of its report, once it has ended.
        is_failed: whether no line of it was a request (see `BatchStatus.FAILED`).
        wakes: how often its keeper has been woken since it last came.
        counted_at: when its lines were last counted (`batches.progress`).
        counted_before: how many had ended some time before, and when: for the rate.
        take_from: where its lines come from, until `manifest` has them: it has no ranges before (`batches.taking`).
        only: which lines of the report at `take_from` it has (`batches.retry`); None if that is no report.
        summary: of a batch that has ended (`report.Written`): `counts`, by the names of `batches.progress`, `codes`,
            `curable`, `completed_at` and the first `failures`; older releases wrote none.
        key_id: of the API key that it came with.
        sent_lines: how many lines it has, of one that was read when it came.
        pause: why we have paused it, in words for its owner; None if a person has, or nobody.
        cut: why the rest of its manifest is not read, in such words; None as long as it is.
        expires: when it is forgotten with all that is of it, in seconds since 1970; None before it is written.
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
    sent_lines: int | None = None
    pause: str | None = None
    cut: str | None = None
    expires: int | None = None

    @classmethod
    def from_item(cls, item: Item) -> Self:
        columns = read_columns(cls, item, stored=_STORED)
        status = BatchStatus.FAILED if columns.get("is_failed") else BatchStatus(columns["status"])
        return cls(**{**columns, "status": status})

    def to_item(self, expires: int) -> Item:
        """The item of a new batch. `looking_until` and `report` come later."""
        pk, sk = batch_key(self.id)
        return {
            "pk": pk,
            "sk": sk,
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
    def notes(self) -> list[str]:
        """What its owner should know of it, beside its numbers."""
        is_paused = self.status is BatchStatus.PAUSED
        is_told = self.pause is not None and (is_paused or self.report is not None)
        paused = [f"{'paused' if is_paused else 'was paused'}: {self.pause}"] if is_told else []
        return [*paused, *([self.cut] if self.cut is not None else [])]

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
        progress = progress_of(ranges, self.counting, status=self.status.value, is_taken=self.take_from is None)
        return progress if progress.is_read or not self.sent_lines else replace(progress, lines_total=self.sent_lines)

    def progress_at_end(self, counts: Mapping[str, int]) -> BatchProgress:
        """How it has ended, by the counts of its report."""
        return progress_at_end(counts, self.counting, status=self.status.value)

    def final_status(self, *, is_all_bad: bool) -> BatchStatus:
        """The status once the report is written."""
        if self.status is BatchStatus.CANCELED:
            return BatchStatus.CANCELED
        return BatchStatus.FAILED if is_all_bad else BatchStatus.COMPLETED
