"""Whether what a job has made may be removed: once all of it is delivered and the reply is made, never before.

What could not be delivered stays, so that another try need not make it again, and as long as there is room: the files
of the oldest jobs go first, never those of a job in hand.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections import Counter

#: Of the disk, unless a setting says how many bytes: models may take half of it (MODEL_STORE_BYTES).
_SHARE_OF_DISK = 8


def room_for_kept(limit_bytes: int | None) -> int:
    """How many bytes may be kept: as the setting KEPT_OUTPUT_BYTES says, or else by the size of the disk."""
    if limit_bytes is not None:
        return limit_bytes
    disk = os.statvfs(tempfile.gettempdir())
    return disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK


class FilesInUse:
    """The jobs whose kept files are needed: those in hand, and those of which something could not be delivered.

    Args:
        limit_bytes: how much may be kept of jobs that are not in hand.
    """

    def __init__(self, *, limit_bytes: float = math.inf) -> None:
        self.limit_bytes = limit_bytes
        self.lock = threading.Lock()
        self.users: Counter[str] = Counter()
        #: For the jobs that have run: whether the last try could deliver all it made.
        self.is_complete: dict[str, bool] = {}
        #: The size in bytes of what is kept of jobs, the oldest first.
        self.kept: dict[str, int] = {}

    def keep(self, job_id: str, size_bytes: int) -> None:
        """Note how much is kept of a job. One of which nothing is kept is forgotten, unless it is in hand."""
        with self.lock:
            self.kept.pop(job_id, None)
            if size_bytes or self.users[job_id]:
                self.kept[job_id] = size_bytes
                return
            del self.users[job_id]
            self.is_complete.pop(job_id, None)

    def beyond(self) -> list[str]:
        """The jobs whose files must go, so that those of the others have room."""
        with self.lock:
            going: list[str] = []
            over_bytes = sum(self.kept.values()) - self.limit_bytes
            for job_id, size_bytes in self.kept.items():
                if over_bytes <= 0:
                    break
                if not self.users[job_id]:
                    going.append(job_id)
                    over_bytes -= size_bytes
            return going

    def let_go(self, job_id: str) -> int | None:
        """Give up the files of a job, and return their size in bytes; None if they are needed by now."""
        with self.lock:
            if self.users[job_id] or job_id not in self.kept:
                return None
            del self.users[job_id]
            self.is_complete.pop(job_id, None)
            return self.kept.pop(job_id)


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
            in_use.kept.pop(job_id, None)
            return in_use.is_complete.pop(job_id, None) is not None
