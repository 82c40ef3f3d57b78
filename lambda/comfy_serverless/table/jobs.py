"""Jobs in the table: their states, and which caller may change them.

    submit ──► queued ──begin──► running ──finish──► succeeded | failed | canceled
                 │                │   ▲
              cancel           cancel │ begin again: the worker was lost, or gave the job back
                 ▼                ▼   │
              canceled        canceling ──finish──► canceled (or what came first)

Every change is one conditional write. No state moves backwards, a run that has lost its job can write nothing, and an
ended job stays as it ended. A run owns its job for as long as its lease lasts; each report renews it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from comfy_serverless import moments
from comfy_serverless.aws.dynamodb import (
    NOT_THERE,
    ConditionFailed,
    Item,
    Table,
    Update,
    delete_write,
    not_there,
    now_s,
    now_text,
    put_write,
    update_write,
)
from comfy_serverless.aws.s3 import error_code
from comfy_serverless.errors import Canceled, ComfyError, IdempotencyKeyReuse, InvalidRequest
from comfy_serverless.jobs.document import Job, JobError, JobStatus, Output, Progress, status_of
from comfy_serverless.moments import moment_text
from comfy_serverless.observability import log
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.columns import OPEN, QUEUED_BATCH
from comfy_serverless.table.job_item import (
    IDEMPOTENCY,
    JOB,
    Preview,
    idempotency_item,
    idempotency_pk,
    job_pk,
    job_update,
    named_outputs,
    output_item,
    stored_document,
)
from comfy_serverless.table.job_state import Begun, Claim, JobExists, JobState, LeaseLost, NewJob, UsedForAnother
from comfy_serverless.table.shown import shown_json
from comfy_serverless.table.turns import Turns
from comfy_serverless.table.usage_items import Account, counted
from comfy_serverless.table.waiting_jobs import IN_QUEUE_S, UNBEGUN, UNBEGUN_VALUES, WaitingJobs, sent_again
from comfy_serverless.table.webhook_item import WEBHOOK, webhook_pk

#: How long a submit may take between the table and the queue; then the caretaker looks after it.
DISPATCH_S = 60
#: How long a message may wait in the job queue and in the batch queue: `MessageRetentionPeriod` in template.yaml.
QUEUE_RETENTION_S, BATCH_RETENTION_S = 4 * 24 * 3600, 14 * 24 * 3600
_FREE = "#status = :queued OR (#status = :running AND (attribute_not_exists(#run) OR #keeper_due < :now))"
#: After these it is certain that a transaction has written nothing.
_NOTHING_WRITTEN = frozenset({"TransactionCanceledException", "AccessDeniedException"})
_OURS = "#run = :run AND #status IN (:running, :canceling)"
_OURS_VALUES = {"running": JobStatus.RUNNING.value, "canceling": JobStatus.CANCELING.value}


class JobStore(WaitingJobs):
    """The jobs of one table: read as `JobReader` says, and changed. Thread-safe."""

    def __init__(self, table: Table, *, lease_s: float, max_runs: int, release_version: str = "") -> None:
        super().__init__(table)
        self._lease_s = lease_s
        self._release_version = release_version  # of the workers that begin jobs here
        self.max_runs = max_runs  # how often a job is run before it fails for good
        self._turns = Turns(table, self.read_alone)

    # The API's part.

    def submit(self, job: NewJob) -> JobState:
        """Write a job, its idempotency key and its webhook: all or none.

        Raises:
            JobExists: there is a job of this id.
            IdempotencyKeyReuse: the key was used within the last 24 hours.
        """
        state = job.waiting(keeper=OPEN, keeper_due=now_s() + DISPATCH_S)
        writes = [put_write(state.to_item(), condition=NOT_THERE, values=not_there())]
        if job.idempotency_key:
            key = idempotency_item(job.owner, job.idempotency_key)
            writes.append(put_write(key, condition=NOT_THERE, values=not_there()))
        if job.webhook:
            writes.append(put_write(job.webhook.to_item(job.job_id, expires=state.expires)))
        try:
            self._table.transact(writes)
        except ConditionFailed as failure:
            if failure.index == 0:
                raise JobExists(job.job_id) from None
            raise IdempotencyKeyReuse(
                "this Idempotency-Key has been used within the last 24 hours: the job it made is in GET /api/v2/jobs. "
                "To submit another, send another key."
            ) from None
        return state

    def submit_of_batch(self, job: NewJob) -> JobState:
        """Write a job of a batch, or that this batch wants it too, before it is sent. Returns it as it is.

        Raises:
            UsedForAnother: the job of this id was made of another request, and stays as it is.
            JobExists: another owner has a job of this id.
        """
        state = job.waiting(keeper=QUEUED_BATCH, keeper_due=now_s() + IN_QUEUE_S)
        try:
            self._table.put(state.to_item(), condition=NOT_THERE, values=not_there())
        except ConditionFailed:
            return self._join(job)
        return state

    def _join(self, job: NewJob) -> JobState:
        """Add a batch to a job: the same line was in another batch, or this one is read once more."""
        condition, values = f"attribute_exists(#batches) AND #owner = :owner AND {UNBEGUN}", {"owner": job.owner}
        if job.asked_sha256 is not None:
            # The very same line asks for the same, whatever the release that first read it made of it.
            condition += " AND (attribute_not_exists(#asked_sha256) OR #asked_sha256 = :asked OR #request = :request"
            condition += ")" if job.line is None else " OR #line = :line)"
            values |= {"asked": job.asked_sha256, "request": job.request_uri}
            values |= {} if job.line is None else {"line": job.line}
        change = job_update(
            job.job_id,
            assign=sent_again(),
            add={"batches": {str(job.batch)}},
            remove=["was_parked"],  # it is sent, whatever is wanted of the other batch
            condition=condition,
            values={**values, **UNBEGUN_VALUES},
        )
        try:
            return JobState.from_item(self._table.update(change))
        except ConditionFailed as failure:
            if not failure.item:
                return self.submit_of_batch(job)
            standing = JobState.from_item(failure.item)
            if standing.owner != job.owner:
                raise JobExists(job.job_id) from None
            is_same_line = standing.request == job.request_uri or (job.line is not None and standing.line == job.line)
            if standing.is_of_another(job.asked_sha256) and not is_same_line:
                raise UsedForAnother(job.job_id) from None
            return standing

    def withdraw(self, job: NewJob) -> None:
        """Take back a submit that has not reached the queue: no job, and the idempotency key is free again."""
        writes = [delete_write(job_pk(job.job_id), JOB, condition="#runs = :none", values={"none": 0})]
        if job.idempotency_key:
            writes.append(delete_write(idempotency_pk(job.owner, job.idempotency_key), IDEMPOTENCY))
        if job.webhook:
            writes.append(delete_write(webhook_pk(job.job_id), WEBHOOK))
        self._table.transact(writes)

    def cancel(self, state: JobState) -> JobState:
        """Ask a job to end, at once if it has not begun. Returns it as it is then; an ended job stays as it is."""
        while not state.is_over and state.status is not JobStatus.CANCELING:
            try:
                if state.run is None:
                    self._end_as(state, Canceled("the job was canceled before it had begun"), was=state.status)
                    return replace(self.read_alone(state.id) or state, outputs=state.outputs)
                change = job_update(
                    state.id,
                    assign={"status": JobStatus.CANCELING.value, "updated_at": now_text()},
                    condition="#status = :running",
                    values={"running": JobStatus.RUNNING.value},
                )
                return JobState.from_item(self._table.update(change), outputs=state.outputs)
            except ConditionFailed:
                newer = self.read(state.id)
                if newer is None:
                    return state
                state = newer
        return state

    def cancel_unbegun(self, state: JobState) -> bool:
        """End a job that has not begun. Returns False if it has: then it is not changed."""
        if not state.is_unbegun:
            return False
        try:
            error = Canceled("its batch was canceled before the job had begun")
            self._end_as(state, error, was=state.status, batches=state.batches)
        except ConditionFailed:
            return False
        return True

    # The worker's part.

    def begin(self, job_id: str, *, run: str) -> Begun:
        """Make a waiting job this run's. `run` names this run, and no other."""
        now = now_s()
        change = job_update(
            job_id,
            assign={
                "status": JobStatus.RUNNING.value,
                "run": run,
                "keeper": OPEN,
                "keeper_due": self._lease_end(),
                "started_at": now_text(),
                "updated_at": now_text(),
                **({"release_version": self._release_version} if self._release_version else {}),
            },
            remove=[] if self._release_version else ["release_version"],
            add={"runs": 1},
            condition=_FREE,
            values={"queued": JobStatus.QUEUED.value, "running": JobStatus.RUNNING.value, "now": now},
        )
        try:
            state = JobState.from_item(self._table.update(change))
        except ConditionFailed as failure:
            if not failure.item:
                return Begun(Claim.LEAVE)  # deleted, or taken back
            state = JobState.from_item(failure.item)
            if state.run == run and state.status is JobStatus.RUNNING:
                # It was ours at the first try; only the response was lost, and the SDK has asked again.
                return Begun(Claim.RUN, is_last=state.runs >= self.max_runs, state=state)
            is_free = state.run is None or state.lease_ended
            claim = Claim.CANCELED if state.status is JobStatus.CANCELING and is_free else Claim.LEAVE
            return Begun(claim, state=state)
        return Begun(Claim.RUN, is_last=state.runs >= self.max_runs, state=state)

    def report(self, job_id: str, *, run: str, progress: Progress | None) -> JobStatus:
        """Write how far a run is, and that it lives. Returns the job's state: `canceling` asks for its end.

        Raises LeaseLost if the job is no longer this run's.
        """
        assign: dict[str, Any] = {"keeper_due": self._lease_end()}
        if progress is not None:
            assign["progress_json"] = progress.model_dump_json()
        change = job_update(job_id, assign=assign, condition=_OURS, values={"run": run, **_OURS_VALUES})
        try:
            return JobState.from_item(self._table.update(change)).status
        except ConditionFailed:
            raise LeaseLost(job_id) from None

    def put_preview(self, job_id: str, *, node_id: str, content_type: str, data_base64: str) -> None:
        """Keep the newest preview, until it is an hour old."""
        preview = Preview(node_id=node_id, content_type=content_type, data_base64=data_base64)
        self._table.put(preview.to_item(job_id))

    def put_outputs(self, state: JobState, outputs: Sequence[tuple[int, Output]], *, run: str) -> None:
        """Commit outputs, each with its place among all: as part of the job, and as an asset."""
        items: list[Item] = []
        for place, output in outputs:
            items.append(output_item(state, output, place=place, run=run))
            asset = Asset.of_output(output, owner=state.owner, job_id=state.id, expires=state.expires)
            items.append(asset.to_item())
        self._table.put_all(items)

    def finish(
        self, job_id: str, job: Job, *, run: str, webhook: bool, places: Sequence[int], account: Account | None = None
    ) -> bool:
        """Write how a run ended. Returns False, and changes nothing, if the job is no longer this run's.

        Args:
            places: those with which the job's outputs were put, in their order.
            account: whom it is counted for, once; None for nobody.
        """
        ours = {"run": run, **_OURS_VALUES}
        change = self._end(job_id, job, webhook=webhook, outputs=job.outputs, condition=_OURS, values=ours)
        # As text: some thousand outputs must leave room in the item.
        order = {"output_places": ",".join(map(str, places))}
        if (names := named_outputs(job)) is not None:
            order["output_names"] = names
        return self._try_end(replace(change, assign={**change.assign, **order}), job, account)

    def give_back(self, job_id: str, *, run: str, counts: bool = True, for_s: int = DISPATCH_S) -> bool:
        """Let another run have the job; its message is sent again by the caller, or by the caretaker after a while.

        Args:
            counts: whether this was one of the runs the job has; not, if the worker could not even try.
            for_s: how long the caretaker leaves it alone.
        """
        change = job_update(
            job_id,
            assign={"keeper": OPEN, "keeper_due": now_s() + for_s, "updated_at": now_text(), "last_run": run},
            add=None if counts else {"runs": -1},
            remove=["run"],
            condition=_OURS,
            values={"run": run, **_OURS_VALUES},
        )
        try:
            self._table.update(change)
        except ConditionFailed as failure:
            # No run's: given back at the first try, and only the response was lost. Else another message does no harm.
            standing = JobState.from_item(failure.item) if failure.item else None
            return standing is not None and standing.status is JobStatus.RUNNING and standing.run is None
        return True

    # The caretaker's part.

    def renew(self, state: JobState, *, for_s: int, assign: Mapping[str, Any] | None = None) -> bool:
        """Give a neglected job more time, for the first caretaker that asks. Its lost run no longer owns it.

        `assign` are columns to set with it.
        """
        changes: dict[str, Any] = {"keeper_due": now_s() + for_s, **(assign or {})}
        lost_run = state.run if state.status is JobStatus.RUNNING else None
        if lost_run is not None:
            changes["last_run"] = lost_run
        return self._renew(state, changes, remove=["run"] if lost_run is not None else [])

    def take_turn(self, state: JobState) -> bool:
        """Whether a job whose message is gone may be sent again now: see `table.turns`."""
        return self._turns.take(state)

    def take_over(self, state: JobState, *, run: str) -> bool:
        """Make a neglected job that has begun this run's, for the first that asks, to finish it. It does not count."""
        return self._renew(state, {"run": run, "keeper": OPEN, "keeper_due": self._lease_end()})

    def _renew(self, state: JobState, assign: Mapping[str, Any], *, remove: Sequence[str] = ()) -> bool:
        change = job_update(
            state.id,
            assign=assign,
            remove=remove,
            condition="#keeper_due = :seen AND #status = :status",
            values={"seen": state.keeper_due, "status": state.status.value},
        )
        return self._table.try_update(change)

    def fail(self, state: JobState, error: ComfyError, *, status: JobStatus | None = None) -> bool:
        """End a neglected job, unless it has changed meanwhile."""
        try:
            self._end_as(state, error, was=state.status, due=state.keeper_due, status=status)
        except ConditionFailed:
            return False
        return True

    def refuse(self, state: JobState, job: Job) -> bool:
        """End a job that must not begin, as its document says. Returns False if it has begun or ended."""
        if not state.is_unbegun:
            return False
        change = self._end(
            state.id,
            job,
            webhook=state.webhook is not None,
            outputs=(),
            condition="#status = :was AND attribute_not_exists(#run)",
            values={"was": state.status.value},
        )
        return self._try_end(change, job, state.account)

    def webhook_sent(self, job_id: str) -> None:
        """Write that the webhook queue has the job: its webhook is no longer owed."""
        self._table.try_update(
            job_update(job_id, assign={}, remove=["keeper", "keeper_due"], condition="attribute_exists(#document_json)")
        )

    # How it is done.

    def _lease_end(self) -> int:
        return now_s() + math.ceil(self._lease_s) + 1

    def _end_as(
        self,
        state: JobState,
        error: ComfyError,
        *,
        was: JobStatus,
        due: int | None = None,
        status: JobStatus | None = None,
        batches: frozenset[str] = frozenset(),
    ) -> None:
        """End a job that no worker runs, and that only these batches want. Raises ConditionFailed if it has changed."""
        job = state.whole_document().model_copy(
            update={
                "status": status or status_of(error),
                "completed_at": moments.now(),
                "error": JobError.of(error, retryable=True if not isinstance(error, Canceled) else None),
                "outputs": (),
            }
        )
        condition = "#status = :was"
        if state.run is None:
            condition += " AND attribute_not_exists(#run)"
        values: dict[str, Any] = {"was": was.value}
        if batches:
            condition += " AND #batches = :batches"
            values["batches"] = set(batches)
        if due is not None:
            condition += " AND #keeper_due = :due"
            values["due"] = due
        made = None if state.runs else ()  # by lost runs: only the items of the outputs say which
        webhook = state.has_webhook
        change = self._end(state.id, job, webhook=webhook, outputs=made, condition=condition, values=values)
        self._write_end(change, job, state.account)

    def _try_end(self, change: Update, job: Job, account: Account | None) -> bool:
        try:
            self._write_end(change, job, account)
        except ConditionFailed:
            return False
        return True

    def _write_end(self, change: Update, job: Job, account: Account | None) -> None:
        """Write the end of a job, and count it: both or none, so that each job counts once.

        Where the table refuses both for another cause than the job's own condition, as for a role without the right to
        count, or for ever busy counters, the end is written alone: too small a sum costs less than a lost outcome.
        """
        counters = [] if account is None else counted(job.id, job, account)
        try:
            self._table.transact([update_write(change), *counters])
        except ClientError as error:
            if not counters or error_code(error) not in _NOTHING_WRITTEN:
                raise
            log.exception("a job's end is not counted: the table refused it with its counters", job_id=job.id)
            self._table.update(change)

    @staticmethod
    def _end(
        job_id: str,
        job: Job,
        *,
        webhook: bool,
        outputs: Sequence[Output] | None,
        condition: str,
        values: Mapping[str, Any],
    ) -> Update:
        assign: dict[str, Any] = {
            "status": job.status.value,
            "updated_at": now_text(),
            "completed_at": moment_text(job.completed_at or moments.now()),
            "document_json": stored_document(job),
            "shown_json": shown_json(job, outputs),
        }
        remove = ["open_owner"]
        if webhook:  # owed until the webhook queue has it
            assign |= {"keeper": OPEN, "keeper_due": now_s() + DISPATCH_S}
        else:
            remove += ["keeper", "keeper_due"]
        return job_update(job_id, assign=assign, remove=remove, condition=condition, values=values)


def check_idempotency_key(key: str | None) -> str | None:
    """Check a key by the contract. Raises InvalidRequest if it is too long, or no plain text."""
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise InvalidRequest("Idempotency-Key must have 1 to 255 printable ASCII characters; a UUID is best.")
    return key
