"""The files that a run has made: those that appear in ComfyUI's output and temp folders while it executes.

A reference is a claim. Nodes can be made to show any `{filename, subfolder, type}` and any path, so a name counts only
if this run can have made the file; and what a node does not name has been made all the same. ComfyUI runs one prompt
at a time, so what is new since a run's beginning is the run's.

A run that shares ComfyUI with strangers is *apart*: its files are linked into a folder of its own, out of ComfyUI's
sight, as soon as they are there, and its end removes them, and nothing else, from ComfyUI's folders.
"""

from __future__ import annotations

import logging
import math
import os
import stat
import threading
import time
from array import array
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from comfy_serverless.connector.real_paths import make_writable

logger = logging.getLogger(__name__)

#: A folder that was changed this recently may change again without a new time of change, in seconds.
TICK_S = 0.05
_MAX_REMEMBERED = 10_000
_MAX_SPANS = 100
#: The folder, below ComfyUI's output and temp folders, that the folders of runs apart are in.
JOBS_FOLDER = "comfy-serverless"
#: The folders of ComfyUI's that nodes write into, by their types. Not every engine has all.
WRITTEN = ("output", "temp", "datasets")

View = Callable[[str, str, str], BinaryIO]


class Place(NamedTuple):
    """A file as ComfyUI's nodes name it."""

    name: str
    subfolder: str
    folder_type: str

    def __str__(self) -> str:
        path = f"{self.subfolder}/{self.name}" if self.subfolder else self.name
        return f"{path[:200]!r} ({self.folder_type[:20]})"


@dataclass(frozen=True, slots=True)
class Made:
    """A file that the run has made: where it is on this machine, or how it is fetched from an engine elsewhere."""

    place: Place
    path: Path | None
    fetch: Callable[[], BinaryIO]


class MadeFiles(Protocol):
    """Tells what one run has made from what was there before.

    Attributes:
        remembered: what the runs of the engine share.
        nothing: what a node that has left nothing has not left, in words.
        finds_late: whether a file that no node names is found although it comes after the run's end.
    """

    remembered: Remembered
    nothing: str
    finds_late: bool

    def begin(self, at_s: float) -> None:
        """Note when ComfyUI began to execute the run, in seconds since the epoch, by its clock."""

    def end(self, at_s: float) -> None:
        """Note when it had executed the run, likewise."""

    def see_number(self, number: float | None) -> None:
        """Note the number of its submit, once it has ended: it tells whether another client's prompt was before it."""

    def ask(self, shown: Mapping[str, Any]) -> Callable[[], bool]:
        """Begin to find out about the files that a node shows.

        Returns:
            Says whether `claim` can answer for all of them now, without waiting. Some time it can.
        """

    def claim(self, place: Place, *, cached: bool) -> Made | None:
        """The file that a node names, if the run has made it; a cached node has made its files in an earlier run."""

    def find(self, text: str, *, cached: bool) -> Made | None:
        """The file that a node names by its path alone."""

    def unclaimed(self) -> list[Made]:
        """The files that the run has made and no node has named, the oldest first."""

    def leave(self) -> None:
        """Remove what the run has made from ComfyUI's folders, if it is apart."""


class Remembered:
    """Knowledge of one engine that its runs share. Thread-safe.

    Attributes:
        refused: the places that were named by a node that had run, and were not its files.
        vain: how often a file of a class of nodes was waited for that did not come, since one last came late.
        folders: those that were there when the engine had started; they stay, also when they are empty.
        runs: how many runs are in the engine now. Under the lock.
        spans: when the last runs of the machine's owner have executed, in seconds since the epoch. Under the lock.
        numbers: those of the last submits, which the engine counts from 0 on, whoever submits. Under the lock.
        pid: the engine's process; None if it is none of ours.
        kept_open: the files that the engine does not close, by their paths.
    """

    def __init__(self, folders: Mapping[str, Path] | None = None, *, pid: int | None = None) -> None:
        self.lock = threading.Lock()
        #: The files that runs have made, by device and inode, with the time of their last change, so that none is
        #: another run's too.
        self._taken: OrderedDict[tuple[int, int], tuple[int, object]] = OrderedDict()
        self._subfolders: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.pid = pid
        self.kept_open: set[str] = set()
        self.refused: set[Place] = set()
        self.vain: Counter[str] = Counter()
        self.folders: set[str] = set()
        self.runs = 0
        #: Whose jobs have had nodes of packs: one or two.
        self._pack_owners: set[str] = set()
        self._strays_since_s = math.inf
        self.spans: OrderedDict[object, tuple[float, float]] = OrderedDict()
        self.numbers: deque[float] = deque([-1.0], maxlen=_MAX_SPANS)
        #: Those of the files that were there when the engine had started, as numbers: there can be very many.
        self._names = array("q")
        names: list[int] = []
        for folder in (folders or {}).values():
            self.changed_files(str(folder), since_s=math.inf, seen=self.folders, names=names)
        self._names.extend(sorted(names))

    def may_have_strays(self, owner: str, *, is_plain: bool) -> bool:
        """Note a run that begins; whether what no node of it names may be of another owner's, whose nodes go on.

        Args:
            is_plain: its nodes save in its own folder, and nowhere else; only others go on after their run.
        """
        with self.lock:
            if not is_plain and len(self._pack_owners) <= 1:  # of two, one is another
                self._pack_owners.add(owner)
            return is_plain and bool(self._pack_owners - {owner})

    def strays_since(self, since_s: float) -> float:
        """Note that what has come since then may be no run's; since when that is so of the runs up to now, in seconds.

        Under the lock, as a run ends. Those before the last one have left them to it: one of its files may be among
        them.
        """
        since_s = min(since_s, self._strays_since_s)
        self._strays_since_s = since_s if self.runs else math.inf
        return since_s

    def had_name(self, path: str) -> bool:
        """Whether there was a file of this path when the engine had started."""
        place = bisect_left(self._names, hash(path))
        return place < len(self._names) and self._names[place] == hash(path)

    def note_span(self, run: object, began_s: float, ended_s: float) -> None:
        """Note when a run has executed."""
        with self.lock:
            self.spans[run] = began_s, ended_s
            while len(self.spans) > _MAX_SPANS:
                self.spans.popitem(last=False)

    def is_free(self, state: os.stat_result, run: object) -> bool:
        """Whether no other run has made this file. Under the lock."""
        changed_ns, maker = self._taken.get((state.st_dev, state.st_ino), (0, run))
        return maker is run or changed_ns != state.st_ctime_ns

    def take(self, state: os.stat_result, run: object) -> None:
        """Note that a run has made a file. Under the lock."""
        self._taken[state.st_dev, state.st_ino] = state.st_ctime_ns, run
        while len(self._taken) > _MAX_REMEMBERED:
            self._taken.popitem(last=False)

    def refuse(self, places: Iterable[Place]) -> None:
        """Note that places were named and not made: they are not believed of a cached node either."""
        if len(self.refused) < _MAX_REMEMBERED:
            self.refused.update(places)

    def changed_files(
        self, folder: str, *, since_s: float, seen: set[str] | None = None, names: list[int] | None = None
    ) -> list[tuple[str, os.stat_result]]:
        """The paths of files and links below a folder that have come into it since then, in seconds since the epoch.

        Folders that nothing has come into since are not read again: an output folder can hold years of pictures. Their
        times of modification do not tell: those of what is unpacked, or copied with its times, are of long ago.

        Args:
            seen: the folders are added to it.
            names: the paths of all files in folders that are read are added to it, as numbers.
        """
        found: list[tuple[str, os.stat_result]] = []
        pending = [folder]
        while pending:
            directory = pending.pop()
            try:
                pending += self._subfolders_of(directory, since_s, found, names)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has just gone
            except OSError as error:  # no job must fail for another's
                logger.warning("a folder of ComfyUI's cannot be read: %s (%r)", error.strerror, directory[-200:])
                continue
            if seen is not None:
                seen.add(directory)
        return found

    def _subfolders_of(
        self, directory: str, since_s: float, found: list[tuple[str, os.stat_result]], names: list[int] | None
    ) -> tuple[str, ...]:
        """The folders in one; what has come into it since then is added to `found`. The rest as for `changed_files`."""
        state = os.stat(directory)
        changed_ns = state.st_ctime_ns
        is_changed = changed_ns / 1e9 >= since_s
        if is_changed and state.st_mode & stat.S_IRWXU != stat.S_IRWXU and self._may_open(directory):
            make_writable(directory)
        known = self._subfolders.get(directory)
        if not is_changed and known is not None and known[0] == changed_ns:
            return known[1]
        with os.scandir(directory) as entries:
            subfolders, files = _folders_and_files(entries)
        if names is not None:
            names += [hash(file.path) for file in files]
        if is_changed:
            found += _changed(files, since_s)
        if changed_ns / 1e9 <= time.time() - TICK_S:
            self._subfolders[directory] = changed_ns, subfolders
        else:
            self._subfolders.pop(directory, None)
        return subfolders

    def _may_open(self, directory: str) -> bool:
        """Whether the rights of a folder may be changed: not of those that were there."""
        return directory not in self.folders or JOBS_FOLDER in directory.split("/")


def _folders_and_files(entries: Iterable[os.DirEntry[str]]) -> tuple[tuple[str, ...], list[os.DirEntry[str]]]:
    folders, files = [], []
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        else:
            files.append(entry)
    return tuple(folders), files


def _changed(files: Iterable[os.DirEntry[str]], since_s: float) -> Iterator[tuple[str, os.stat_result]]:
    for file in files:
        with suppress(FileNotFoundError):
            state = file.stat(follow_symlinks=False)
            if state.st_ctime >= since_s:
                yield file.path, state
