"""The files a job has left in the engine: removed once they are delivered and the reply is made, never before."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from pathlib import Path


class FilesInUse:
    """Files and folders that jobs in flight need. A cached node names the same file to several of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: Counter[Path] = Counter()
        self.released: defaultdict[Path, list[Path]] = defaultdict(list)
        #: For the folders of jobs that have run: whether the last try could deliver all it made.
        self.is_complete: dict[Path, bool] = {}


class Leftovers:
    """The files of one job, and its folder below the engine's output and temp folders, the same in every delivery.

    They may be removed only if all were delivered: until one try can, the files of all tries stay.
    """

    def __init__(self, in_use: FilesInUse, *, folder: str) -> None:
        self._in_use = in_use
        self._folder = Path(folder)
        self._held: list[Path] = []
        self._is_taken = False
        with in_use.lock:
            in_use.users[self._folder] += 1

    def see(self, file: Path | None, folder_type: str) -> None:
        """Note an output. Inputs that a node shows are no outputs, and stay."""
        if file is not None and folder_type in ("output", "temp"):
            with self._in_use.lock:
                self._in_use.users[file] += 1
            self._held.append(file)

    def begin(self) -> None:
        """Note that the job is about to run: from now on there may be something to remove."""
        with self._in_use.lock:
            self._in_use.is_complete.setdefault(self._folder, True)

    def settle(self, *, is_complete: bool) -> None:
        """Note whether all could be delivered. Otherwise the files stay, and another try need not make them again."""
        with self._in_use.lock:
            self._in_use.is_complete[self._folder] = is_complete

    def take(self) -> tuple[list[Path], str | None]:
        """The files that may be removed now, and the folder if that may; nothing the second time."""
        in_use, folder = self._in_use, self._folder
        with in_use.lock:
            if self._is_taken:
                return [], None
            self._is_taken = True
            in_use.users.subtract([folder, *self._held])
            in_use.released[folder] += self._held
            if in_use.users[folder] > 0 or not in_use.is_complete.get(folder, True):
                return [], None
            if in_use.is_complete.pop(folder, None) is None:
                del in_use.users[folder], in_use.released[folder]
                return [], None
            mine = dict.fromkeys([*in_use.released.pop(folder), folder])
            unused = [path for path in mine if in_use.users[path] <= 0]
            for path in unused:
                del in_use.users[path]
        return [path for path in unused if path != folder], str(folder) if folder in unused else None
