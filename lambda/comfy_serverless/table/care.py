"""Looks after neglected jobs: their worker or their message is lost, or their webhook is still owed.

If the `result.json` of a lost worker's job exists, the job ended as it says.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.dynamodb import now_s
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import WebhookQueue
from comfy_serverless.errors import Canceled, ComfyError, EngineCrashed, InvalidRequest, JobExpired
from comfy_serverless.jobs.document import Job, JobStatus
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.observability import Failures, emit_failure, log
from comfy_serverless.table.columns import OPEN, PUT_OFF_S, QUEUED, QUEUED_BATCH
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.jobs import BATCH_RETENTION_S, DISPATCH_S, QUEUE_RETENTION_S, JobStore
from comfy_serverless.table.turns import again_after_s
from comfy_serverless.table.waiting_jobs import IN_QUEUE_S
from comfy_serverless.table.workers import Workers

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: After the job queue was seen to be empty, a job that cannot be sent again may still be at a worker which has not
#: begun it yet: for as long as an invocation lasts.
MISSED_S = 15 * 60
#: How long a message may be where nobody sees it until its job is sent once more, in seconds.
HELD_S = 20 * 60
#: Of one round, so that a function's time is enough for it.
MAX_JOBS = 200


@dataclass(frozen=True, slots=True)
class Care:
    """Sends neglected jobs again, or ends them. Any number of callers may do so at once."""

    jobs: JobStore
    workers: Workers
    webhook_queue: WebhookQueue
    s3: S3Client

    def round(self) -> int:
        """Look after all neglected jobs; returns how many there were. A failure is raised after the others are done."""
        count = 0
        with Failures() as failures:
            for keeper in (OPEN, QUEUED, QUEUED_BATCH):
                # While messages wait, a job that has not begun waits with them. Else its message is lost, or invisible
                # for an hour because the worker that had it died before it could begin.
                if keeper != OPEN and self.workers.still_wait(is_batch=keeper == QUEUED_BATCH):
                    continue
                for state in self.jobs.neglected(limit=MAX_JOBS, keeper=keeper):
                    with failures.logged("a job could not be looked after", job_id=state.id):
                        try:
                            self.attend(state)
                        except Exception:
                            self._put_off(state)
                            raise
                    count += 1
        return count

    def attend(self, state: JobState) -> None:
        """Do what one neglected job needs; nothing if another caller was faster."""
        if state.is_over:
            if self.jobs.renew(state, for_s=DISPATCH_S):
                self.call_webhook(state)
            return
        if state.waits_in_queue and (self.workers.still_wait(is_batch=state.is_of_batch) or self._may_be_held(state)):
            return
        if (result := self._result(state)) is not None:
            self._finish(state, result)
            return
        match state.status:
            case JobStatus.CANCELING:
                lost = "; its worker was lost before it had confirmed" if state.runs else " before it had begun"
                self.end(state, Canceled(f"the job was canceled{lost}"))
            case JobStatus.QUEUED if is_too_old(state):
                error = JobExpired(
                    "no worker has begun the job for as long as its queue keeps messages: submit it again"
                )
                self.end(state, error, status=JobStatus.EXPIRED)
            case JobStatus.QUEUED if not state.is_rerunnable and not state.is_missed:
                self._await_message(state)
            case _ if not self._has_runs_left(state):
                self.end(state, _lost(state))
            case _ if not state.waits_in_queue or self.jobs.take_turn(state):
                self.send_again(state)

    def _may_be_held(self, state: JobState) -> bool:
        """Whether the job's message may wait invisibly. That is believed for a while.

        A job that cannot be sent again waits for as long as there are such messages. Another one is sent once more
        after `HELD_S`: the worker that had its message may have died before it could begin.
        """
        if not self.workers.may_hold(is_batch=state.is_of_batch):
            return False
        if state.is_held and state.is_rerunnable:
            return False
        self.jobs.renew(state, for_s=HELD_S, assign={"is_held": True})
        return True

    def call_webhook(self, state: JobState) -> None:
        """Have an ended job's webhook called, if it has one and that is still owed."""
        if state.has_webhook and state.keeper_due is not None:
            self.webhook_queue.send(state.id)
            self.jobs.webhook_sent(state.id)

    def send_undelivered(self, state: JobState, error: ComfyError) -> None:
        """Send a job that did not reach any worker again, some times, and then fail it with this error."""
        times = state.undelivered + 1
        if times >= self.jobs.max_runs or not state.is_rerunnable:
            self.end(state, error)
        else:
            self.send_again(state, assign={"undelivered": times})

    def _has_runs_left(self, state: JobState) -> bool:
        return state.runs < self.jobs.max_runs and state.is_rerunnable

    def _result(self, state: JobState) -> Job | None:
        """The job's end as its lost worker has stored it; None if the job must run again."""
        if state.runs == 0:
            return None
        try:
            standing = ResultFile(self.s3, S3Address.parse(state.result)).read()
        except InvalidRequest:
            log.exception("what stands in the place of the job's result is no result", job_id=state.id)
            return None
        if standing is None:
            return None
        error = standing.job.error
        is_cure_near = state.status is JobStatus.CANCELING or self._has_runs_left(state)
        return None if error is not None and error.retryable and is_cure_near else standing.job

    def _finish(self, state: JobState, job: Job) -> None:
        run = str(uuid.uuid4())
        if not self.jobs.take_over(state, run=run):
            return
        placed = list(enumerate(job.outputs))
        self.jobs.put_outputs(state, placed, run=run)
        places = [place for place, _ in placed]
        if self.jobs.finish(state.id, job, run=run, webhook=state.has_webhook, places=places, account=state.account):
            log.warning(
                "a job whose worker was lost ended as its result says", job_id=state.id, status=job.status.value
            )
            self.call_webhook(state)

    def _await_message(self, state: JobState) -> None:
        """Wait for the message of a job that cannot be sent again: it may be in the queue, or taken from it."""
        is_missed = state.keeper == QUEUED  # jobs of batches have no key
        self.jobs.renew(
            state, for_s=MISSED_S if is_missed else IN_QUEUE_S, assign={"keeper": QUEUED, "is_missed": is_missed}
        )

    def _put_off(self, state: JobState) -> None:
        """Put a job off, so that jobs that keep failing do not fill every round."""
        try:
            self.jobs.renew(state, for_s=PUT_OFF_S)
        except (ClientError, BotoCoreError):
            log.exception("a job could not be put off", job_id=state.id)

    def send_again(self, state: JobState, *, assign: Mapping[str, Any] | None = None) -> None:
        """Send a job to the workers once more, unless another caller was faster.

        Each time it is left alone for twice as long before it counts as neglected again.
        """
        times = state.sent_again + 1
        changes = {"keeper": OPEN, "sent_again": times, **(assign or {})}
        if not self.jobs.renew(state, for_s=DISPATCH_S, assign=changes):
            return
        log.warning("a job is sent to the workers again", job_id=state.id, runs=state.runs, times=times)
        self.workers.send(state.message, is_batch=state.is_of_batch)
        self.jobs.dispatched(state.id, is_batch=state.is_of_batch, for_s=again_after_s(times))

    def end(self, state: JobState, error: ComfyError, *, status: JobStatus | None = None) -> None:
        """End a job that no worker runs, unless it has changed meanwhile."""
        if self.jobs.fail(state, error, status=status):
            log.warning("a job nobody looked after was ended", job_id=state.id, code=error.code)
            if not isinstance(error, Canceled):
                emit_failure(error.code, error.kind)
            self.call_webhook(state)


def is_too_old(state: JobState) -> bool:
    """Whether a job that has not begun has been in its queue for as long as that keeps messages."""
    return waited_s(state) > (BATCH_RETENTION_S if state.is_of_batch else QUEUE_RETENTION_S)


def waited_s(state: JobState) -> float:
    """How long a job has waited in its queue by now, in seconds."""
    since = state.waits_since or datetime.fromisoformat(state.created_at).timestamp()
    return now_s() - since


def _lost(state: JobState) -> EngineCrashed:
    times = "once" if state.runs == 1 else f"{state.runs} times"
    why = "part of its `extra_data` is not kept"
    if state.release is not None:
        why = f"it checks the release {state.release}, and no other may run it"
    if state.runs == 0:
        return EngineCrashed(
            "no worker has begun the job, and its message is no longer in the queue. It cannot be sent again by "
            f"itself, since {why}: submit it again."
        )
    rest = "" if state.is_rerunnable else f"; it cannot be run again by itself, since {why}"
    return EngineCrashed(
        f"the worker that ran the job has vanished ({times}; no sign of life for the time of its lease, LEASE_S)"
        f"{rest}. Submit it again; the worker's log tells whether it ran out of memory or time.",
        details={"runs": state.runs},
    )
