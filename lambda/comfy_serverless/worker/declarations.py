"""What the engine declares of its nodes, read while nothing of a job is in its sight: the owner of the next may see it.

Declarations have lists of files: of models, and of what lies in the input folder. What a job has brought is in them
while it runs. So they are read in a turn of their own between two jobs, once a start of ComfyUI, and again after a
while, because the operator's models come and go.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless.errors import DeadlineExceeded
from comfy_serverless.jobs.declarations import without_files
from comfy_serverless.worker.running import RunningJob, RunningJobs

if TYPE_CHECKING:
    from comfy_serverless.worker.protocols import Engine

#: How long what was read is told to the API, in seconds. Reading it takes ComfyUI a second or two.
READ_AGAIN_S: Final = 3600.0
#: The longest wait for a turn to read it for the API, in seconds; it is tried again with the next list.
_WAIT_S: Final = 120.0


@dataclass(slots=True)
class EngineDeclarations:
    """Those of a worker's engine. Thread-safe."""

    engine: Engine
    jobs: RunningJobs
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _of_start: int = -1
    _read_at: float = 0.0
    _object_info: dict[str, Any] | None = None

    def for_job(self, job: RunningJob, *, until: float) -> Mapping[str, Any]:
        """The declarations, for a job that is being prepared.

        Args:
            until: on the monotonic clock.

        Raises:
            EngineUnavailable: ComfyUI does not answer.
            DeadlineExceeded: the jobs before it have left no time.
            Canceled, WorkerStopped: the job was asked to end meanwhile.
        """
        known = self.read_already()
        return self._read(job, until=until) if known is None else known

    def read_already(self) -> Mapping[str, Any] | None:
        """The declarations, if they were read since ComfyUI has started; None otherwise."""
        return self._known(for_s=float("inf"))

    def newest(self) -> Mapping[str, Any]:
        """The declarations, for the API: read again if they are old. Raises ComfyError if there are none."""
        known = self._known(for_s=READ_AGAIN_S)
        nobody = RunningJob("", owner="")
        return self._read(nobody, until=time.monotonic() + _WAIT_S) if known is None else known

    def known(self) -> Mapping[str, Any] | None:
        """The declarations as they were read last; None if they were not yet. Nobody waits for them."""
        return self._known(for_s=float("inf"))

    def _known(self, *, for_s: float) -> dict[str, Any] | None:
        with self._lock:
            is_old = time.monotonic() - self._read_at > for_s
            return None if is_old or self._of_start != self.engine.starts else self._object_info

    def _read(self, job: RunningJob, *, until: float) -> dict[str, Any]:
        with self.jobs.turn(job, until=until), self.engine.hold_folders(_checking(job, until)):
            of_start = self.engine.starts
            object_info = without_files(self.engine.object_info_now(), self.engine.file_names())
        with self._lock:
            self._of_start, self._read_at, self._object_info = of_start, time.monotonic(), object_info
        return object_info


def _checking(job: RunningJob, until: float) -> Callable[[], None]:
    def check() -> None:
        job.check()
        if time.monotonic() >= until:
            raise DeadlineExceeded("another process had ComfyUI's folders until the job's time was over.")

    return check
