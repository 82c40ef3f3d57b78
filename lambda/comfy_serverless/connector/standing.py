"""What is in a folder before any job runs, and stays there: the files of the operator, or of the image.

Whatever else is there later was brought by somebody since. Names and inodes tell it, so times, and what is written into
a file that stands, change nothing. A folder into which nothing has come since it was looked at is not read again.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any

from comfy_serverless.connector.births import birth_s
from comfy_serverless.connector.made_files import TICK_S
from comfy_serverless.connector.real_paths import mounts_in, walk


def _mark(inode: int, *, is_folder: bool) -> int:
    """What has a name: its inode, and whether it is a folder (no link to one). A number: there can be thousands."""
    return inode << 1 | is_folder


class Standing:
    """The entries of one folder that stand, by their paths.

    Args:
        folder: its path, with its links resolved.
        ours: folders in it that come and go with jobs, by their ways there; nothing in them stands.
        saved: what stood for a former process (`as_saved`); None to take what is there now.

    Raises:
        KeyError, TypeError, ValueError: what was saved cannot be used.
    """

    def __init__(self, folder: str, ours: Collection[str], saved: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._ours = {f"{folder}/{way}" for way in ours}
        #: Those, and the folders on the way to them.
        self._come_and_go = self._ours | {f"{folder}/{way}" for own in ours for way in PurePosixPath(own).parents}
        self._entries: dict[str, int] = {}
        #: Where the folders stand of which nothing else is in them, with the time of their last change.
        self._quiet: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._mounts = mounts_in(folder)
        if saved is None:
            self._noted_s = time.time()
            self._note(folder)
        else:
            self._noted_s = float(saved["noted_s"])
            self._entries = {path: int(mark) for path, mark in saved["entries"].items()}
            if "mounts" in saved:
                self._mounts = frozenset((str(path), str(device)) for path, device in saved["mounts"])
        self._paths = {mark: path for path, mark in self._entries.items()}

    def as_saved(self) -> dict[str, Any]:
        """What stands, as JSON takes it."""
        return {"noted_s": self._noted_s, "entries": self._entries, "mounts": sorted(self._mounts)}

    def note_all_but(self, began_s: float, ended_s: float) -> None:
        """Let stand, too, what is there now and has not come between two moments, in seconds since the epoch."""
        for path in self.others():
            below = (os.path.join(folder, name) for folder, *names in walk(path) for name in (*names[0], *names[1]))
            if not any(_changed_between(began_s, ended_s, each) for each in (path, *below)):
                self._note(os.path.dirname(path), only=path)
        self._paths = {mark: path for path, mark in self._entries.items()}

    def others(self) -> list[str]:
        """The paths of what is there and does not stand. Of a folder that does not, its own alone."""
        self._note_mounts()
        found: list[str] = []
        pending = [self._folder]
        while pending:
            folder = pending.pop()
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                changed_ns = os.stat(folder, follow_symlinks=False).st_ctime_ns
                known = self._quiet.get(folder)
                if known is None or known[0] != changed_ns:
                    others, subfolders = self._look(folder)
                    found += others
                    known = changed_ns, subfolders
                    if others or changed_ns / 1e9 > time.time() - TICK_S:
                        self._quiet.pop(folder, None)
                    else:
                        self._quiet[folder] = known
                pending += known[1]
        return found

    def stands(self, path: str) -> bool:
        """Whether what is at a path, below the folder and with no `..` in it, stands; so does all behind a link."""
        for part in (*map(str, reversed(PurePosixPath(path).parents)), path):
            if not part.startswith(f"{self._folder}/"):
                continue
            try:
                state = os.lstat(part)
            except OSError:
                return False
            is_folder = stat.S_ISDIR(state.st_mode)
            if not self._is_one(part, _mark(state.st_ino, is_folder=is_folder)):
                return False
            if stat.S_ISLNK(state.st_mode):
                return True
        return True

    def _note_mounts(self) -> None:
        """Let stand what the operator has mounted since, and what is there where something is not mounted any more."""
        mounts = mounts_in(self._folder)
        changed, self._mounts = mounts ^ self._mounts, mounts
        for path, _ in changed:
            self._note(os.path.dirname(path), only=path) if path != self._folder else self._note(path)
            for folder in takewhile(lambda way: way != self._folder, map(str, PurePosixPath(path).parents)):
                with suppress(FileNotFoundError):
                    self._entries[folder] = _mark(os.lstat(folder).st_ino, is_folder=True)
        if changed:
            self._quiet.clear()
            self._paths = {mark: path for path, mark in self._entries.items()}

    def _look(self, folder: str) -> tuple[list[str], tuple[str, ...]]:
        others, subfolders = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                mark = _mark(entry.inode(), is_folder=is_folder)
                if not self._is_one(entry.path, mark):
                    others.append(entry.path)
                elif is_folder:
                    subfolders.append(entry.path)
        return others, tuple(subfolders)

    def _is_one(self, path: str, mark: int) -> bool:
        """Whether something stands, or is a folder on the way to ours."""
        was = self._entries.get(path)
        if was == mark or (mark & 1 and path in self._come_and_go):
            return True
        return self._is_the_same(path, was, mark) or self._is_renamed(path, mark)

    def _is_the_same(self, path: str, was: int | None, mark: int) -> bool:
        """Whether what has a name still has it, by another inode: some file systems of virtual machines change them."""
        if was is None or (was ^ mark) & 1:
            return False
        with suppress(FileNotFoundError):
            return bool(mark & 1) or os.lstat(path).st_ctime < self._noted_s - TICK_S
        return False

    def _is_renamed(self, path: str, mark: int) -> bool:
        """Whether what stands by another name has this one now: no second name, and no new file with its inode."""
        was = self._paths.get(mark)
        if was is None:
            return False
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.lstat(was).st_ino == mark >> 1:
                return False
        born_s = birth_s(path)
        return born_s is not None and born_s < self._noted_s

    def _note(self, folder: str, *, only: str = "") -> None:
        pending = [folder]
        while pending:
            with suppress(OSError), os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if only and not f"{entry.path}/".startswith(f"{only}/"):
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    self._entries[entry.path] = _mark(entry.inode(), is_folder=is_folder)
                    if is_folder and entry.path not in self._ours:
                        pending.append(entry.path)


def _changed_between(began_s: float, ended_s: float, path: str) -> bool:
    with suppress(FileNotFoundError):
        return began_s <= os.lstat(path).st_ctime <= ended_s
    return False
