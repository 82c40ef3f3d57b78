"""Whether what a job has made may be removed: once all of it is delivered and the reply is made, never before."""

from __future__ import annotations

import threading
from collections import Counter


class FilesInUse:
    """The jobs whose kept files are needed: those in hand, and those of which something could not be delivered."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: Counter[str] = Counter()
        #: For the jobs that have run: whether the last try could deliver all it made.
        self.is_complete: dict[str, bool] = {}


class Leftovers:
    """The kept files of one job, the same in every delivery.

    They may be removed only if all were delivered: until one try can, the files of all tries stay.
    """

    def __init__(self, in_use: FilesInUse, *, job_id: str) -> None:
        self._in_use = in_use
        self._job_id = job_id
        self._is_taken = False
        with in_use.lock:
            in_use.users[job_id] += 1

    def begin(self) -> None:
        """Note that the job is about to run: from now on there may be something to remove."""
        with self._in_use.lock:
            self._in_use.is_complete.setdefault(self._job_id, True)

    def settle(self, *, is_complete: bool) -> None:
        """Note whether all could be delivered. Otherwise the files stay, and another try need not make them again."""
        with self._in_use.lock:
            self._in_use.is_complete[self._job_id] = is_complete

    def take(self) -> bool:
        """Whether the files may be removed now; False the second time."""
        in_use, job_id = self._in_use, self._job_id
        with in_use.lock:
            if self._is_taken:
                return False
            self._is_taken = True
            in_use.users[job_id] -= 1
            if in_use.users[job_id] > 0 or not in_use.is_complete.get(job_id, True):
                return False
            del in_use.users[job_id]
            return in_use.is_complete.pop(job_id, None) is not None
