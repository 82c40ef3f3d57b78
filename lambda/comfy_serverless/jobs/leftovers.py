"""What a job has left in the engine: removed once it has been delivered and its reply been made, never before."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


class FilesInUse:
    """Files that jobs in flight deliver. A cached node names the same file to several of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: Counter[Path] = Counter()

    def hold(self, file: Path) -> None:
        """One more user of a file."""
        with self._lock:
            self._users[file] += 1

    def let_go(self, files: Iterable[Path]) -> list[Path]:
        """One user less of each; answers those that nobody uses any more."""
        with self._lock:
            self._users.subtract(files := list(files))
            unused = [file for file in dict.fromkeys(files) if self._users[file] <= 0]
            for file in unused:
                del self._users[file]
            return unused


class Leftovers:
    """The files of one job, and its folder. Only what was delivered is to be removed: the rest is all there is of it.

    Args:
        folder: below the engine's output and temp folders; another delivery of the job has the same one.
    """

    def __init__(self, in_use: FilesInUse, *, folder: str) -> None:
        self._in_use = in_use
        self._folder = Path(folder)
        self._held: list[Path] = []
        self._kept: set[Path] = set()
        self._is_all_delivered = True
        self._is_taken = False
        in_use.hold(self._folder)

    def see(self, file: Path | None, folder_type: str) -> None:
        """An output exists. Inputs that a node shows are no outputs, and stay."""
        if file is not None and folder_type in ("output", "temp"):
            self._in_use.hold(file)
            self._held.append(file)

    def keep(self, file: Path | None) -> None:
        """An output could not be delivered."""
        self._is_all_delivered = False
        if file is not None:
            self._kept.add(file)

    def take(self) -> tuple[list[Path], str | None]:
        """The files that may be removed now, and the folder if that may; nothing the second time."""
        if self._is_taken:
            return [], None
        self._is_taken = True
        unused = self._in_use.let_go([self._folder, *self._held])
        files = [file for file in unused if file != self._folder and file not in self._kept]
        return files, str(self._folder) if self._is_all_delivered and self._folder in unused else None
