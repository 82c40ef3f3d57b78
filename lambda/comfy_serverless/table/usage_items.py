"""What jobs have cost, in counters of the table: only this file knows their items. No IO.

    pk usage#{owner}   sk {day}#{workflow}#{key_id}#{shard}         one day of a workflow and a key
                       sk month#{month}#{key_id}#{shard}            one month of a key, which has a budget

A job is added to both in the transaction that writes its end, so each counts once, whatever crashes or is tried again.
Ten thousand jobs may end in a minute, and two transactions on one item at the same moment are in conflict: by its id,
a job goes to one of 16 shards. Days and months are those of the end, in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Any, Final, Self
from zlib import crc32

from comfy_serverless import moments
from comfy_serverless.aws.dynamodb import Item, Update, update_write
from comfy_serverless.jobs.document import Job, JobStatus, worked_s
from comfy_serverless.jobs.named import WORKFLOW_LABEL
from comfy_serverless.jobs.prices import nanousd

SHARDS: Final = 16
#: How long counters are kept after their day, in seconds: 400 days.
KEPT_S: Final = 400 * 24 * 3600
#: The sort key of months sorts behind those of days.
_MONTH: Final = "month"
#: As named workflows are called; another text in the label is no name of one.
_WORKFLOW = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FAILED = frozenset({JobStatus.FAILED, JobStatus.EXPIRED})
#: How an ended job's document says the bytes of outputs that it does not list.
OUTPUT_BYTES: Final = "output_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom a job is counted for.

    Attributes:
        key_id: the key it was submitted with; "" for none: a drop, a line of a dropped manifest.
        workflow: the named workflow it runs; "" for none.
    """

    owner: str
    key_id: str = ""
    workflow: str = ""

    @classmethod
    def of(cls, owner: str, key_id: str | None, labels: Mapping[str, str]) -> Self:
        """As a job's columns say. A label that no workflow could be called by is left out: labels are anybody's."""
        workflow = labels.get(WORKFLOW_LABEL, "")
        return cls(owner=owner, key_id=key_id or "", workflow=workflow if _WORKFLOW.fullmatch(workflow) else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """A sum over jobs. The names of its fields are those of the columns.

    Attributes:
        jobs: that have ended, however.
        failed: those of them that failed or expired.
        worked_ms: how long workers worked on them; work of runs that were lost or given back is in no document.
        outputs, bytes: what they have made.
        nanousd: what they cost, as estimated; None if no price was known for any of them.
    """

    jobs: int = 0
    failed: int = 0
    worked_ms: int = 0
    outputs: int = 0
    bytes: int = 0
    nanousd: int | None = None

    @classmethod
    def of(cls, job: Job) -> Self:
        """What one ended job counts."""
        listed = sum(output.size_bytes for output in job.outputs)
        return cls(
            jobs=1,
            failed=int(job.status in _FAILED),
            worked_ms=round(worked_s(job.timings_ms) * 1000),
            outputs=job.outputs_made,
            bytes=max(listed, job.metrics.get(OUTPUT_BYTES) or 0),
            nanousd=None if job.cost_usd is None else nanousd(job.cost_usd),
        )

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**{column.name: item[column.name] for column in fields(cls) if column.name in item})

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            **{column.name: _sum(getattr(self, column.name), getattr(other, column.name)) for column in fields(self)}
        )

    def columns(self) -> dict[str, int]:
        """What is added to a counter."""
        found = {column.name: getattr(self, column.name) for column in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


def _sum(one: Any, other: Any) -> Any:  # noqa: ANN401  (None is no price)
    return other if one is None else one if other is None else one + other


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One counter of a day, as it was read."""

    owner: str
    day: str
    workflow: str
    key_id: str
    usage: Usage

    @classmethod
    def from_item(cls, item: Item) -> Self:
        day, workflow, key_id, _ = item["sk"].split("#")
        owner = item["pk"].partition("#")[2]
        return cls(owner=owner, day=day, workflow=workflow, key_id=key_id, usage=Usage.from_item(item))


def counted(job_id: str, job: Job, account: Account) -> list[Mapping[str, Any]]:
    """The parts of a transaction that count an ended job."""
    ended = job.completed_at or moments.now()
    day, shard = f"{ended.astimezone(UTC):%Y-%m-%d}", f"{crc32(job_id.encode()) % SHARDS:02}"
    sort_keys = [f"{day}#{account.workflow}#{account.key_id}#{shard}"]
    if account.key_id:
        sort_keys.append(f"{_MONTH}#{day[:7]}#{account.key_id}#{shard}")
    return [_addition(account.owner, sort_key, Usage.of(job), day) for sort_key in sort_keys]


def _addition(owner: str, sort_key: str, usage: Usage, day: str) -> Mapping[str, Any]:
    expires = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) + KEPT_S
    return update_write(Update(pk=usage_pk(owner), sk=sort_key, assign={"expires": expires}, add=usage.columns()))


def usage_pk(owner: str) -> str:
    """The partition key of an owner's counters."""
    return f"usage#{owner}"


def days(first: date, last: date) -> tuple[str, str]:
    """The bounds of the sort keys of counters from one day to another, both included."""
    return first.isoformat(), f"{last.isoformat()}~"


def month_of_key(month: str, key_id: str) -> tuple[str, str]:
    """The bounds of the sort keys of a key's counters of a month (`2026-11`)."""
    return f"{_MONTH}#{month}#{key_id}#", f"{_MONTH}#{month}#{key_id}#~"


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of some."""
    whole = Usage()
    for usage in usages:
        whole += usage
    return whole
