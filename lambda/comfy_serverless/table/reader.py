"""Jobs in the table, read: one, many, those of an owner, those that nobody looks after. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from comfy_serverless.aws.dynamodb import Item, Table, now_s
from comfy_serverless.jobs.document import Output
from comfy_serverless.table.job_item import JOB, index_key, job_pk
from comfy_serverless.table.job_state import JobState

#: Calls for one page of a list, at most: so many jobs a filter may look at, times 500 or a megabyte.
MAX_LOOKS = 10
#: Sorts behind every `output#…`, and before `preview`.
_LAST_OUTPUT = "output~"
#: Who is to look after a job: its worker or the caretaker; or its queue, as long as that has messages. One that waits
#: for its batch to be resumed has nobody.
OPEN, QUEUED, QUEUED_BATCH = "open", "queued", "queued_batch"


class JobReader:
    """The jobs of one table. Thread-safe."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def read(self, job_id: str) -> JobState | None:
        """A job and its outputs. One read, for up to some thousand outputs."""
        return self._read(job_id, last=_LAST_OUTPUT)

    def read_with_preview(self, job_id: str) -> JobState | None:
        """The same with the newest preview."""
        return self._read(job_id, last="preview")

    def open_jobs(self, owner: str) -> int:
        """How many jobs of an owner wait or run."""
        return self._table.count("#open_owner = :owner", {"owner": owner}, index="open_by_owner")

    def page(
        self, owner: str, *, labels: Mapping[str, str], status: str | None, limit: int, before: str | None
    ) -> tuple[list[Item], str | None]:
        """Jobs of an owner, newest first.

        Args:
            labels: that they must have.
            before: where the last page ended; its second answer.

        Returns:
            The jobs' items, and where to go on, or None at the end.
        """
        filters = [f"#labels.#label{number} = :label{number}" for number in range(len(labels))]
        names = {f"#label{number}": name for number, name in enumerate(labels)}
        values: dict[str, Any] = {f"label{number}": value for number, value in enumerate(labels.values())}
        if status is not None:
            filters.append("#status = :status")
            values["status"] = status
        found: list[Item] = []
        start = index_key(owner, before) if before else None
        for _ in range(MAX_LOOKS):
            page = self._table.query(
                "#owner = :owner",
                {"owner": owner, **values},
                index="by_owner",
                filter_by=" AND ".join(filters),
                names=names,
                newest_first=True,
                # A filter looks at as many as it is allowed to: more than are wanted, so that few calls do.
                limit=limit + 1 - len(found) if not filters else 500,
                start=start,
            )
            found += page.items
            start = page.last_key
            if len(found) > limit:
                return found[:limit], str(found[limit - 1]["created_id"])
            if start is None:
                return found, None
        # Where few are found among many, a page is short, or empty: the next one goes on.
        return found, str((start or {})["created_id"])

    def many(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """Those of so many jobs that there are, without their outputs."""
        keys = [(job_pk(job_id), JOB) for job_id in job_ids]
        items = self._table.get_all(keys)
        return {item["id"]: JobState(item) for item in items if item.get("expires", now_s()) >= now_s()}

    def neglected(self, *, limit: int, lease: str = OPEN) -> Iterator[JobState]:
        """Jobs whose lease has ended, the longest ended first.

        Args:
            lease: OPEN, or QUEUED for those that the queue should have: they are neglected only if it is empty.
        """
        page = self._table.query(
            "#lease = :lease AND #lease_until < :now", {"lease": lease, "now": now_s()}, index="leases", limit=limit
        )
        for key in page.items:
            head = self._table.get(key["pk"], key["sk"])
            if head is not None and (state := JobState(head)).lease_ended:
                yield state

    def _read(self, job_id: str, *, last: str) -> JobState | None:
        items = list(
            self._table.query_all(
                "#pk = :pk AND #sk BETWEEN :first AND :last", {"pk": job_pk(job_id), "first": JOB, "last": last}
            )
        )
        if not items or items[0]["sk"] != JOB or items[0].get("expires", now_s()) < now_s():
            return None
        head, *rest = items
        preview = rest[-1] if rest and rest[-1]["sk"] == "preview" and rest[-1]["expires"] > now_s() else None
        return JobState(head, _outputs_of(head, rest), preview)


def _outputs_of(head: Item, items: Sequence[Item]) -> tuple[Output, ...]:
    """The outputs of the run that counts, in the order of its result, or that in which they were delivered."""
    # A job that ended between two runs has what the last one had made.
    run = head.get("run", head.get("last_run") if "document" in head else None)
    by_place = {
        int(item["sk"].split("#")[1]): item["output"]
        for item in items
        if item["sk"].startswith("output#") and item["run"] == run
    }
    order = map(int, filter(None, head["output_places"].split(","))) if "output_places" in head else by_place
    return tuple(Output.model_validate_json(by_place[place]) for place in order if place in by_place)
