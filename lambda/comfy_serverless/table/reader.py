"""Reads jobs from the table: one, many, those of an owner, or neglected ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from comfy_serverless.aws.dynamodb import Table, moment_of, now_s
from comfy_serverless.jobs.document import RETENTION
from comfy_serverless.observability import log
from comfy_serverless.table.columns import OPEN, neglected, put_off
from comfy_serverless.table.job_item import (
    JOB,
    LAST_OUTPUT,
    PREVIEW,
    JobEntry,
    Preview,
    index_bound,
    index_key,
    job_pk,
    placed_outputs_of,
)
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.shown import LISTED, ListedJob
from comfy_serverless.table.webhook_item import WEBHOOK, Webhook, webhook_pk

#: Calls for one page of a list, at most; with a filter, each reads 500 jobs or a megabyte.
MAX_LOOKS = 10


class JobReader:
    """The jobs of one table. Thread-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def read(self, job_id: str) -> JobState | None:
        """A job and its outputs. One read, for up to some thousand outputs."""
        return self._read(job_id, last=LAST_OUTPUT)

    def read_with_preview(self, job_id: str) -> JobState | None:
        """The same with the newest preview."""
        return self._read(job_id, last=PREVIEW)

    def read_alone(self, job_id: str) -> JobState | None:
        """A job without its outputs: one read of some kilobytes, however many outputs there are."""
        item = self._table.get(job_pk(job_id), JOB)
        return JobState.from_item(item) if item else None

    def webhook_of(self, state: JobState) -> Webhook | None:
        """Where a job's end must be reported, if anywhere. What an older release wrote is in the job itself."""
        if not state.has_webhook:
            return None
        item = self._table.get(webhook_pk(state.id), WEBHOOK)
        return Webhook.from_item(item) if item else Webhook.of_older_release(state.webhook)

    def open_jobs(self, owner: str) -> int:
        """How many jobs of an owner wait or run."""
        condition = "#open_owner = :owner AND #created_id > :forgotten"
        values = {"owner": owner, "forgotten": index_bound(_last_forgotten())}
        return self._table.count(condition, values, index="open_by_owner")

    def page(
        self,
        owner: str,
        *,
        labels: Mapping[str, str],
        status: str | None,
        limit: int,
        before: str | None,
        after: datetime | None = None,
        only_ended: bool = False,
    ) -> tuple[list[JobEntry], str | None]:
        """Jobs of an owner with these labels, newest first, and where the next page begins; None at the end.

        Args:
            before: where this page begins, as it was returned with the last one.
            after: only jobs that were submitted later than at this moment.
            only_ended: only jobs that have ended.
        """
        # A range of the index's sort key: jobs before it are not read.
        bounds = {"owner": owner, "after": index_bound(max(filter(None, [after, _last_forgotten()])))}
        if before is not None and before <= bounds["after"]:
            return [], None  # DynamoDB refuses a start outside of the range
        filters = [f"#labels.#label{number} = :label{number}" for number in range(len(labels))]
        names = {f"#label{number}": name for number, name in enumerate(labels)}
        values: dict[str, Any] = {f"label{number}": value for number, value in enumerate(labels.values())}
        if status is not None:
            filters.append("#status = :status")
            values["status"] = status
        if only_ended:
            filters.append("attribute_exists(#completed_at)")
        found: list[JobEntry] = []
        start = index_key(owner, before) if before else None
        for _ in range(MAX_LOOKS):
            page = self._table.query(
                "#owner = :owner AND #created_id > :after",
                {**bounds, **values},
                index="by_owner",
                filter_by=" AND ".join(filters),
                names=names,
                newest_first=True,
                # A filter reads as many as the limit allows: more than are wanted, so that few calls are enough.
                limit=limit + 1 - len(found) if not filters else 500,
                start=start,
            )
            found += map(JobEntry.from_item, page.items)
            start = page.last_key
            if len(found) > limit:
                return found[:limit], found[limit - 1].created_id
            if start is None:
                return found, None
        # If few of many match, a page is short or empty, and the next one goes on.
        return found, str((start or {})["created_id"])

    def many(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """The jobs of these ids that exist, without their outputs."""
        keys = [(job_pk(job_id), JOB) for job_id in job_ids]
        return {state.id: state for state in map(JobState.from_item, self._table.get_all(keys))}

    def listed(self, job_ids: Sequence[str]) -> dict[str, ListedJob]:
        """What lists show of the jobs of these ids that exist: one call for a hundred of them."""
        items = self._table.get_all([(job_pk(job_id), JOB) for job_id in job_ids], attributes=LISTED)
        return {job.id: job for job in map(ListedJob.from_item, items)}

    def neglected(self, *, limit: int, keeper: str = OPEN) -> Iterator[JobState]:
        """Jobs that their keeper has not looked after in time, the longest neglected first.

        Those of the keeper QUEUED should be in the queue: they are neglected only if it is empty. A job that
        cannot be read is logged and put off, the only write here.
        """
        for item in neglected(self._table, keeper, limit=limit):
            try:
                state = JobState.from_item(item)
            except (KeyError, TypeError, ValueError):  # a newer release's, or damaged: the others must not pay for it
                log.exception("a job's item cannot be read", item=item["pk"])
                put_off(self._table, item)
            else:
                yield state

    def _read(self, job_id: str, *, last: str) -> JobState | None:
        items = list(
            self._table.query_all(
                "#pk = :pk AND #sk BETWEEN :first AND :last", {"pk": job_pk(job_id), "first": JOB, "last": last}
            )
        )
        if not items or items[0]["sk"] != JOB:
            return None
        state = JobState.from_item(items[0])
        preview = Preview.from_item(items[-1]) if items[-1]["sk"] == PREVIEW else None
        placed = placed_outputs_of(state, items[1:])
        places, outputs = tuple(place for place, _ in placed), tuple(output for _, output in placed)
        return replace(state, outputs=outputs, places=places, preview=preview)


def _last_forgotten() -> datetime:
    """When the last of the jobs was submitted that are forgotten by now. The indexes do not have when they expire."""
    return moment_of(now_s() + 1) - RETENTION - timedelta(milliseconds=1)
