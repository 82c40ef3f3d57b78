"""Removes what jobs have left in the engine, in a thread of its own.

No reply waits for it, and no upload waits while the engine hangs.
"""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from comfy_serverless.observability import log

if TYPE_CHECKING:
    from comfy_serverless.worker.leftovers import FilesInUse, Leftovers
    from comfy_serverless.worker.protocols import Engine
    from comfy_serverless.worker.record import JobRecord
    from comfy_serverless.worker.running import RunningJobs


class Tidying:
    """That thread, and what it must know."""

    def __init__(self, engine: Engine, jobs: RunningJobs, in_use: FilesInUse) -> None:
        self._engine = engine
        self._jobs = jobs
        self._in_use = in_use
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tidying")

    def close(self) -> None:
        """End the thread, once it has tidied up."""
        self._thread.shutdown(wait=True)

    def after(self, record: JobRecord, leftovers: Leftovers, prompt_id: str) -> None:
        """Remove what a job has left; what could not be delivered stays, as long as there is room."""
        try:
            self._thread.submit(contextvars.copy_context().run, self._discard, record, leftovers, prompt_id)
        except RuntimeError:  # the worker was closed
            self._discard(record, leftovers, prompt_id)

    def _discard(self, record: JobRecord, leftovers: Leftovers, prompt_id: str) -> None:
        # The same job must not begin meanwhile: its files would be removed with those of this one.
        with self._jobs.not_begun(record.job_id):
            may_go = leftovers.take()
            if may_go or record.has_run:
                self._engine.discard(prompt_id, apart_as=record.job_id if may_go else None)
            if record.has_run and not may_go:
                self._in_use.keep(record.job_id, self._engine.kept_bytes(record.job_id))
        for job_id in self._in_use.beyond():
            self._give_up(job_id)

    def _give_up(self, job_id: str) -> None:
        with self._jobs.not_begun(job_id):
            size_bytes = self._in_use.let_go(job_id)
            if size_bytes is not None:
                self._engine.discard_kept(job_id)
                log.warning("outputs that could not be stored are removed", job_id=job_id, size_bytes=size_bytes)
