"""What lists show of a job: read for a whole page with one call, without any job's document and outputs. No IO.

An ended job has it as one column, which is written with its end; of a job that waits or runs, its columns say it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from comfy_serverless.aws.dynamodb import Item
from comfy_serverless.jobs.document import Job, JobError, JobStatus, Output, Progress
from comfy_serverless.jobs.outward import outward_job
from comfy_serverless.moments import moment_text
from comfy_serverless.table.columns import read_columns
from comfy_serverless.table.job_item import STORED, JobEntry
from comfy_serverless.table.job_state import TERMINAL, JobState

#: How many outputs of a job are kept for lists, at most, and how many bytes they may have: the item is written as one.
MAX_OUTPUTS, MAX_OUTPUTS_BYTES = 24, 16_000
#: An error's message is cut to this many characters: lists show what happened, the job itself says all.
MAX_MESSAGE = 500
MAX_SEEDS = 24
_ABSENT = {"url", "url_expires_at", "data_base64", "thumb_url", "job_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What lists show of a job beyond its entry in the index.

    Attributes:
        outputs: the first of them, without links; of a job that has not ended, none.
        outputs_total: how many there are.
        error: its code, message and node; its texts are for key holders.
        seeds: those that were drawn.
    """

    started_at: str | None = None
    outputs: tuple[Output, ...] = ()
    outputs_total: int = 0
    progress: Progress | None = None
    error: JobError | None = None
    seeds: dict[str, int] | None = None

    @classmethod
    def of_job(cls, job: Job, *, outputs: Sequence[Output]) -> Self:
        """Take it from the document of an ended job."""
        outward = outward_job(job).error
        error = outward and JobError(
            code=outward.code,
            message=outward.message[:MAX_MESSAGE],
            node_id=outward.node_id,
            class_type=outward.class_type,
        )
        return cls(
            started_at=None if job.started_at is None else moment_text(job.started_at),
            outputs=_first(outputs),
            outputs_total=job.outputs_total or len(outputs),
            progress=job.progress,
            error=error,
            seeds=dict(list(job.seeds.items())[:MAX_SEEDS]),
        )


def shown_json(job: Job, outputs: Sequence[Output] | None) -> str:
    """The column of an ended job. `outputs` is None if they are known only by their own items."""
    shown = Shown.of_job(job, outputs=outputs or ())
    document: dict[str, Any] = {
        "started_at": shown.started_at,
        "outputs": None if outputs is None else [_compact(output) for output in shown.outputs],
        "outputs_total": shown.outputs_total,
        "progress": shown.progress and shown.progress.model_dump(exclude_defaults=True),
        "error": shown.error and shown.error.model_dump(exclude_defaults=True),
        "seeds": shown.seeds,
    }
    return json.dumps({name: value for name, value in document.items() if value or value == []}, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """The columns of a job that lists read, and what follows from them."""

    id: str
    owner: str
    status: JobStatus
    created_at: str
    updated_at: str
    created_id: str
    labels: dict[str, str]
    batches: frozenset[str] = frozenset()
    started_at: str | None = None
    completed_at: str | None = None
    progress_json: str | None = None
    shown_json: str | None = None

    @classmethod
    def from_item(cls, item: Item) -> Self:
        columns = {"labels": {}, **read_columns(cls, item, stored=STORED)}
        columns["status"] = JobStatus(columns["status"])
        columns["batches"] = frozenset(columns.get("batches", ()))
        return cls(**columns)

    @classmethod
    def of_state(cls, state: JobState) -> Self:
        """The same of a job that was read whole."""
        return cls(**{column.name: getattr(state, column.name) for column in fields(cls)})

    def entry(self) -> JobEntry:
        """The job as the index will have it."""
        return JobEntry(**{column.name: getattr(self, column.name) for column in fields(JobEntry)})

    def shown(self) -> Shown | None:
        """What its columns say; None if the job must be read whole: an older release, or a lost run, has ended it."""
        if self.status not in TERMINAL:
            progress = None if self.progress_json is None else Progress.model_validate_json(self.progress_json)
            return Shown(started_at=self.started_at, progress=progress)
        document: dict[str, Any] = json.loads(self.shown_json or "{}")
        if "outputs" not in document:
            return None
        return Shown(
            started_at=document.get("started_at"),
            outputs=tuple(Output.model_validate({**line, "job_id": self.id}) for line in document["outputs"]),
            outputs_total=document.get("outputs_total", 0),
            progress=Progress.model_validate(document["progress"]) if "progress" in document else None,
            error=JobError.model_validate(document["error"]) if "error" in document else None,
            seeds=document.get("seeds"),
        )


#: The attributes that a list reads.
LISTED = tuple(STORED[column.name] for column in fields(ListedJob))


def shown_of(state: JobState) -> Shown:
    """The same of a job that was read whole, with its outputs."""
    if not state.is_over:
        return ListedJob.of_state(state).shown() or Shown()
    job = state.whole_document()
    return Shown.of_job(job, outputs=state.outputs)


def _first(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """As many outputs as there is room for."""
    left, first = MAX_OUTPUTS_BYTES, list[Output]()
    for output in outputs[:MAX_OUTPUTS]:
        left -= len(output.to_line().encode("utf-8", "replace"))
        if left < 0:
            break
        first.append(output)
    return tuple(first)


def _compact(output: Output) -> dict[str, Any]:
    return output.model_dump(mode="json", exclude=_ABSENT, exclude_defaults=True)
