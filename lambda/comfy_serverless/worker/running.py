"""The jobs that a worker has in hand: one at a time of each id; each can be stopped, and all can be drained."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from comfy_serverless.errors import Canceled, ComfyError, DeadlineExceeded, WorkerStopped

#: The time between two tries to stop a prompt that is about to be submitted, and for all tries, in seconds.
_AGAIN_S, _AGAIN_FOR_S = 0.01, 2.0


class Phase(Enum):
    """The phase a job is in. A stop while it prepares takes effect before the engine gets the job."""

    PREPARING = "preparing"
    EXECUTING = "executing"
    DELIVERING = "delivering"
    ENDED = "ended"


@dataclass(eq=False, slots=True)
class RunningJob:
    """A job in hand.

    Attributes:
        job_id: its id; not known before its request has been read.
        prompt_id: the prompt that stops it in the engine.
        owner: jobs of different owners are never in the engine at the same time.
        may_overlap: whether the next job of the owner may be in the engine while this one executes.
        stop_error: the error it ends with if it can be stopped; the first reason counts.
        is_executing: whether the engine has reported progress of it.
    """

    prompt_id: str
    owner: str
    job_id: str | None = None
    may_overlap: bool = False
    phase: Phase = Phase.PREPARING
    stop_error: ComfyError | None = None
    is_executing: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise Canceled or WorkerStopped if the job was asked to end so."""
        if self.stop_error is not None:
            raise self.stop_error

    def stop(self, error: ComfyError, stop_prompt: Callable[[str], bool]) -> bool:
        """Ask the job to end, from any thread; return whether there is still time.

        `stop_prompt` asks the engine, and returns whether the prompt was there.
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
    def one_more(self, prompt_id: str, *, owner: str) -> Iterator[RunningJob]:
        """Have one more job in hand, from its beginning to its end."""
        job = RunningJob(prompt_id, owner)
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
        """Give the id to this job, after the end of another job that has it.

        Returns False if the id was not free in time, or if this job must end.
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

    def is_in_hand(self, job_id: str) -> bool:
        """Whether a job of this id is running here."""
        with self._change:
            return job_id in self._claimed

    @contextmanager
    def turn(self, job: RunningJob, *, until: float) -> Iterator[bool]:
        """Let the job have the engine, from `with` to the end of the block. First come, first served.

        At most two jobs are in the engine: the one that executes and the next one, so that the engine never waits for
        us and no job waits there for long. The second is let in once the first executes, so that their order holds, and
        only if both are of one owner and neither may come upon the other's files. Yields whether the job is the first:
        the engine has nothing else to do.

        Raises:
            Canceled, WorkerStopped: the job was asked to end meanwhile.
            DeadlineExceeded: its turn has not come by `until`, on the monotonic clock.
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
        """Note that the engine executes a job: the next one may be given to it."""
        if not job.is_executing:
            with self._change:
                job.is_executing = True
                self._change.notify_all()

    def _may_go(self, job: RunningJob) -> bool:
        place, first = self._line.index(job), self._line[0]
        is_alike = first.owner == job.owner and first.may_overlap and job.may_overlap
        return place == 0 or (place == 1 and first.is_executing and is_alike)

    @contextmanager
    def not_begun(self, job_id: str) -> Iterator[None]:
        """Keep jobs of this id from beginning meanwhile; one that has begun goes on. For one thread only."""
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
        """Ask a job to end; return False if there is none, or if it is too late."""
        with self._change:
            job = next((job for job in self._jobs if job.job_id == job_id), None)
        return job is not None and self.stop(job, Canceled("the job was canceled on request"))

    def stop(self, job: RunningJob, error: ComfyError) -> bool:
        """Ask a job to end with this error, from any thread; return False if it is too late."""
        is_heard = job.stop(error, self._stop_prompt)
        with self._change:
            self._change.notify_all()  # it may be waiting for its id
        return is_heard

    def drain(self, *, finish_s: float, stop_s: float) -> bool:
        """Begin no more jobs; return whether all have ended.

        They get `finish_s` to finish by themselves, then `stop_s` to stop and to deliver their outputs.
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
