"""Jobs in the table: their states, and who may change them.

    submit ──► queued ──begin──► running ──finish──► succeeded | failed | canceled
                 │                │   ▲
              cancel           cancel │ begin again: the worker was lost, or gave the job back
                 ▼                ▼   │
              canceled        canceling ──finish──► canceled (or what came first)

Every change is one conditional write. No state moves backwards, a run that has lost its job can write nothing, and what
has ended stays as it ended. A run owns its job for as long as its lease lasts; each report renews it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from comfy_serverless.errors import Canceled, ComfyError, IdempotencyKeyReuse, InvalidRequest
from comfy_serverless.jobs.models import RETENTION, Job, JobError, JobStatus, JobUrls, Output, Progress, status_of
from comfy_serverless.jobs.replies import shorten_job
from comfy_serverless.jobs.store.table import (
    ConditionFailed,
    Item,
    Table,
    Update,
    delete_write,
    moment_text,
    now_s,
    now_text,
    put_write,
)

#: How long an idempotency key is remembered, by the contract.
IDEMPOTENCY_S = 24 * 3600
#: How long a submit may take between the table and the queue; then the caretaker looks after it.
DISPATCH_S = 60
#: How long a message may wait in the job queue: `MessageRetentionPeriod` in template.yaml.
QUEUE_RETENTION_S = 4 * 24 * 3600
#: An item has at most 400 KB; the rest is for labels, progress and the names of the attributes.
MAX_DOCUMENT_BYTES = 250_000

_JOB = "job"
#: Sorts behind every `output#…`, and before `preview`.
_LAST_OUTPUT = "output~"
_OPEN = "open"
_FREE = "#status = :queued OR (#status = :running AND (attribute_not_exists(#run) OR #lease_until < :now))"
_OURS = "#run = :run AND #status IN (:running, :canceling)"
_OURS_VALUES = {"running": JobStatus.RUNNING.value, "canceling": JobStatus.CANCELING.value}
TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED})


class JobExists(Exception):
    """There is a job of this id already."""


class LeaseLost(Exception):
    """The run does not own the job (any more): it has ended, or another run has taken it over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is about to be submitted.

    Attributes:
        request_uri: where the request is kept, for the worker.
        graph_uri: where the workflow is kept, for `/workflow`: the same document.
        idempotency_key: of the caller, single-use for 24 h.
        webhook: `{"url": …, "secret": …}`, or None.
        is_rerunnable: whether the request that is kept has all the worker needs; a key for partner nodes is not kept.
    """

    job_id: str
    owner: str
    request_uri: str
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    webhook: Mapping[str, str] | None = None
    is_rerunnable: bool = True
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as the table has it.

    Attributes:
        head: the item of the job itself.
        outputs: what the run in hand, or the one that counts, has delivered, in the order of its nodes.
        preview: the newest preview, where it was asked for.
    """

    head: Item
    outputs: tuple[Output, ...] = ()
    preview: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.head["id"])

    @property
    def owner(self) -> str:
        """Whose it is."""
        return str(self.head["owner"])

    @property
    def status(self) -> JobStatus:
        """The Comfy API's state."""
        return JobStatus(self.head["status"])

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL

    @property
    def runs(self) -> int:
        """How often it has been begun."""
        return int(self.head.get("runs", 0))

    @property
    def webhook(self) -> Mapping[str, str] | None:
        """Where its end is to be told, with the secret that signs it."""
        return self.head.get("webhook")

    @property
    def lease_ended(self) -> bool:
        """Whether somebody should have dealt with it, and has not: a worker, the queue, or the webhook."""
        return int(self.head.get("lease_until", now_s())) < now_s()

    def document(self) -> Job:
        """The job as the API answers it, without links."""
        head = self.head
        if "document" in head:
            job = Job.model_validate_json(head["document"])
            by_id = {output.id: output for output in self.outputs}
            order = head.get("output_ids", by_id)
            return job.model_copy(update={"outputs": tuple(by_id[key] for key in order if key in by_id)})
        created = datetime.fromisoformat(head["created_at"])
        return Job(
            id=self.id,
            status=self.status,
            created_at=created,
            started_at=head.get("started_at"),
            expires_at=created + RETENTION,
            progress=Progress.model_validate_json(head["progress"]) if "progress" in head else None,
            outputs=self.outputs,
            metrics={"queue_ms": _between_ms(head["created_at"], head.get("started_at")), "execution_ms": None},
            urls=JobUrls.of(self.id),
            metadata=head.get("labels", {}),
        )


class Claim(Enum):
    """What a worker that has got a job's message is to do."""

    RUN = auto()
    CANCELED = auto()
    LEAVE = auto()


@dataclass(frozen=True, slots=True)
class Begun:
    """The answer to `begin`.

    Attributes:
        claim: RUN: the job is this run's now. CANCELED: it is, but only to be ended. LEAVE: it is over, or somebody
            else's.
        is_last: whether a failure of this run is the job's, also one that another try may cure.
    """

    claim: Claim
    is_last: bool = False
    state: JobState | None = None


class JobStore:
    """The jobs of one table. Thread-safe."""

    def __init__(self, table: Table, *, lease_s: float, max_runs: int) -> None:
        self._table = table
        self._lease_s = lease_s
        self._max_runs = max_runs

    @property
    def max_runs(self) -> int:
        """How often a job is run before it fails for good."""
        return self._max_runs

    # The API's part.

    def submit(self, job: NewJob) -> JobState:
        """Write a job down, and its idempotency key with it: both or none.

        Raises:
            JobExists: there is a job of this id.
            IdempotencyKeyReuse: the key was used within the last 24 hours.
        """
        created = moment_text(job.created_at)
        epoch_s = int(job.created_at.timestamp())
        head: Item = {
            "pk": _pk(job.job_id),
            "sk": _JOB,
            "id": job.job_id,
            "owner": job.owner,
            "status": JobStatus.QUEUED.value,
            "created_at": created,
            "updated_at": created,
            "created_id": f"{created}#{job.job_id}",
            "open_owner": job.owner,
            "labels": dict(job.labels),
            "request": job.request_uri,
            "is_rerunnable": job.is_rerunnable,
            "webhook": dict(job.webhook) if job.webhook else None,
            "runs": 0,
            "lease": _OPEN,
            "lease_until": epoch_s + DISPATCH_S,
            "expires": epoch_s + int(RETENTION.total_seconds()),
        }
        writes = [put_write(head, condition="attribute_not_exists(pk)")]
        if job.idempotency_key:
            key: Item = {
                "pk": _key_pk(job.owner, job.idempotency_key),
                "sk": "idempotency",
                "job_id": job.job_id,
                "expires": epoch_s + IDEMPOTENCY_S,
            }
            # TTL deletes some time after the moment, so that is asked as well.
            free = "attribute_not_exists(pk) OR #expires < :now"
            writes.append(put_write(key, condition=free, values={"now": now_s()}))
        try:
            self._table.transact(writes)
        except ConditionFailed as failure:
            if failure.index == 0:
                raise JobExists(job.job_id) from None
            raise IdempotencyKeyReuse(
                "this Idempotency-Key has been used within the last 24 hours: the job it made is in GET /api/v2/jobs. "
                "To submit another, send another key."
            ) from None
        return JobState({name: value for name, value in head.items() if value is not None})

    def withdraw(self, job: NewJob) -> None:
        """Take back a submit that has not reached the queue: no job, and the idempotency key is free again."""
        writes = [delete_write(_pk(job.job_id), _JOB, condition="#runs = :none", values={"none": 0})]
        if job.idempotency_key:
            writes.append(delete_write(_key_pk(job.owner, job.idempotency_key), "idempotency"))
        self._table.transact(writes)

    def dispatched(self, job_id: str) -> None:
        """The queue has the job: until it begins, or the queue would drop it, nobody needs to look after it."""
        change = Update(
            pk=_pk(job_id),
            sk=_JOB,
            assign={"lease_until": now_s() + QUEUE_RETENTION_S, "is_dispatched": True},
            condition="#status = :queued",
            values={"queued": JobStatus.QUEUED.value},
        )
        self._unless_changed(change)

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
        start = _index_key(owner, before) if before else None
        while True:
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

    def cancel(self, state: JobState) -> JobState:
        """Ask a job to end: at once where nobody has begun it. Answers it as it is then; what has ended stays so."""
        while not state.is_over and state.status is not JobStatus.CANCELING:
            try:
                if state.status is JobStatus.QUEUED:
                    return self._end_as(state, Canceled("the job was canceled before it had begun"), was=state.status)
                change = Update(
                    pk=_pk(state.id),
                    sk=_JOB,
                    assign={"status": JobStatus.CANCELING.value, "updated_at": now_text()},
                    condition="#status = :running",
                    values={"running": JobStatus.RUNNING.value},
                )
                return JobState(self._table.update(change), state.outputs)
            except ConditionFailed:
                newer = self.read(state.id)
                if newer is None:
                    return state
                state = newer
        return state

    # The worker's part.

    def begin(self, job_id: str, *, run: str) -> Begun:
        """Take a job over, if it waits for somebody.

        Args:
            run: names this run, and no other.
        """
        now = now_s()
        change = Update(
            pk=_pk(job_id),
            sk=_JOB,
            assign={
                "status": JobStatus.RUNNING.value,
                "run": run,
                "lease": _OPEN,
                "lease_until": self._lease_end(),
                "started_at": now_text(),
                "updated_at": now_text(),
            },
            add={"runs": 1},
            condition=_FREE,
            values={"queued": JobStatus.QUEUED.value, "running": JobStatus.RUNNING.value, "now": now},
        )
        try:
            state = JobState(self._table.update(change))
        except ConditionFailed as failure:
            if not failure.item:
                return Begun(Claim.LEAVE)  # deleted, or taken back
            state = JobState(failure.item)
            is_free = "run" not in state.head or state.lease_ended
            claim = Claim.CANCELED if state.status is JobStatus.CANCELING and is_free else Claim.LEAVE
            return Begun(claim, state=state)
        return Begun(Claim.RUN, is_last=state.runs >= self._max_runs, state=state)

    def report(self, job_id: str, *, run: str, progress: Progress | None) -> JobStatus:
        """Tell how far a run is, and that it lives. Answers the job's state: `canceling` asks for its end.

        Raises:
            LeaseLost: the job is not this run's any more.
        """
        assign: dict[str, Any] = {"lease_until": self._lease_end()}
        if progress is not None:
            assign["progress"] = progress.model_dump_json()
        change = Update(pk=_pk(job_id), sk=_JOB, assign=assign, condition=_OURS, values={"run": run, **_OURS_VALUES})
        try:
            return JobStatus(self._table.update(change)["status"])
        except ConditionFailed:
            raise LeaseLost(job_id) from None

    def put_preview(self, job_id: str, *, node_id: str, content_type: str, data_base64: str) -> None:
        """Keep the newest preview, until it is an hour old."""
        self._table.put(
            {
                "pk": _pk(job_id),
                "sk": "preview",
                "node_id": node_id,
                "content_type": content_type,
                "data_base64": data_base64,
                "expires": now_s() + 3600,
            }
        )

    def put_outputs(self, state: JobState, outputs: Sequence[tuple[int, Output]], *, run: str) -> None:
        """Commit outputs, each with its place among all: as part of the job, and as an asset."""
        items: list[Item] = []
        for place, output in outputs:
            bare = output.model_copy(update={"url": None, "url_expires_at": None, "data_base64": None})
            items.append(
                {
                    "pk": _pk(state.id),
                    "sk": f"output#{place:06}#{output.id}",
                    "run": run,
                    "output": bare.model_dump_json(exclude={"url", "url_expires_at", "data_base64"}),
                    "expires": state.head["expires"],
                }
            )
            items.append(_asset_item(state, output))
        self._table.put_all(items)

    def finish(self, job_id: str, job: Job, *, run: str, webhook: bool) -> bool:
        """Write down how a run ended. Answers False where the job is not this run's any more: nothing is changed."""
        change = self._end(job_id, job, webhook=webhook, condition=_OURS, values={"run": run, **_OURS_VALUES})
        order = {"output_ids": [output.id for output in job.outputs]}
        return self._unless_changed(replace(change, assign={**change.assign, **order}))

    def give_back(self, job_id: str, *, run: str, counts: bool = True) -> bool:
        """Let another run have the job; its message is sent again by the caller.

        Args:
            counts: whether this was one of the runs the job has; not, if the worker was only shut down.
        """
        change = Update(
            pk=_pk(job_id),
            sk=_JOB,
            assign={"lease_until": now_s() + DISPATCH_S, "updated_at": now_text()},
            add=None if counts else {"runs": -1},
            remove=["run"],
            condition=_OURS,
            values={"run": run, **_OURS_VALUES},
        )
        return self._unless_changed(change)

    # The caretaker's part.

    def neglected(self, *, limit: int) -> Iterator[JobState]:
        """Jobs whose lease has ended, the longest ended first."""
        page = self._table.query(
            "#lease = :open AND #lease_until < :now", {"open": _OPEN, "now": now_s()}, index="leases", limit=limit
        )
        for key in page.items:
            head = self._table.get(key["pk"], key["sk"])
            if head is not None and (state := JobState(head)).lease_ended:
                yield state

    def renew(self, state: JobState, *, for_s: int) -> bool:
        """Give a neglected job another while, for one caretaker: the first one wins. Its lost run owns it no more."""
        change = Update(
            pk=_pk(state.id),
            sk=_JOB,
            assign={"lease_until": now_s() + for_s},
            remove=["run"] if state.status is JobStatus.RUNNING else [],
            condition="#lease_until = :seen AND #status = :status",
            values={"seen": state.head["lease_until"], "status": state.status.value},
        )
        return self._unless_changed(change)

    def fail(self, state: JobState, error: ComfyError, *, status: JobStatus | None = None) -> bool:
        """End a neglected job, unless something has happened to it meanwhile."""
        try:
            self._end_as(state, error, was=state.status, lease=state.head["lease_until"], status=status)
        except ConditionFailed:
            return False
        return True

    def webhook_sent(self, job_id: str) -> None:
        """The webhook queue has it: nothing is owed any more."""
        self._unless_changed(
            Update(
                pk=_pk(job_id),
                sk=_JOB,
                assign={},
                remove=["lease", "lease_until"],
                condition="attribute_exists(#document)",
            )
        )

    # How it is done.

    def _read(self, job_id: str, *, last: str) -> JobState | None:
        items = list(
            self._table.query_all(
                "#pk = :pk AND #sk BETWEEN :first AND :last", {"pk": _pk(job_id), "first": _JOB, "last": last}
            )
        )
        if not items or items[0]["sk"] != _JOB or items[0].get("expires", now_s()) < now_s():
            return None
        head, *rest = items
        outputs = tuple(
            Output.model_validate_json(item["output"])
            for item in rest
            if item["sk"].startswith("output#") and item["run"] == head.get("run")
        )
        preview = rest[-1] if rest and rest[-1]["sk"] == "preview" and rest[-1]["expires"] > now_s() else None
        return JobState(head, outputs, preview)

    def _lease_end(self) -> int:
        return int(time.time() + self._lease_s) + 1

    def _end_as(
        self,
        state: JobState,
        error: ComfyError,
        *,
        was: JobStatus,
        lease: int | None = None,
        status: JobStatus | None = None,
    ) -> JobState:
        """End a job that nobody runs."""
        job = state.document().model_copy(
            update={
                "status": status or status_of(error),
                "completed_at": datetime.now(UTC),
                "error": JobError.of(error, retryable=True if not isinstance(error, Canceled) else None),
                "outputs": (),
            }
        )
        condition = "#status = :was"
        values: dict[str, Any] = {"was": was.value}
        if lease is not None:
            condition += " AND #lease_until = :lease"
            values["lease"] = lease
        change = self._end(state.id, job, webhook=state.webhook is not None, condition=condition, values=values)
        return JobState(self._table.update(change), state.outputs)

    @staticmethod
    def _end(job_id: str, job: Job, *, webhook: bool, condition: str, values: Mapping[str, Any]) -> Update:
        assign: dict[str, Any] = {
            "status": job.status.value,
            "updated_at": now_text(),
            "completed_at": moment_text(job.completed_at or datetime.now(UTC)),
            "document": _stored(job),
        }
        remove = ["open_owner"]
        if webhook:  # owed until the webhook queue has it
            assign["lease_until"] = now_s() + DISPATCH_S
        else:
            remove += ["lease", "lease_until"]
        return Update(pk=_pk(job_id), sk=_JOB, assign=assign, remove=remove, condition=condition, values=values)

    def _unless_changed(self, change: Update) -> bool:
        try:
            self._table.update(change)
        except ConditionFailed:
            return False
        return True


def check_idempotency_key(key: str | None) -> str | None:
    """A key as the contract has it.

    Raises:
        InvalidRequest: it is too long, or no plain text.
    """
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise InvalidRequest("Idempotency-Key must have 1 to 255 printable ASCII characters; a UUID is best.")
    return key


def _pk(job_id: str) -> str:
    return f"job#{job_id}"


def _key_pk(owner: str, key: str) -> str:
    return f"idempotency#{owner}#{key}"


def _index_key(owner: str, created_id: str) -> Item:
    job_id = created_id.partition("#")[2]
    return {"pk": _pk(job_id), "sk": _JOB, "owner": owner, "created_id": created_id}


def _asset_item(state: JobState, output: Output) -> Item:
    bucket, _, key = (output.s3_uri or "").removeprefix("s3://").partition("/")
    return {
        "pk": f"asset#{output.id}",
        "sk": "asset",
        "id": output.id,
        "owner": state.owner,
        "kind": "output",
        "bucket": bucket,
        "key": key,
        "file_path": output.name,
        "content_type": output.content_type,
        "size_bytes": output.size_bytes,
        "hash": output.hash,
        "created_at": now_text(),
        "expires": state.head["expires"],
        "job_id": state.id,
    }


def _stored(job: Job) -> str:
    """The document of an ended job, without its outputs: they are items of their own."""
    bare = job.model_copy(update={"outputs": ()})
    if len(bare.model_dump_json().encode()) > MAX_DOCUMENT_BYTES:
        bare = shorten_job(bare, size=lambda some: len(some.model_dump_json().encode()), limit_bytes=MAX_DOCUMENT_BYTES)
    return json.dumps(bare.to_json(), ensure_ascii=False)


def _between_ms(first: str, second: str | None) -> int | None:
    if second is None:
        return None
    return round((datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds() * 1000)
