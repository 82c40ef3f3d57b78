"""What a job has left in the engine: removed once it has been delivered and its reply been made, never before."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from pathlib import Path


class FilesInUse:
    """Files and folders that jobs in flight need. A cached node names the same file to several of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: Counter[Path] = Counter()
        self._released: defaultdict[Path, list[Path]] = defaultdict(list)
        self._is_complete: dict[Path, bool] = {}

    def hold(self, path: Path) -> None:
        """One more user."""
        with self._lock:
            self._users[path] += 1

    def begin(self, folder: Path) -> None:
        """The folder's job is about to run: from now on there may be something to remove."""
        with self._lock:
            self._is_complete.setdefault(folder, True)

    def settle(self, folder: Path, *, is_complete: bool) -> None:
        """Whether a job's last try could deliver all it made. Until one can, what all of them made stays."""
        with self._lock:
            self._is_complete[folder] = is_complete

    def let_go(self, folder: Path, files: list[Path]) -> list[Path]:
        """One user less of a job's folder and of its files; answers what may be removed, the folder among it."""
        with self._lock:
            self._users.subtract([folder, *files])
            self._released[folder] += files
            if self._users[folder] > 0 or not self._is_complete.get(folder, True):
                return []
            if self._is_complete.pop(folder, None) is None:
                del self._users[folder], self._released[folder]
                return []
            mine = dict.fromkeys([*self._released.pop(folder), folder])
            unused = [path for path in mine if self._users[path] <= 0]
            for path in unused:
                del self._users[path]
            return unused


class Leftovers:
    """The files of one job, and its folder. They are to be removed only if all were delivered.

    Args:
        folder: below the engine's output and temp folders; every delivery of the job has the same one.
    """

    def __init__(self, in_use: FilesInUse, *, folder: str) -> None:
        self._in_use = in_use
        self._folder = Path(folder)
        self._held: list[Path] = []
        self._is_taken = False
        in_use.hold(self._folder)

    def see(self, file: Path | None, folder_type: str) -> None:
        """An output exists. Inputs that a node shows are no outputs, and stay."""
        if file is not None and folder_type in ("output", "temp"):
            self._in_use.hold(file)
            self._held.append(file)

    def begin(self) -> None:
        """The job is about to run."""
        self._in_use.begin(self._folder)

    def settle(self, *, is_complete: bool) -> None:
        """Whether all could be delivered. Otherwise it stays, so that another try need not make it again."""
        self._in_use.settle(self._folder, is_complete=is_complete)

    def take(self) -> tuple[list[Path], str | None]:
        """The files that may be removed now, and the folder if that may; nothing the second time."""
        if self._is_taken:
            return [], None
        self._is_taken = True
        unused = self._in_use.let_go(self._folder, self._held)
        return [path for path in unused if path != self._folder], str(self._folder) if self._folder in unused else None
