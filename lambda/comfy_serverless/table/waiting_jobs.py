"""Jobs that no worker has begun: what is written while they wait in a queue, are parked, or are to end where they are.

A parked job is one of paused batches: it has no message, and no keeper that would send one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_serverless.aws.dynamodb import ConditionFailed, now_s
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.table.columns import QUEUED, QUEUED_BATCH
from comfy_serverless.table.job_item import job_update
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.reader import JobReader

#: How long the caretaker leaves a job alone whose message is in the queue, at least.
IN_QUEUE_S = 60
#: The condition on a job that no worker has begun.
UNBEGUN = "attribute_not_exists(#run) AND #status IN (:queued, :running)"
UNBEGUN_VALUES = {"queued": JobStatus.QUEUED.value, "running": JobStatus.RUNNING.value}


class WaitingJobs(JobReader):
    """The part of `JobStore` that moves jobs in and out of queues."""

    def park(self, job_id: str, *, batches: frozenset[str]) -> frozenset[str] | None:
        """Park a job of paused batches: its message is gone, and it has no keeper until one of them is resumed.

        `batches` are those known to want it. Returns None if it is parked; else those that really want it, which are
        none if it must no longer be parked.
        """
        return self._hold(job_id, {"was_parked": True}, batches=batches, remove=["keeper", "keeper_due"])

    def leave(self, job_id: str, *, batches: frozenset[str]) -> frozenset[str] | None:
        """Mark a job of canceled batches: their keeper will end it. Returns as `park`."""
        return self._hold(job_id, {"status": JobStatus.CANCELING.value}, batches=batches)

    def _hold(
        self, job_id: str, assign: Mapping[str, Any], *, batches: frozenset[str], remove: Sequence[str] = ()
    ) -> frozenset[str] | None:
        change = job_update(
            job_id,
            assign=assign,
            remove=remove,
            condition=f"#batches = :seen AND {UNBEGUN}",
            values={"seen": set(batches), **UNBEGUN_VALUES},
        )
        try:
            self._table.update(change)
        except ConditionFailed as failure:
            standing = JobState.from_item(failure.item) if failure.item else None
            return standing.batches if standing is not None and standing.may_begin else frozenset()
        return None

    def unpark(self, job_id: str) -> None:
        """Write that the job's message was sent again: it waits from now on."""
        self._update_unbegun(job_id, sent_again(), remove=["was_parked"])

    def dispatched(self, job_id: str, *, is_batch: bool = False, for_s: int = IN_QUEUE_S) -> None:
        """Write that the queue has the job: it is its keeper while messages wait there, and for this long at least."""
        assign = {"keeper": QUEUED_BATCH if is_batch else QUEUED, "keeper_due": now_s() + for_s}
        self._update_unbegun(job_id, assign, remove=["was_parked", "is_held"])

    def _update_unbegun(self, job_id: str, assign: Mapping[str, Any], *, remove: Sequence[str]) -> None:
        change = job_update(job_id, assign=assign, remove=remove, condition=UNBEGUN, values=UNBEGUN_VALUES)
        self._table.try_update(change)


def sent_again() -> dict[str, Any]:
    """The columns of a job whose message is sent once more."""
    return {"keeper": QUEUED_BATCH, "keeper_due": now_s() + IN_QUEUE_S, "waits_since": now_s()}
