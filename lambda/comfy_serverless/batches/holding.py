"""Messages of jobs whose batch is paused or canceled: whoever meets one keeps it from being run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_serverless.batches.store import BatchStatus, BatchStore

if TYPE_CHECKING:
    from comfy_serverless.jobs.intake import QueuedJob
    from comfy_serverless.jobs.store.jobs import JobStore


def hold_back(jobs: JobStore, batches: BatchStore, source: QueuedJob) -> bool:
    """Hold back a job whose message has come, if its batch is not to go on and no other wants it.

    Nothing of the job is read: whoever runs workflows may not.

    Returns:
        Whether the message is done with.
    """
    if source.batch_id is None or (batch := batches.get(source.batch_id)) is None:
        return False
    match batch.status:
        case BatchStatus.PAUSED:
            return jobs.park(source.job_id, batch=batch.id)
        case BatchStatus.CANCELED:
            return jobs.leave(source.job_id, batch=batch.id)
    return False
