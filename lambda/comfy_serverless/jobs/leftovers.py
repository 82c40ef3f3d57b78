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
    """The files of one job. Only those that were delivered are to be removed: the others are all there is of them."""

    def __init__(self, in_use: FilesInUse) -> None:
        self._in_use = in_use
        self._held: list[Path] = []
        self._kept: set[Path] = set()

    @property
    def all_delivered(self) -> bool:
        """Whether nothing has to be kept."""
        return not self._kept

    def see(self, file: Path | None, folder_type: str) -> None:
        """An output exists. Inputs that a node shows are no outputs, and stay."""
        if file is not None and folder_type in ("output", "temp"):
            self._in_use.hold(file)
            self._held.append(file)

    def keep(self, file: Path | None) -> None:
        """An output could not be delivered."""
        if file is not None:
            self._kept.add(file)

    def take(self) -> list[Path]:
        """The files that may be removed now; the second time none."""
        held, self._held = self._held, []
        return [file for file in self._in_use.let_go(held) if file not in self._kept]
