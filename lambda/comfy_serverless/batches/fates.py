"""What has become of the lines of a range: their requests, and the states of their jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfy_serverless.aws.dynamodb import MAX_READS
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.line_requests import request_in
from comfy_serverless.batches.owned import taken, used
from comfy_serverless.batches.reading import in_chunks, read_lines
from comfy_serverless.errors import ComfyError, InvalidRequest, KeyInManifest
from comfy_serverless.jobs.extra_data import split
from comfy_serverless.jobs.lines import LineAddress, document_of
from comfy_serverless.jobs.named_lines import shaped
from comfy_serverless.redaction import sounds_of_keys

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.batches.ranges import Range
    from comfy_serverless.jobs.lines import Line
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.jobs.reserved import Reserved
    from comfy_serverless.table.job_state import JobState
    from comfy_serverless.table.reader import JobReader

#: Characters of what is wrong with a line.
MAX_PROBLEM_CHARACTERS = 500

#: `BatchStore.bad_between` of a batch.
BadBetween = Callable[[int, int], Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class Fate:
    """A line, its request or its problem, and the state of its job.

    Attributes:
        may_hold_keys: whether a line that is no request may have a key in it, and must not be copied.
        asked_sha256: as in `LineRequest`.
        id_of_line: the id that it names, if a line of the same batch that asks for something else has that job.
    """

    line: Line
    request: JobRequest | None = None
    problem: str = ""
    may_hold_keys: bool = False
    state: JobState | None = None
    asked_sha256: str | None = None
    id_of_line: str = ""

    @property
    def job_id(self) -> str:
        """The id of its job; empty for a bad line."""
        return str(self.request.job_id) if self.request is not None else ""

    @property
    def is_missing(self) -> bool:
        """Whether it has no job: it has not been read yet, or its job was forgotten meanwhile."""
        return self.request is not None and self.state is None

    def is_open_in(self, batch: Batch) -> bool:
        """Whether its job has not ended; a line without one has ended once the batch is canceled."""
        if self.state is None:
            return self.is_missing and batch.status is not BatchStatus.CANCELED
        return not self.state.is_over


@dataclass(frozen=True, slots=True)
class Fates:
    """Those of some lines, and the number of the last line up to the next ones (as `reading.Chunk` has it)."""

    lines: list[Fate]
    number: int


def fates(
    s3: S3Client,
    jobs: JobReader,
    batch: Batch,
    part: Range,
    *,
    reserved: Reserved,
    start: int | None = None,
    end: int | None = None,
    bad_between: BadBetween = lambda _first, _last: {},
) -> Iterator[Fates]:
    """The lines of a range and their jobs, a hundred at a time: one read of the table each.

    Args:
        start, end: only lines that begin from here on, and before here, in bytes.
        bad_between: returns what was wrong with lines when they were read: asked about those that name a workflow, and
            have no job of this batch.
    """
    draws = part.draws if part.has_ids_of_places else None

    def asked(line: Line) -> Fate:
        try:
            found = request_in(line, batch, reserved, draws=draws)
            return Fate(line, found.request, asked_sha256=found.asked_sha256)
        except InvalidRequest as error:
            is_suspect = isinstance(error, KeyInManifest) or may_hold_keys(line.content or b"")
            return Fate(line, problem=error.message[:MAX_PROBLEM_CHARACTERS], may_hold_keys=is_suspect)

    first = part.start if start is None else max(part.start, start)
    lines = read_lines(s3, batch, start=first, end=part.end if end is None else min(part.end, end))
    for chunk in in_chunks(lines, MAX_READS):
        found = [asked(line) for line in chunk.lines]
        states = jobs.many([fate.job_id for fate in found if fate.job_id])
        found = [_with_state(fate, states.get(fate.job_id), batch) for fate in found]
        yield Fates(_as_read(found, batch, bad_between), chunk.number)


def _with_state(fate: Fate, state: JobState | None, batch: Batch) -> Fate:
    """A line with its job. That of another owner or of another request, which has its id, is none of it."""
    if state is None:
        return replace(fate, state=state)
    if state.owner != batch.owner:
        return Fate(fate.line, problem=taken(fate.job_id), may_hold_keys=may_hold_keys(fate.line.content or b""))
    if state.is_of_another(fate.asked_sha256) and (offset := line_of(batch, state)) != fate.line.offset:
        return Fate(
            fate.line,
            problem=used(fate.job_id),
            may_hold_keys=may_hold_keys(fate.line.content or b""),
            id_of_line="" if offset is None else fate.job_id,
        )
    return replace(fate, state=state)


def line_of(batch: Batch, state: JobState) -> int | None:
    """Where the line of this batch begins that a job was made of, in bytes; None if it is of none of its lines."""
    address = LineAddress.parse(S3Address.parse(state.request))
    if state.line is not None:
        name, _, offset = state.line.rpartition("#")
        return int(offset) if name == batch.id else None
    return address.offset if address is not None and str(address.manifest) == batch.manifest else None


def _as_read(found: list[Fate], batch: Batch, bad_between: BadBetween) -> list[Fate]:
    """The fates, of lines that were bad when they were read as those of bad ones, whatever became of their workflow."""
    unsure = [
        fate.line.offset
        for fate in found
        if fate.request is not None and fate.request.is_named
        if fate.state is None or batch.id not in fate.state.batches
    ]
    bad = bad_between(unsure[0], unsure[-1]) if unsure else {}
    return [
        Fate(
            fate.line,
            problem=bad[fate.line.offset][:MAX_PROBLEM_CHARACTERS],
            may_hold_keys=may_hold_keys(fate.line.content or b""),
        )
        if fate.line.offset in bad and fate.line.offset in unsure
        else fate
        for fate in found
    ]


def may_hold_keys(content: bytes) -> bool:
    """Whether a line that is no request may have a key in it: in its `extra_data`, or under a name that sounds so."""
    try:
        document = document_of(content)
        text, extra_data = json.dumps(document, ensure_ascii=False), shaped(document).fields.get("extra_data")
    except ComfyError:
        text = content.decode("utf-8", "replace")
        return "extra_data" in text or sounds_of_keys(text)
    return (isinstance(extra_data, Mapping) and bool(split(extra_data)[1])) or sounds_of_keys(text)
