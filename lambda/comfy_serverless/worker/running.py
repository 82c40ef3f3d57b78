"""The jobs that a worker has in hand: one at a time of each id, each of them can be stopped, all of them drained."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from comfy_serverless.errors import Canceled, ComfyError, DeadlineExceeded, WorkerStopped

#: Between two tries to stop a prompt that is just about to be submitted, and for how long, in seconds.
_AGAIN_S, _AGAIN_FOR_S = 0.01, 2.0


class Phase(Enum):
    """Where a job is. What is asked of it while it prepares is heard before the engine gets it."""

    PREPARING = "preparing"
    EXECUTING = "executing"
    DELIVERING = "delivering"
    ENDED = "ended"


@dataclass(eq=False, slots=True)
class RunningJob:
    """A job in hand.

    Attributes:
        job_id: whose it is; not known before its request has been read.
        prompt_id: what stops it in the engine.
        stop_error: how it will have ended if it can be stopped; the first reason counts.
        is_executing: whether the engine has reported progress of it.
    """

    prompt_id: str
    job_id: str | None = None
    phase: Phase = Phase.PREPARING
    stop_error: ComfyError | None = None
    is_executing: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise if it is to end.

        Raises:
            Canceled, WorkerStopped: as asked.
        """
        if self.stop_error is not None:
            raise self.stop_error

    def stop(self, error: ComfyError, stop_prompt: Callable[[str], bool]) -> bool:
        """Ask it to end. From any thread; answers whether there is still time.

        Args:
            stop_prompt: asks the engine; answers whether the prompt was there.
        """
        self.stop_error = self.stop_error or error
        give_up_at = time.monotonic() + _AGAIN_FOR_S
        while self.phase is Phase.EXECUTING and not stop_prompt(self.prompt_id) and time.monotonic() < give_up_at:
            time.sleep(_AGAIN_S)  # it is on its way to the engine, or just leaving it
        return self.phase in (Phase.PREPARING, Phase.EXECUTING)


class RunningJobs:
    """All jobs of one worker, whichever threads they run in."""

    def __init__(self, stop_prompt: Callable[[str], bool]) -> None:
        self._stop_prompt = stop_prompt
        self._change = threading.Condition()
        self._jobs: list[RunningJob] = []
        self._claimed: set[str] = set()
        self._line: list[RunningJob] = []
        self._is_draining = False

    @contextmanager
    def one_more(self, prompt_id: str) -> Iterator[RunningJob]:
        """A job from its beginning to its end."""
        job = RunningJob(prompt_id)
        with self._change:
            if self._is_draining:
                job.stop_error = _stopping()
            self._jobs.append(job)
        try:
            yield job
        finally:
            with self._change:
                job.phase = Phase.ENDED
                self._jobs.remove(job)
                if job.job_id is not None:
                    self._claimed.discard(job.job_id)
                self._change.notify_all()

    def claim(self, job: RunningJob, job_id: str, *, timeout_s: float) -> bool:
        """Make the id this job's own. While another job has it, this waits for its end.

        Returns:
            False when it could not have it in time, or is to end.
        """
        with self._change:
            free = self._change.wait_for(
                lambda: job_id not in self._claimed or job.stop_error is not None,
                timeout=min(max(0.0, timeout_s), threading.TIMEOUT_MAX),
            )
            if not free or job.stop_error is not None:
                return False
            self._claimed.add(job_id)
            job.job_id = job_id
            return True

    @contextmanager
    def turn(self, job: RunningJob, *, until: float) -> Iterator[bool]:
        """The job may be given to the engine, from `with` to the end of the block. First come, first served.

        One more than executes, so that the engine never waits for us; no more, so that none waits there for long, and
        not before that one executes, so that they do not change places.

        Args:
            until: when its turn comes too late, on the monotonic clock.

        Yields:
            Whether it is the first: the engine has nothing else to do.

        Raises:
            Canceled, WorkerStopped: it was asked to end meanwhile.
            DeadlineExceeded: its turn has not come in time.
        """
        with self._change:
            self._line.append(job)
        try:
            with self._change:
                timeout_s = min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX)
                is_in_time = self._change.wait_for(
                    lambda: self._may_go(job) or job.stop_error is not None, timeout=timeout_s
                )
                is_first = self._line[0] is job
            job.check()
            if not is_in_time:
                raise DeadlineExceeded("the jobs before it on this worker have left it no time.")
            yield is_first
        finally:
            with self._change:
                self._line.remove(job)
                self._change.notify_all()

    def has_begun(self, job: RunningJob) -> None:
        """The engine executes a job: the next one may be given to it."""
        if not job.is_executing:
            with self._change:
                job.is_executing = True
                self._change.notify_all()

    def _may_go(self, job: RunningJob) -> bool:
        place = self._line.index(job)
        return place == 0 or (place == 1 and self._line[0].is_executing)

    @contextmanager
    def not_begun(self, job_id: str) -> Iterator[None]:
        """Nobody begins a job of this id meanwhile; who has begun goes on. For one thread only."""
        with self._change:
            is_ours = job_id not in self._claimed
            self._claimed.add(job_id)
        try:
            yield
        finally:
            if is_ours:
                with self._change:
                    self._claimed.discard(job_id)
                    self._change.notify_all()

    def cancel(self, job_id: str) -> bool:
        """Ask a job to end; answers False when there is none, or it is too late."""
        with self._change:
            job = next((job for job in self._jobs if job.job_id == job_id), None)
        return job is not None and self.stop(job, Canceled("the job was canceled on request"))

    def stop(self, job: RunningJob, error: ComfyError) -> bool:
        """Ask a job to end with this error; answers False when it is too late. From any thread."""
        is_heard = job.stop(error, self._stop_prompt)
        with self._change:
            self._change.notify_all()  # it may be waiting for its id
        return is_heard

    def drain(self, *, finish_s: float, stop_s: float) -> bool:
        """Begin nothing any more, let the running jobs finish, then stop them.

        Args:
            finish_s: how long they may take to finish by themselves.
            stop_s: how long they may take to stop, and to deliver what they have made.

        Returns:
            Whether all have ended.
        """
        with self._change:
            self._is_draining = True
            if self._change.wait_for(lambda: not self._jobs, timeout=finish_s):
                return True
            jobs = list(self._jobs)
        for job in jobs:
            self.stop(job, _stopping())
        with self._change:
            return self._change.wait_for(lambda: not self._jobs, timeout=stop_s)


def _stopping() -> WorkerStopped:
    return WorkerStopped("the worker is being stopped, and the job with it: send it again")
