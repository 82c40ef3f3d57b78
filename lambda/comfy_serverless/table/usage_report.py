"""Sums of the counters of usage, by whatever is asked for: rows of the API's answer and of the command line. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Self

from comfy_serverless import moments
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.prices import usd
from comfy_serverless.table.usage_items import Counter, Usage

#: What rows may be told apart by, and the fields of a counter that say it.
KINDS: Final[Mapping[str, str]] = {"day": "day", "workflow": "workflow", "key": "key_id", "owner": "owner"}
#: The most days that one report may be of.
MOST_DAYS: Final = 400
#: The most counters that one report adds up, and the most rows that it has: labels `workflow` are anybody's.
MOST_COUNTERS: Final = 300_000
MOST_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is of.

    Attributes:
        by: some of `KINDS`, in the order of the rows' columns.
        first, last: its days (UTC), both included.
    """

    by: tuple[str, ...]
    first: date
    last: date

    @classmethod
    def parse(cls, by: str = "day", first: str | None = None, last: str | None = None) -> Self:
        """Read texts; without days it is of this month so far. Raises InvalidRequest for what cannot be asked."""
        kinds = tuple(dict.fromkeys(by.split(",")))
        if wrong := [kind for kind in kinds if kind not in KINDS]:
            raise InvalidRequest(
                f"usage can be asked for by {', '.join(KINDS)}, or by several of them with commas between; not by "
                f"{wrong[0][:60]!r}."
            )
        today = moments.now().date()
        ends = _day("to", last) if last is not None else today
        begins = _day("from", first) if first is not None else min(ends, today).replace(day=1)
        if not timedelta(0) <= ends - begins < timedelta(days=MOST_DAYS):
            raise InvalidRequest(f"`from` must not be after `to`, and at most {MOST_DAYS} days are reported at once.")
        return cls(by=kinds, first=begins, last=ends)


def report(counters: Iterable[Counter], asked: Asked, *, key_names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The report as the API tells it; days in their order, everything else by what it cost, the dearest first.

    Args:
        key_names: what keys are called, by their ids.

    Raises:
        InvalidRequest: there is more than one report adds up or shows: a sum of a part would be no sum.
    """
    whole, sums = Usage(), dict[tuple[str, ...], Usage]()
    for number, counter in enumerate(counters):
        if number >= MOST_COUNTERS or len(sums) > MOST_ROWS:
            raise _too_much(asked, counter.owner)
        whole += counter.usage
        group = tuple(str(getattr(counter, KINDS[kind])) for kind in asked.by)
        sums[group] = sums.get(group, Usage()) + counter.usage
    if len(sums) > MOST_ROWS:
        raise _too_much(asked, "")
    rows = [{**_named(asked.by, group, key_names or {}), **told(sums[group])} for group in sorted(sums)]
    if "day" not in asked.by:
        rows.sort(key=lambda row: (-(row["cost_usd"] or 0.0), -row["seconds"], -row["jobs"]))
    return {
        "from": asked.first.isoformat(),
        "to": asked.last.isoformat(),
        "by": ",".join(asked.by),
        "rows": rows,
        "total": told(whole),
    }


def told(usage: Usage) -> dict[str, Any]:
    """A sum as people read it: seconds and dollars."""
    return {
        "jobs": usage.jobs,
        "failed": usage.failed,
        "seconds": usage.worked_ms / 1000,
        "outputs": usage.outputs,
        "bytes": usage.bytes,
        "cost_usd": None if usage.nanousd is None else usd(usage.nanousd),
    }


def _too_much(asked: Asked, owner: str) -> InvalidRequest:
    days = (asked.last - asked.first).days + 1
    less = "fewer days (`from`, `to`)" if days > 1 else "less at once (`by`)"
    also = ", or for less at once (`by`)" if days > 1 and len(asked.by) > 1 else ""
    whose = f"; the jobs of {owner!r} were being added up" if owner else ""
    return InvalidRequest(
        f"usage of these {days} days by {', '.join(asked.by)} is of more than {MOST_ROWS:,} rows, or of "
        f"{MOST_COUNTERS:,} counters of a workflow, key and day, which is more than one report has{whose}: ask for "
        f"{less}{also}."
    )


def _named(by: Sequence[str], group: tuple[str, ...], key_names: Mapping[str, str]) -> dict[str, str]:
    named = dict(zip(by, group, strict=True))
    if "key" in named:
        named["key_name"] = key_names.get(named["key"], "")
    return named


def _day(name: str, text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise InvalidRequest(f"`{name}` must be a day like 2026-11-30, and is {text[:40]!r}.") from error
