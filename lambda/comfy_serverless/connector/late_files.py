"""Files of an owner's runs that are in ComfyUI's folders when these are over: they must not be there for another owner.

A node that lists a folder would show them. In the output and temp folder they have come late: a thread of a node has
gone on. In the input folder a node has put them there, for its next job. They are nobody's output: before the next
owner's runs begin they are moved out of ComfyUI's sight; the newest of them are kept there for the operator.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from comfy_serverless.connector.births import birth_s
from comfy_serverless.connector.made_files import JOBS_FOLDER, TICK_S, WRITTEN, Remembered
from comfy_serverless.connector.real_paths import make_writable, remove_tree, walk
from comfy_serverless.connector.standing import Standing
from comfy_serverless.graph.file_inputs import own_folders

logger = logging.getLogger(__name__)

#: How much of them is kept beside what was moved last, in bytes.
MAX_KEPT_BYTES = 256 * 1024 * 1024
#: How many files and folders: each change of owners that moves one looks through them.
MOST_KEPT = 1000
_SHOWN = 5
#: How often a change of owners looks for what has come while it moved the rest.
_MOST_LOOKS = 3
#: How long a process that has ended without a word may have gone on, and a run in it, in seconds.
_UNHEARD_S = 3600.0
#: There is no room for a file, or it is none to be read: a socket.
_NOT_KEPT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENXIO})
#: Whose runs cannot be told any more: nobody's name has no letters.
_UNKNOWN = ""


class _Last(NamedTuple):
    """Whose runs were the last ones, since when, and up to when they may have left something."""

    owner: str
    since_s: float
    until_s: float
    before: frozenset[tuple[int, int, int]]


class LateFiles:
    """Those of one engine's folders. The caller has the folders, and nothing runs with them.

    Processes that have the folders in turn, or one after the other, know of each other's runs.

    Args:
        root: our folder beside the engine's output folder: they are moved into one in it, and what processes must know
            of each other is there.
        is_input_shared: whether others have jobs in the input folder now who take no turns with us: nothing leaves it.
    """

    def __init__(self, root: Path, *, is_input_shared: Callable[[], bool] = lambda: False) -> None:
        self._is_input_shared = is_input_shared
        self._root, self._keep_in = root, root / "late"
        #: For what came while nobody knows whose runs these were. Nothing in it makes room for more.
        self._keep_unknown = root / "unknown"
        self._turn_file, self._standing_file = root / "owner.json", root / "standing.json"
        #: It is there while a run may be going on.
        self._running_file = root / "running"
        self._remembered = Remembered()
        self._standing: Standing | None = None
        self._owner: str | None = None
        self._since_s = 0.0
        #: What was there already, of the moment in which the owner's runs began.
        self._before: set[tuple[int, int, int]] = set()

    def change(self, owner: str, folders: Mapping[str, Path]) -> None:
        """Note whose runs begin now; if the last ones were another's, what is there of those is moved out."""
        whose = hashlib.sha256(owner.encode()).hexdigest()[:32]
        last = self._last()
        with suppress(OSError):
            self._running_file.touch()
        roots = [folders[kind] for kind in WRITTEN if kind in folders]
        if self._standing is None:
            self._standing = self._what_stands(folders["input"].resolve(), last, roots)
        elif not _says_something(self._standing_file):
            self._note_standing(folders["input"].resolve(), self._standing)
        if last is not None and last.owner == whose:
            is_told = last.until_s == math.inf and self._owner == whose
            self._owner = whose
            if not (is_told and _touched(self._turn_file)):
                self._tell(None)
            return
        looked_s, known_since_s = time.time(), self._since_s
        if last is not None:
            keep_in = self._keep_in if last.owner != _UNKNOWN else self._keep_unknown
            for _ in range(_MOST_LOOKS):  # what goes on writes while the rest is moved
                looked_s = time.time()
                if not self._move_out(roots, folders["input"].resolve(), self._standing, keep_in):
                    break
        else:
            self._since_s = looked_s - TICK_S
        folders_there, known = set[str](), self._remembered.folders
        there = self._since(roots, seen=folders_there)
        # What has come meanwhile is none that was there: with the next change it leaves.
        stay = [state for path, state in there if last is None or not self._is_late(path, state)]
        if last is not None:
            new = {folder for folder in folders_there - known if (birth_s(folder) or 0.0) >= known_since_s}
            folders_there -= new
        self._owner, self._since_s = whose, looked_s - TICK_S
        self._before = {_identity(state) for state in stay if state.st_ctime >= self._since_s}
        self._remembered.folders = folders_there
        self._tell(None)

    def is_operators(self, path: Path, input_folder: Path) -> bool:
        """Whether a file in the input folder was there before all jobs, or has come since without them."""
        standing, folder = self._standing, input_folder.resolve()
        if standing is None and (last := self._last()) is not None:
            standing = self._standing_since(folder, last)
        return standing is None or standing.stands(str(path))

    def see(self) -> None:
        """Note that the runs of the owner have just ended."""
        if self._owner is not None:
            with suppress(OSError):
                self._running_file.unlink(missing_ok=True)
            if not _touched(self._turn_file):
                self._tell(None)
            _touched(self._standing_file)

    def end(self) -> None:
        """Note that the engine has ended: what comes from now on is the operator's."""
        if self._owner is not None:
            self._tell(time.time())

    def _last(self) -> _Last | None:
        """What is known of the last runs in these folders, of whatever process. None: there have been none."""
        try:
            return self._noted()
        except FileNotFoundError:
            if self._owner is not None:  # it could not be written
                return _Last(self._owner, self._since_s, math.inf, frozenset(self._before))
            if not os.path.lexists(self._standing_file):
                return None
            logger.warning("whose runs were the last ones is not noted any more: %s", self._what_becomes())
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            logger.warning("whose runs were the last ones cannot be read: %r: %s", error, self._what_becomes())
        return _Last(_UNKNOWN, self._begun_s(), math.inf, frozenset())

    def _noted(self) -> _Last:
        """What is noted of the last runs. Raises OSError, or of what is damaged any error that a form can have."""
        saved, now_s = _read(self._turn_file), time.time()
        owner, since_s, until_s = saved["owner"], float(saved["since_s"]), saved["until_s"]
        if until_s is None:
            seen_s = self._turn_file.stat().st_mtime
            ended_s = seen_s + _UNHEARD_S if self._running_file.exists() else seen_s
            until_s = math.inf if now_s - seen_s < _UNHEARD_S or self._owner is not None else ended_s
        elif not since_s <= float(until_s) < math.inf:
            raise ValueError(f"until_s is {until_s}, since_s {since_s}")
        if not 0 < since_s < now_s + _UNHEARD_S or re.fullmatch("[0-9a-f]{32}", owner) is None:
            raise ValueError(f"since_s is {since_s}, owner {owner!r}")
        before = frozenset((int(device), int(inode), int(ns)) for device, inode, ns in saved["before"])
        return _Last(owner, since_s, float(until_s), before)

    def _what_becomes(self) -> str:
        return (
            f"files that came since the first ones began are moved to {self._keep_unknown} before the next job, and "
            "are given to no owner"
        )

    def _begun_s(self) -> float:
        """When the first runs in these folders began, or a moment before it, in seconds since the epoch."""
        with suppress(OSError, KeyError, TypeError, ValueError, RecursionError):
            noted_s = float(_read(self._standing_file)["noted_s"])
            if math.isfinite(noted_s):
                return noted_s - TICK_S
        return birth_s(self._root) or 0.0

    def _tell(self, until_s: float | None) -> None:
        said = {"owner": self._owner, "since_s": self._since_s, "until_s": until_s, "before": [*self._before]}
        try:
            _write(self._turn_file, said)
        except OSError as error:
            logger.warning("whose runs these are cannot be noted for other processes: %s", error)
            _remove(self._turn_file)  # what it says is not true any more
            if os.path.lexists(self._turn_file):
                raise

    def _what_stands(self, folder: Path, last: _Last | None, roots: Iterable[Path]) -> Standing:
        """What the operator has in the input folder, at the first run of this process."""
        standing = self._standing_since(folder, last) if last is not None else None
        if last is not None:
            self._since_s, folders = last.since_s, set[str]()
            came_after = {_identity(s) for _, s in self._since(roots, seen=folders) if s.st_ctime > last.until_s}
            self._before = came_after | last.before
            born_s, began_s = {path: birth_s(path) or 0.0 for path in folders}, last.since_s + TICK_S
            self._remembered.folders = {path for path in folders if not began_s <= born_s[path] <= last.until_s}
        if standing is None:
            standing = Standing(str(folder), own_folders())
        self._note_standing(folder, standing)
        return standing

    def _note_standing(self, folder: Path, standing: Standing) -> None:
        try:
            _write(self._standing_file, {"folder": str(folder), **standing.as_saved()})
        except OSError as error:
            logger.warning("what is in ComfyUI's input folder cannot be noted for other processes: %s", error)
            _remove(self._standing_file)
            with suppress(OSError):  # for a name without a word there is room mostly; it says that there have been runs
                self._standing_file.touch()

    def _standing_since(self, folder: Path, last: _Last) -> Standing | None:
        """What the operator has in the input folder, but for what has come with the last runs; None if it is new."""
        try:
            saved = _read(self._standing_file)
            if isinstance(place := saved.get("folder"), str) and place != str(folder):
                return None
            standing = Standing(str(folder), own_folders(), saved)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if not isinstance(error, FileNotFoundError):
                logger.warning("what was in ComfyUI's input folder before cannot be read: %r", error)
            standing = Standing(str(folder), own_folders(), {"noted_s": last.since_s, "entries": {}})
        standing.note_all_but(last.since_s, last.until_s)
        return standing

    def _since(self, roots: Iterable[Path], seen: set[str] | None = None) -> list[tuple[Path, os.stat_result]]:
        return [
            (Path(name), state)
            for root in roots
            for name, state in self._remembered.changed_files(str(root), since_s=self._since_s, seen=seen)
        ]

    def _move_out(self, roots: list[Path], input_folder: Path, standing: Standing, keep_in: Path) -> bool:
        """Move out what has come since the last owner's runs began; whether there was something."""
        folders = set[str]()
        late = [path for path, state in self._since(roots, seen=folders) if self._is_late(path, state)]
        others: list[Path] = []
        if not self._is_input_shared():
            for own in own_folders():
                make_writable(input_folder / own)
            others = [Path(path) for path in standing.others()]
        if not late and not others:
            self._remove_empty(folders, roots)
            return False
        kept_before = set(self._kept())
        has_moved = self._move_late(late, roots, keep_in)
        self._remove_empty(folders, roots)
        if brought := [path for path in others if self.move_out(path, keep_in)]:
            logger.warning(
                "%d files or folders came into ComfyUI's input folder while jobs of one owner were there. They were "
                "moved to %s before another owner's run: %s. Files for all owners are put there before the first job",
                *(len(brought), keep_in, _shown(brought, [input_folder])),
            )
        self._make_room(kept_before)
        return has_moved or bool(brought)

    def move_strays(self, roots: list[Path], since_s: float) -> None:
        """Move out what has come since a moment, all of which is no run's that has been there."""
        found = [
            Path(name)
            for root in roots
            for name, _ in self._remembered.changed_files(str(root), since_s=since_s)
            if (birth_s(name) or since_s) >= since_s
        ]
        if found:
            kept_before = set(self._kept())
            self._move_late(found, roots, self._keep_in)
            # Not all that is empty: a folder may be of the run that has just been.
            ways = {str(folder) for path in found for folder in path.parents}
            self._remove_empty({way for way in ways if any(Path(way).is_relative_to(root) for root in roots)}, roots)
            self._make_room(kept_before)

    def _move_late(self, late: list[Path], roots: list[Path], keep_in: Path) -> bool:
        if moved := [path for path in late if self.move_out(path, keep_in)]:
            logger.warning(
                "%d files came into ComfyUI's folders after the end of the runs that wrote them, and are no outputs. "
                "They were moved to %s, away from another owner's run: %s",
                *(len(moved), keep_in, _shown(moved, roots)),
            )
        return bool(moved)

    def _is_late(self, path: Path, state: os.stat_result) -> bool:
        """Whether a file has come since, and not only a new name, right or time for one that was there."""
        if _identity(state) in self._before:
            return False
        born_s = birth_s(path)
        return born_s is None or born_s >= self._since_s

    def move_out(self, path: Path, keep_in: Path | None = None) -> bool:
        """Move a file or a folder out of ComfyUI's sight; whether there was more than empty folders."""
        keep_in = keep_in or self._keep_in
        try:
            make_writable(path)
            if not path.is_symlink() and path.is_dir() and not any(names for *_, names in walk(path)):
                remove_tree(path)
                return False
            keep_in.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The longest name of a file has 255 bytes, and a character up to four.
            target = keep_in / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}-{path.name[-50:]}"
            try:
                path.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _take_over(path, target)
        except FileNotFoundError:
            return False
        except OSError:
            logger.exception("a file of another owner could not be moved out of ComfyUI's folder")
            return False
        return True

    def _remove_empty(self, folders: set[str], roots: Iterable[Path]) -> None:
        """Remove those folders that are empty now, and as new: their names may tell something.

        The folder of all runs stays: the next one would make it again.
        """
        stay = {str(path) for root in roots for path in (root, root / JOBS_FOLDER)}
        for folder in sorted(folders - self._remembered.folders - stay, key=len, reverse=True):
            with suppress(OSError):  # something is in it
                Path(folder).rmdir()

    def _kept(self) -> list[Path]:
        """What is kept, the newest first."""
        with suppress(FileNotFoundError):
            return sorted(self._keep_in.iterdir(), reverse=True)
        return []

    def _make_room(self, kept_before: Iterable[Path]) -> None:
        """Remove the oldest of what is kept, so that it is not too much.

        What was moved last may be a file that the operator has just put there: it stays while as much again is free.
        """
        kept = self._kept()
        size_bytes, free_bytes = 0, shutil.disk_usage(self._keep_in).free if kept else 0
        for position, path in enumerate(kept):
            if position >= MOST_KEPT and path in kept_before:
                _remove(path)
                continue
            size_bytes += _size_bytes(path)
            if size_bytes > MAX_KEPT_BYTES and (path in kept_before or size_bytes > free_bytes):
                _remove(path)


def _touched(file: Path) -> bool:
    """Make a file new, which is cleaned up when it is old; whether it was there."""
    try:
        os.utime(file)
    except OSError:
        return False
    return True


def _says_something(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _identity(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_dev, state.st_ino, state.st_ctime_ns


def _take_over(path: Path, target: Path) -> None:
    """Move something to another file system. What that cannot take, for want of room or as no plain file, is removed.

    Another owner would see it, and each change would leave one more part of it here. Raises OSError.
    """
    try:
        shutil.move(path, target)
    except (OSError, RecursionError) as error:
        cannot_be_kept = _cannot_be_kept(error)
        if cannot_be_kept or not path.is_dir():  # of a folder the rest may be at the target alone
            _remove(target)
        if not cannot_be_kept:
            raise
        logger.warning("what came into ComfyUI's folder cannot be kept, and is removed: %s", error)
        _remove(path)
        if path.is_symlink() or path.exists():
            raise


def _cannot_be_kept(error: OSError | RecursionError) -> bool:
    """Whether nothing that was to be copied has been removed yet, and some of it cannot be copied."""
    if isinstance(error, RecursionError):  # while it was copied: it is as deep for what removes it
        return True
    if isinstance(error, shutil.Error):  # of a folder: what it tells of each file is a text
        reasons = [str(reason) for *_, reason in error.args[0]]
        known = (*(f"[Errno {number}]" for number in _NOT_KEPT), "is a named pipe")
        return all(any(each in reason for each in known) for reason in reasons)
    return isinstance(error, shutil.SpecialFileError) or error.errno in _NOT_KEPT


def _remove(path: Path) -> None:
    with suppress(OSError):
        remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _shown(paths: list[Path], roots: Iterable[Path]) -> str:
    ways = [path.relative_to(root) for path in paths[:_SHOWN] for root in roots if path.is_relative_to(root)]
    return ", ".join(repr(way.as_posix()[:200]) for way in ways)  # a name may be no text, or have a line's end in it


def _size_bytes(path: Path) -> int:
    size_bytes = 0
    with suppress(OSError):
        size_bytes = path.lstat().st_size
    for folder, _, names in walk(path):
        for name in names:
            with suppress(OSError):
                size_bytes += Path(folder, name).lstat().st_size
    return size_bytes


def _read(file: Path) -> dict[str, Any]:
    """What was written. Raises OSError, ValueError, TypeError or RecursionError if that cannot be read."""
    return dict(**json.loads(file.read_bytes()))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(file)
