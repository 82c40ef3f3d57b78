"""What the routes of batches take and answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from comfy_serverless.batches.retry import CURABLE
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.document import Output

#: A name can be a part of an address, of a key and of a file's name, wherever it stands.
NAME: Final = r"^[A-Za-z0-9_-]{1,40}$"


class BatchBody(BaseModel):
    """Lines to run: as they are, as the text of a manifest, or as a file that was uploaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=NAME, description="What it is called. Names are each owner's own.")]
    lines: Annotated[list[Any] | None, Field(description="Job requests, as `POST /generate` takes them.")] = None
    manifest: Annotated[
        str | None, Field(description="A job request in each line; or a JSON list of them. With `lines`: up to 4 MB.")
    ] = None
    upload_id: Annotated[
        str | None, Field(max_length=100, description="A manifest of any size that was uploaded (`/uploads`).")
    ] = None
    force: Annotated[
        bool, Field(description="Take it although lines would fail: those are reported, and cost the others nothing.")
    ] = False


class RetryBody(BaseModel):
    """Which lines to run again."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    only: Annotated[
        str,
        Field(
            max_length=1000,
            description="`curable`, `all`, a status, an error code, or numbers of lines (`12,40-60`); with commas.",
        ),
    ] = CURABLE


class Failure(BaseModel):
    """A line that has failed. `line` is null while its number is not known, or if it is about all lines."""

    line: int | None
    job_id: str | None
    code: str
    message: str


class BatchDocument(BaseModel):
    """A batch as it was last counted. Its counts are some seconds old while it runs, and exact once it has ended.

    Attributes:
        id: of this batch alone; a name is that of the newest one.
        lines: how many are read; `lines_total` is an estimate until `is_read`.
        left_s: how long it may take yet.
        report_url, csv_url, rows_url: signed; null until it has ended. `rows_url` has a JSON object for each line.
        notes: what its owner should know beside the numbers: why we have paused it, or read no further.
        codes: how many lines have failed with which code, once it has ended.
        curable: how many of them another try may cure, once it has ended.
    """

    name: str
    id: str
    status: Literal["running", "paused", "canceled", "completed", "failed"]
    created_at: str
    completed_at: str | None
    lines: int
    lines_total: int
    is_read: bool
    ended: int
    queued: int
    running: int
    succeeded: int
    failed: int
    bad: int
    duplicates: int
    canceled: int
    expired: int
    per_second: float | None
    left_s: int | None
    counted_at: str | None
    first_failures: list[Failure]
    notes: list[str]
    codes: dict[str, int]
    curable: int | None
    report_url: str | None
    csv_url: str | None
    rows_url: str | None


class TakenBatch(BatchDocument):
    """A batch that was just sent, and what its sender should know, as of the budget of the key."""

    warnings: list[str] = Field(default_factory=list)


class RetriedBatch(TakenBatch):
    """The new batch, and how many lines were left out of it, by the reason."""

    left_out: dict[str, int] = Field(default_factory=dict)


class BatchList(BaseModel):
    """Batches, newest first. `next_cursor` is absent on the last page."""

    batches: list[BatchDocument]
    next_cursor: str | None = None


class BatchOutput(Output):
    """An output, and the line whose job has made it."""

    line: int
    metadata: dict[str, str]
    inputs: dict[str, Any]


class BatchOutputList(BaseModel):
    """Outputs in the order of the lines. `next_cursor` is absent on the last page."""

    outputs: list[BatchOutput]
    next_cursor: str | None = None


def read_batch(document: object) -> tuple[object, Sequence[str]]:
    """A body with `lines` as one with their text: so many values are not looked at one by one.

    Raises InvalidRequest for more than one of the three, and for none.
    """
    if not isinstance(document, Mapping):
        return document, ()
    given = [name for name in ("lines", "manifest", "upload_id") if document.get(name) is not None]
    if len(given) != 1:
        told = " and ".join(map(repr, given)) if given else "none of them"
        raise InvalidRequest(f"one of 'lines', 'manifest' and 'upload_id' has the lines: there is {told}.")
    lines = document.get("lines")
    if not isinstance(lines, list):
        return document, ()
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    return {**{name: value for name, value in document.items() if name != "lines"}, "manifest": text}, ()
