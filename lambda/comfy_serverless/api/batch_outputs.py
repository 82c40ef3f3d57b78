"""Outputs of a batch, line by line, while it runs and afterwards: by its manifest, and by what the table has of jobs.

A page reads some lines from where the last one has stopped: a hundred of them with one read of S3 and one of the
table, and the outputs of each job that has made any. So it costs the same however long the manifest is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless.api.outputs import outputs_of
from comfy_serverless.api.paging import bad_cursor
from comfy_serverless.batches.fates import Fate, fates
from comfy_serverless.batches.pinning import labels_of_job
from comfy_serverless.batches.results import shown_input
from comfy_serverless.batches.tally import is_of_another_line
from comfy_serverless.jobs.document import JobStatus, Output
from comfy_serverless.jobs.output_list import Page
from comfy_serverless.jobs.reserved import Reserved

if TYPE_CHECKING:
    from comfy_serverless.api.services import Services
    from comfy_serverless.batches.batch import Batch

#: The lines that one page goes through, at most; and how long, in seconds.
_MAX_LINES: Final = 1000
_WITHIN_S: Final = 8.0
_CURSOR: Final = re.compile(r"(\d{1,15})\.(\d{1,12})\.(\d{1,12})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins.

    Attributes:
        offset: of the line, in bytes of the manifest.
        number: of that line in the file.
        start: where its outputs go on, as `Page.end` says.
    """

    offset: int = 0
    number: int = 1
    start: int = 0

    def to_cursor(self) -> str:
        """As `parse` reads it."""
        return f"{self.offset}.{self.number}.{self.start}"

    @classmethod
    def parse(cls, cursor: str | None) -> Place:
        """Read a cursor. Raises InvalidCursor."""
        if cursor is None:
            return cls()
        if (match := _CURSOR.fullmatch(cursor)) is None:
            raise bad_cursor()
        return cls(*map(int, match.groups()))


def page(batch: Batch, place: Place, behind: Services, *, limit: int) -> tuple[list[dict[str, Any]], Place | None]:
    """Outputs of lines that have succeeded, from a place on, and where the next page begins; None at the end.

    A page may be short, or empty, before the end: few lines of many have an output, or it would take too long.
    """
    found: list[dict[str, Any]] = []
    seen, until = 0, time.monotonic() + _WITHIN_S
    links = behind.links
    here = place
    for fate, number in _lines(batch, place, behind):
        here = Place(fate.line.offset, number, place.start if fate.line.offset == place.offset else 0)
        if seen >= _MAX_LINES or len(found) >= limit or (seen and time.monotonic() > until):
            return found, here
        seen += 1
        if not _has_outputs(batch, fate):
            continue
        made = _outputs_of(fate, behind, start=here.start, limit=limit - len(found))
        found += [_output(fate, number, output) for output in links.of_outputs(made.outputs)]
        if made.end is not None:
            return found, Place(fate.line.offset, number, made.end)
    return found, None


def _lines(batch: Batch, place: Place, behind: Services) -> Iterator[tuple[Fate, int]]:
    """The lines from a place on, each with its number in the file."""
    number = place.number
    for part in behind.batches.ranges(batch.id):
        if part.end <= place.offset:
            continue
        read = fates(
            behind.s3,
            behind.jobs,
            batch,
            part,
            reserved=Reserved.of(behind.settings),
            start=max(part.start, place.offset),
        )
        last = 0
        for chunk in read:
            for fate in chunk.lines:
                yield fate, number + fate.line.number - 1
            last = chunk.number
        number += last


def _has_outputs(batch: Batch, fate: Fate) -> bool:
    state = fate.state
    return state is not None and state.status is JobStatus.SUCCEEDED and not is_of_another_line(batch, fate)


def _outputs_of(fate: Fate, behind: Services, *, start: int, limit: int) -> Page:
    assert fate.state is not None  # noqa: S101 - for the type checker: `_has_outputs` has asked
    return outputs_of(fate.state, behind, start=start, limit=limit)


def _output(fate: Fate, number: int, output: Output) -> dict[str, Any]:
    """An output as it is sent, with what its line says."""
    assert fate.state is not None and fate.request is not None  # noqa: S101, PT018 - as above
    inputs = {name: shown_input(value) for name, value in fate.request.inputs.items()}
    labels = dict(labels_of_job(fate.request, fate.state))
    return {**output.to_json(), "line": number, "metadata": labels, "inputs": inputs}
