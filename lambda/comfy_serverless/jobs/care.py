"""Looks after jobs that nobody looks after: whose worker is lost, whose message was, whose webhook is still owed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from comfy_serverless.errors import Canceled, ComfyError, EngineCrashed, JobExpired
from comfy_serverless.jobs.dispatch import JobQueue, WebhookQueue
from comfy_serverless.jobs.models import JobStatus
from comfy_serverless.jobs.store.job_state import JobState
from comfy_serverless.jobs.store.jobs import DISPATCH_S, OPEN, QUEUE_RETENTION_S, QUEUED, JobStore
from comfy_serverless.jobs.store.table import now_s
from comfy_serverless.observability import emit_failure, log

#: Of one round, so that a function's time is enough for it.
MAX_JOBS = 200


@dataclass(frozen=True, slots=True)
class Care:
    """Brings neglected jobs on their way again, or to their end. Any number may do so at once."""

    jobs: JobStore
    job_queue: JobQueue
    webhook_queue: WebhookQueue

    def round(self) -> int:
        """Look after all neglected jobs; answers how many there were."""
        count = 0
        for lease in (OPEN, QUEUED):
            # While messages wait, a job that has not begun waits with them. Else its message is lost, or invisible for
            # an hour because the worker that had it died before it could begin.
            if lease == QUEUED and self.job_queue.depth():
                break
            for state in self.jobs.neglected(limit=MAX_JOBS, lease=lease):
                self.attend(state)
                count += 1
        return count

    def attend(self, state: JobState) -> None:
        """Do what one neglected job needs. Does nothing where somebody else was faster."""
        if state.is_over:
            if self.jobs.renew(state, for_s=DISPATCH_S):
                self.call_webhook(state)
            return
        match state.status:
            case JobStatus.CANCELING:
                self._end(state, Canceled("the job was canceled; its worker was lost before it had confirmed"))
            case _ if state.head.get("lease") == QUEUED and self.job_queue.depth():
                return
            case JobStatus.QUEUED if _age_s(state) > QUEUE_RETENTION_S:
                error = JobExpired(
                    "no worker has begun the job for as long as its queue keeps messages: submit it again"
                )
                self._end(state, error, status=JobStatus.EXPIRED)
            case _ if state.runs >= self.jobs.max_runs or not state.head.get("is_rerunnable", True):
                self._end(state, _lost(state))
            case _:
                self._send_again(state)

    def call_webhook(self, state: JobState) -> None:
        """Have an ended job's webhook called, if it has one and that is still owed."""
        if state.webhook is not None and "lease_until" in state.head:
            self.webhook_queue.send(state.id)
            self.jobs.webhook_sent(state.id)

    def _send_again(self, state: JobState) -> None:
        if not self.jobs.renew(state, for_s=DISPATCH_S):
            return
        log.warning("a job is sent to the workers again", job_id=state.id, runs=state.runs)
        self.job_queue.send(state.id, state.head["request"])
        self.jobs.dispatched(state.id)

    def _end(self, state: JobState, error: ComfyError, *, status: JobStatus | None = None) -> None:
        if self.jobs.fail(state, error, status=status):
            log.warning("a job nobody looked after was ended", job_id=state.id, code=error.code)
            if not isinstance(error, Canceled):
                emit_failure(error.code)
            self.call_webhook(state)


def _age_s(state: JobState) -> float:
    return now_s() - datetime.fromisoformat(state.head["created_at"]).timestamp()


def _lost(state: JobState) -> EngineCrashed:
    times = "once" if state.runs == 1 else f"{state.runs} times"
    is_rerunnable = state.head.get("is_rerunnable", True)
    rest = "" if is_rerunnable else "; it cannot be run again by itself, since its API key is not kept"
    return EngineCrashed(
        f"the worker that ran the job has vanished ({times}; no sign of life for the time of its lease, LEASE_S)"
        f"{rest}. Submit it again; the worker's log tells whether it ran out of memory or time.",
        details={"runs": state.runs},
    )
