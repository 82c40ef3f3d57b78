"""Messages of jobs whose batch is paused or canceled: whoever meets one keeps it from being run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_serverless.batches.store import BatchStatus, BatchStore

if TYPE_CHECKING:
    from comfy_serverless.jobs.intake import QueuedJob
    from comfy_serverless.jobs.store.jobs import JobStore


def hold_back(jobs: JobStore, batches: BatchStore, source: QueuedJob) -> bool:
    """Park or cancel a job whose message has come, if its batch says so. Answers whether the message is done with."""
    batch = batches.get(source.batch_id) if source.batch_id is not None else None
    match batch.status if batch is not None else None:
        case BatchStatus.PAUSED:
            jobs.park(source.job_id)
        case BatchStatus.CANCELED:
            for state in jobs.many([source.job_id]).values():
                jobs.cancel_unbegun(state)
        case _:
            return False
    return True
