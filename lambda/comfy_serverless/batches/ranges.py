"""The ranges of a manifest: what has been read of each, which lines of it are bad, and how many have ended. No IO."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from comfy_serverless.aws.dynamodb import Item, now_s
from comfy_serverless.jobs.lines import ranges_of
from comfy_serverless.table.columns import read_columns, write_columns
from comfy_serverless.table.turns import MAX_PAUSE_S

#: The part of a manifest for one reader.
RANGE_BYTES = 4 * 1024 * 1024
#: For one manifest: the input of the state machine names all of them in 256 KB.
MAX_RANGES = 10_000
#: A range without progress for this long has no reader, in seconds: a chunk of it takes one or two. This doubles each
#: time that the range is ordered again in vain.
UNTOUCHED_S = 120
#: The workflows of a range that are remembered as drawing a seed, and as drawing none. Those of more are not looked at,
#: and count as drawing none.
MAX_DRAWING, MAX_STEADY = 100, 1000

#: What stands in the id of a batch of the API before its last twenty digits. In that of a dropped one it is a dash
#: (`sources.DroppedObject.default_id`).
OF_API = "_"

#: How many lines are in which state, by the names of `batches.progress`.
Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no request.

    Attributes:
        offset: where it begins, in bytes.
        line: its number in the file, from 1 on; None as long as not all lines before it are read.
    """

    offset: int
    line: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A part of a manifest.

    Attributes:
        start, end: the range has the lines that begin here, in bytes.
        offset: how far it has been read: the beginning of the next line.
        lines, bad: how many lines it has up to there, without blank ones.
        begun: how many lines of the file begin in it up to there, blank ones too; None if an older release has begun
            to read it. Only then its lines may have ids of their places.
        drawing: the workflows, outside of its lines, that were found to have something random (`workflow_key`).
        steady: those that were found to have none. Both stay so for the range: its lines must keep their ids if such a
            workflow changes.
        touched: when it was last read, or ordered again, in seconds since 1970.
        part_form: the form in which its part of the report is written (`report.PART_FORM`); 0 if it is not.
        orders: how often it has been ordered again since it was last read.
        ended: up to here every line has ended, in bytes; 0 if that was never looked at.
        ends: the counts of the lines up to there.
        ahead: the counts of the lines from there on, as of the last look.
        ended_lines: how many lines begin in the range up to `ended`, blank ones too; None if an older release has
            counted them.
        failures: the first lines that have failed, as of the last look, by their numbers in the range.
        unread: so many bytes behind `end` were the range's too, and are not read: the batch had too many bad lines.
    """

    start: int
    end: int
    offset: int
    lines: int = 0
    bad: int = 0
    begun: int | None = None
    drawing: frozenset[str] = frozenset()
    steady: frozenset[str] = frozenset()
    touched: int = 0
    part_form: int = 0
    orders: int = 0
    ended: int = 0
    ends: Counts | None = None
    ahead: Counts | None = None
    ended_lines: int | None = None
    failures: tuple[Mapping[str, Any], ...] = ()
    unread: int = 0

    @classmethod
    def from_item(cls, item: Item) -> Self:
        columns = read_columns(cls, item)
        if item.get("is_cut"):
            columns["end"] = min(item["end"], item["offset"])
            columns["unread"] = item["end"] - columns["end"]
        sets = {name: frozenset(columns.get(name, ())) for name in ("drawing", "steady")}
        return cls(**{**columns, **sets, "failures": tuple(columns.get("failures", ()))})

    def to_item(self, batch_id: str, expires: int) -> Item:
        """The item of a range that has not been read."""
        return {
            "pk": batch_pk(batch_id),
            "sk": range_sk(self.start),
            **write_columns(self),
            "expires": expires,
        }

    def draws(self, workflow: str) -> bool:
        """Whether this workflow was found to have something random, as the range was read (`line_ids.Question`)."""
        return is_drawing(workflow, self.drawing, self.steady)

    @property
    def has_ids_of_places(self) -> bool:
        """Whether a line that asks for something random has an id of its own; not if an older release has read it."""
        return self.begun is not None

    @property
    def settled(self) -> int:
        """Up to here every line has ended, in bytes, from its start on."""
        return max(self.start, self.ended)

    @property
    def lines_before(self) -> int | None:
        """How many lines begin in it before those that are counted next; None if that is not known."""
        return self.ended_lines if self.ended else 0

    @property
    def is_read(self) -> bool:
        """Whether all of it has been read."""
        return self.offset >= self.end

    @property
    def is_abandoned(self) -> bool:
        """Whether it must be read further, and seems to have no reader."""
        without_s = min(UNTOUCHED_S << min(self.orders, 6), MAX_PAUSE_S)
        return not self.is_read and self.touched < now_s() - without_s


def ranges_for(size_bytes: int) -> list[tuple[int, int]]:
    """The ranges of a manifest of this size."""
    return ranges_of(size_bytes, step_bytes=max(RANGE_BYTES, -(-size_bytes // MAX_RANGES)))


def first_lines(ranges: Sequence[Range]) -> list[int | None]:
    """The numbers of the first lines that begin in each of all ranges; None where what is before is not all read."""
    firsts: list[int | None] = []
    first: int | None = 1
    for part in ranges:
        firsts.append(first)
        is_known = part.begun is not None and part.is_read and not part.unread
        first = first + (part.begun or 0) if first is not None and is_known else None
    return firsts


def is_drawing(question: str, drawing: Collection[str], steady: Collection[str]) -> bool:
    """The answer to a question that a range remembers; of one that was not asked, that about the workflow as it is."""
    from comfy_serverless.jobs.line_ids import Question  # only where lines are read: it loads all of `graph`

    key, bare = workflow_key(question), Question.parse(question).without_inputs.to_text()
    return key in drawing or (key not in steady and workflow_key(bare) in drawing)


def workflow_key(workflow: str) -> str:
    """A short name for the name or address of a workflow, or for a question about one."""
    return hashlib.sha256(workflow.encode("utf-8", "replace")).hexdigest()[:16]


def batch_pk(name: str) -> str:
    """The partition key of a batch, and of what people know it by."""
    return f"batch#{name}"


def batch_key(batch_id: str) -> tuple[str, str]:
    """Where a batch itself is.

    Those of the API have a place of their own: a release that knows only dropped ones finds nothing there. It would run
    their lines as if they had been dropped, and end those whose lines are taken later as empty.
    """
    return batch_pk(batch_id), "batch-of-api" if batch_id[-21:-20] == OF_API else "batch"


def range_sk(start: int) -> str:
    """The sort key of a range."""
    return f"range#{start:015}"
