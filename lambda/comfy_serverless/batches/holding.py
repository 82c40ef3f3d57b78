"""Messages of jobs whose batches are paused or canceled: whoever meets one keeps it from being run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_serverless.batches.store import BatchStatus, BatchStore

if TYPE_CHECKING:
    from comfy_serverless.jobs.message import JobMessage
    from comfy_serverless.table.jobs import JobStore


def hold_back(jobs: JobStore, batches: BatchStore, source: JobMessage) -> bool:
    """Hold back a job whose message has come, if no batch that wants it goes on.

    Nothing of the job is read: whoever runs workflows may not. Which batches want it besides, the table says when it is
    told otherwise.

    Returns:
        Whether the message is done with.
    """
    wanted_by = frozenset({source.batch_id} if source.batch_id is not None else ())
    while wanted_by:
        statuses = {batch.status for batch in map(batches.get, wanted_by) if batch is not None}
        if BatchStatus.RUNNING in statuses or not statuses & {BatchStatus.PAUSED, BatchStatus.CANCELED}:
            return False
        hold = jobs.park if BatchStatus.PAUSED in statuses else jobs.leave
        standing = hold(source.job_id, batches=wanted_by)
        if standing is None:
            return True
        if standing == wanted_by:
            return False
        wanted_by = standing
    return False
