"""The files that a run has made on an engine of this machine: see `made_files`."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
import shutil
import stat
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from comfy_serverless.connector.births import birth_s
from comfy_serverless.connector.made_files import JOBS_FOLDER, TICK_S, WRITTEN, Made, MadeFiles, Place, Remembered, View
from comfy_serverless.connector.real_paths import folder_below, path_below, real_folder, way_below
from comfy_serverless.connector.whole_files import when_whole

logger = logging.getLogger(__name__)

#: The file system's clock lags behind the system's. In seconds.
_LAG_S = 0.011
#: ComfyUI reports its times in whole ms.
_ROUNDING_S = 0.001
#: How many files are named of those whose run is not known.
_NAMES_SHOWN = 3


class LocalFiles(MadeFiles):
    """The files of a run on an engine of this machine.

    Args:
        folders: ComfyUI's output and temp folder, by type, with their links resolved.
        remembered: what the runs of this engine share.
        view: opens a file through ComfyUI.
        keep_in: the run is apart, and its files are kept in this folder, which is named as its own folder below
            ComfyUI's is. None for a run of the machine's owner: its files stay where they are, and cached nodes are
            believed.
        move_strays: given if the nodes of the run write into its own folder alone, and those of another owner's may go
            on. What comes elsewhere, and no node names, is not the run's; this moves what has come since a moment, in
            seconds since the epoch, out of ComfyUI's folders.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        remembered: Remembered,
        *,
        view: View,
        keep_in: Path | None = None,
        move_strays: Callable[[float], None] | None = None,
    ) -> None:
        self._folders = {kind: str(folder) for kind, folder in folders.items() if kind in WRITTEN}
        self.remembered = remembered
        self.finds_late = keep_in is not None
        self.nothing = "it has shown nothing, and no file has appeared in ComfyUI's output or temp folder"
        self._view = view
        self._keep_in = keep_in
        self._move_strays = move_strays
        self._began_s, self._ended_s = time.time(), -math.inf
        #: By their paths in ComfyUI's folders.
        self._made: dict[str, Made] = {}
        self._states: dict[str, os.stat_result] = {}
        self._times_taken: Counter[str] = Counter()
        self._seen_folders: set[str] = set()
        self._resolved: dict[tuple[str, str], str | None] = {}
        #: What nodes call a folder: its type, and where it is below that.
        self._subfolders: dict[str, tuple[str, str]] = {}
        self._has_looked = False
        #: Whether the prompt before this one may have been another client's, of whose end nothing is known here.
        self._is_after_strangers = False
        self._own: tuple[str, ...] = ()
        if keep_in is not None:
            self._own = tuple(f"{folder}/{JOBS_FOLDER}/{keep_in.name}" for folder in self._folders.values())
        #: Where a run whose nodes write into its own folder alone may have files: previews are in the temp folder.
        self._may_be_in = tuple(f"{folder}/" for folder in (*self._own, self._folders.get("temp", "")) if folder)
        #: What was there already, of the moments that count as the run's beginning: by device, inode and change.
        self._before: set[tuple[int, int, int]] = set()
        with remembered.lock:
            # Before a run of this program may be another one of it, whose last files cannot be told from its first.
            self._has_company = remembered.runs > 0
            remembered.runs += 1
            self._before = {
                _identity(state)
                for folder in self._folders.values()
                for _, state in remembered.changed_files(folder, since_s=time.time() - TICK_S)
            }

    def begin(self, at_s: float) -> None:
        """See MadeFiles."""
        self._began_s = at_s
        if self._keep_in is None:
            self.remembered.note_span(self, at_s, math.inf)

    def end(self, at_s: float) -> None:
        """See MadeFiles."""
        self._ended_s = at_s
        if self._keep_in is None:
            self.remembered.note_span(self, self._began_s, at_s)

    def see_number(self, number: float | None) -> None:
        """See MadeFiles. Only the submit just before one tells: prompts are executed in the order of their numbers."""
        if self._keep_in is not None:
            return
        with self.remembered.lock:
            self._is_after_strangers = number is None or number - 1 not in self.remembered.numbers
            if number is not None:
                self.remembered.numbers.append(number)

    def ask(self, shown: Mapping[str, Any]) -> Callable[[], bool]:  # noqa: ARG002  (as all)
        """See MadeFiles. It just looks."""
        return _at_once

    def claim(self, place: Place, *, cached: bool) -> Made | None:
        """See MadeFiles."""
        # Most names are as the path is; whether a link is on it must be asked once, and not twice.
        path = self._plain_path(place)
        made = self._taken(path) if path is not None else None
        if made is None:
            path = self._path(place)
            made = self._taken(path) if path is not None else None
        if made is None and cached:
            made = self._from_before(place, path)
        return made

    def find(self, text: str, *, cached: bool) -> Made | None:
        """See MadeFiles. The path is below one of the folders, begins with its name, or is absolute."""
        for kind, folder in self._folders.items():
            for relative in dict.fromkeys((text, text.removeprefix(f"{kind}/"))):
                path = path_below(folder, relative)
                if path is not None and (made := self.claim(self._place(path), cached=cached)):
                    return made
        return None

    def unclaimed(self) -> list[Made]:
        """See MadeFiles. Files that are still being written are waited for.

        While another run is in the engine, what its nodes will name may be there already. A run apart leaves all but
        its own folder to it: only runs of ComfyUI's own nodes have another beside them. So it does where nodes of
        another owner's run may go on (`move_strays`). Of runs of the machine's owner
        that are in the engine together, each takes what has certainly come between its beginning and its end, of which
        it knows the whole ms; and what came in the moments beside that, if no other run was there in them. One that is
        there alone takes the moment before, too: a node that writes a line of text is that quick. What may be either
        one's is told (`nothing`).
        """
        self._has_looked = True
        seen = self._seen_folders
        with self.remembered.lock:  # no other run begins meanwhile
            is_alone = self.remembered.runs <= 1
            is_apart = self._keep_in is not None
            is_strict = (self._has_company or self._is_after_strangers) and not is_apart
            since_s = self._began_s - _LAG_S
            until_s = self._until_s(is_alone=is_alone)
            there = [
                (path, state)
                for folder in (
                    self._own if is_apart and not (is_alone and self._move_strays is None) else self._folders.values()
                )
                for path, state in self.remembered.changed_files(folder, since_s=since_s, seen=seen)
                if not self._is_known(path, state) and _identity(state) not in self._before
            ]
            new = [
                (path, state)
                for path, state in there
                if state.st_ctime < until_s and not (is_strict and self._may_be_anothers(state))
            ]
            if not is_apart and (is_strict or not is_alone):
                last_s = max(until_s, self._ended_s + _ROUNDING_S)
                taken = {path for path, _ in new}
                unsure = [
                    os.path.basename(path) for path, state in there if path not in taken and state.st_ctime < last_s
                ]
                self.nothing = _nothing_certain(unsure)
        found = when_whole(new, pid=self.remembered.pid, kept_open=self.remembered.kept_open)
        made = (self._taken(path) for path, _ in sorted(found, key=lambda file: file[1].st_mtime_ns))
        return [file for file in made if file is not None]

    def _may_be_anothers(self, state: os.stat_result) -> bool:
        """Whether a file that has come by this run's end may be of a prompt that was before it."""
        came_s = state.st_ctime
        if came_s >= self._began_s + _ROUNDING_S:
            return False
        return self._is_after_strangers or any(
            began_s <= came_s + _LAG_S and came_s <= ended_s + _ROUNDING_S
            for run, (began_s, ended_s) in self.remembered.spans.items()
            if run is not self
        )

    def _until_s(self, *, is_alone: bool) -> float:
        """When what nobody has named must have come, in seconds since the epoch.

        ComfyUI of the machine's owner may have other clients, whose prompts run next: only where it is a worker's alone
        does a file that comes late belong to this run.
        """
        if self._keep_in is not None or (is_alone and self._ended_s == -math.inf):
            return math.inf
        return self._ended_s + (_ROUNDING_S if is_alone else 0)

    def leave(self) -> None:
        """See MadeFiles."""
        try:
            if self._keep_in is not None:
                self._leave()
        finally:
            if self._keep_in is None and self._ended_s == -math.inf:
                self.remembered.note_span(self, self._began_s, time.time())
            with self.remembered.lock:  # what a run makes that begins meanwhile is no stray
                self.remembered.runs -= 1
                if self._move_strays is not None:
                    since_s = self.remembered.strays_since(self._began_s - _LAG_S)
                    if not self.remembered.runs:
                        self._move_strays(since_s)

    def _leave(self) -> None:
        if not self._has_looked:  # the run has broken off
            self.unclaimed()
        for path, was in self._states.items():
            try:
                # What has the name now may be a later run's.
                if os.path.samestat(os.lstat(path), was):
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("a file of a run could not be removed from ComfyUI's folder: %s", error)
        if self._keep_in is not None:
            for folder in self._folders.values():
                _move_out(f"{folder}/{JOBS_FOLDER}", self._keep_in)
        self._remove_folders()
        self._states.clear()

    def _remove_folders(self) -> None:
        """Remove the folders that the run has made and that are empty now, as far as its own has not left already.

        In the folder of all jobs only its own, and those that its files were in: another run may just have made one
        there.
        """
        roots = [Path(folder) for folder in self._folders.values()]
        stays = {path for root in roots for path in (root, root / JOBS_FOLDER)}
        stays |= {Path(folder) for folder in self.remembered.folders}
        new = {folder for folder in map(Path, self._seen_folders) if folder not in stays and self._is_for_all(folder)}
        for folder in {Path(path).parent for path in self._states}:
            while folder not in stays:
                new.add(folder)
                folder = folder.parent
        for folder in sorted(new, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()

    def _is_for_all(self, folder: Path) -> bool:
        """Whether a folder is the run's own, or in none of the folders of jobs."""
        parents = {str(folder), *map(str, folder.parents)}
        return not parents.isdisjoint(self._own) or parents.isdisjoint(
            f"{root}/{JOBS_FOLDER}" for root in self._folders.values()
        )

    def _plain_path(self, place: Place) -> str | None:
        """Where a place is, by its names alone; None if these may lead elsewhere. There may be links on the way."""
        folder = self._folders.get(place.folder_type)
        if folder is None or "/" in place.name:
            return None
        parent = f"{folder}/{place.subfolder}" if place.subfolder else folder
        return f"{parent}/{place.name}" if os.path.normpath(parent) == parent else None

    def _path(self, place: Place) -> str | None:
        """Where a place is, unless it is none of ComfyUI's. A node's files are in one folder: that is resolved once."""
        folder = self._folders.get(place.folder_type)
        if folder is None:
            return None
        if "/" in place.name:
            return path_below(folder, os.path.join(place.subfolder, place.name))
        where = place.folder_type, place.subfolder
        if where not in self._resolved:
            self._resolved[where] = folder_below(folder, place.subfolder)
        parent = self._resolved[where]
        return None if parent is None else f"{parent}/{place.name}"

    def _place(self, path: str) -> Place:
        parent, name = os.path.split(path)
        known = self._subfolders.get(parent)
        if known is None:
            ways = ((kind, way_below(folder, parent)) for kind, folder in self._folders.items())
            known = self._subfolders[parent] = next((kind, way) for kind, way in ways if way is not None)
        kind, subfolder = known
        return Place(name, subfolder, kind)

    def _is_known(self, path: str, state: os.stat_result) -> bool:
        """Whether this file has been taken, and not only an earlier one of its name."""
        return path in self._made and os.path.samestat(self._states[path], state)

    def _taken(self, path: str) -> Made | None:
        """A file of ComfyUI's folders, if it is new and no other run's.

        A node may have put another file in the place of one that was taken: each is the output of who has named it.
        """
        before = self._made.get(path)
        try:
            state = os.lstat(path)
        except (OSError, ValueError):  # it is not there any more, or no file can have its name
            return before
        if self._is_known(path, state):
            return before
        if state.st_ctime < self._began_s - _LAG_S or stat.S_ISDIR(state.st_mode) or self._is_anothers(path):
            return None
        if self._move_strays is not None and not path.startswith(self._may_be_in):
            return None
        folder = os.path.dirname(path)
        if real_folder(folder) != folder:
            return None  # a folder on its way has become a link, which may lead anywhere
        is_link = not stat.S_ISREG(state.st_mode)
        if is_link or self._was_there(path, state):
            if (is_link or state.st_nlink > 1) and not self.remembered.had_name(path):
                self._states[path] = state  # a name without a file of the run, which goes with those of the run
            return None
        place, kept = self._place(path), Path(path)
        try:
            with self.remembered.lock:
                if not self.remembered.is_free(state, self):
                    return None
                linked = state
                if self._keep_in is not None:
                    kept = _link(path, state, self._new_kept(self._keep_in, path, place))
                    linked = os.lstat(path)  # another name is a change
                self.remembered.take(linked, self)
        except FileNotFoundError:
            return None
        made = self._made[path] = Made(place, kept, lambda: kept.open("rb"))
        self._states[path] = state
        return made

    def _new_kept(self, keep_in: Path, path: str, place: Place) -> Path:
        """Where a file is kept. Earlier ones of its name that this run has taken stay where they are."""
        times = self._times_taken[path]
        self._times_taken[path] += 1
        return _kept(keep_in, place, times)

    def _was_there(self, path: str, state: os.stat_result) -> bool:
        """Whether a file was there before the run, and has only been given another name in it.

        A copy may have the time of change of what it is a copy of: its birth tells the two apart.
        """
        began_s = self._began_s - _LAG_S
        if self._keep_in is None or state.st_mtime >= began_s:
            return False
        born_s = birth_s(path)
        return born_s < began_s if born_s is not None else state.st_nlink > 1

    def _is_anothers(self, path: str) -> bool:
        """Whether a file is in the folder of another run that is in the engine too, and may not have named it yet."""
        if self._keep_in is None or self.remembered.runs <= 1:
            return False
        folders = {f"{folder}/{JOBS_FOLDER}" for folder in self._folders.values()}
        parents = {str(folder) for folder in Path(path).parents}
        return not folders.isdisjoint(parents) and parents.isdisjoint(self._own)

    def _from_before(self, place: Place, path: str | None) -> Made | None:
        """The file of a cached node: of an earlier delivery of this job, or of an earlier run of the owner."""
        if self._keep_in is None:
            if path is None or not _is_file(path) or place in self.remembered.refused:
                return None
            return Made(place, Path(path), lambda: self._view(*place))
        if path is None:
            return None
        place = self._place(path)
        kept = _kept(self._keep_in, place)
        for times in itertools.count(1):  # the last of that name is what ComfyUI would show
            if not _is_file(later := _kept(self._keep_in, place, times)):
                break
            kept = later
        return Made(place, kept, lambda: kept.open("rb")) if _is_file(kept) else None


def _nothing_certain(unsure: Sequence[str]) -> str:
    """What a node that has left nothing has not left, where other runs were before or behind it; in words."""
    said = "it has shown nothing, and no file in ComfyUI's output or temp folder is certainly its own: other runs were "
    said += "there at the same time"
    names = ", ".join(repr(name[:100]) for name in unsure[:_NAMES_SHOWN])
    return f"{said}. Whose {names} is, which came between two of them, is not known" if names else said


def _at_once() -> bool:
    return True


def _identity(state: os.stat_result) -> tuple[int, int, int]:
    """What tells a file, as it is now, from any other."""
    return state.st_dev, state.st_ino, state.st_ctime_ns


def _kept(keep_in: Path, place: Place, times: int = 0) -> Path:
    """Where a file is kept, after so many of its name: however deep its folder is, one folder is made for it."""
    folder = hashlib.sha256(f"{place.folder_type}/{place.subfolder}".encode(errors="surrogateescape")).hexdigest()[:16]
    return keep_in / (f"{folder}-{times + 1}" if times else folder) / place.name


def _move_out(jobs: str, keep_in: Path) -> None:
    """Move the own folder of a run, one of the jobs', to where its files are kept: with those it is removed.

    The next job waits for this, and a file system takes a millisecond or five to remove a folder. Where it cannot be
    moved, what is empty is removed as other folders are.
    """
    with suppress(OSError):
        # Never through a link that a node has put in its place: what would be moved might be anybody's.
        folder = os.open(jobs, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.rename(keep_in.name, keep_in / f"left-{uuid.uuid4().hex}", src_dir_fd=folder)
        finally:
            os.close(folder)


def _is_file(path: str | Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _link(path: str, state: os.stat_result, target: Path) -> Path:
    """Give a file a second name, so that it stays when the first is removed; return that name.

    Where the file system cannot do that, the file is copied. Raises FileNotFoundError if it is no longer the same.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(path, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        when_whole([(path, state)])  # what is written later goes into a second name, and into no copy
        # Should a pipe have taken its place, nobody waits for who would write into it.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
            if not os.path.samestat(os.fstat(source.fileno()), state):
                raise FileNotFoundError(path) from None
            with target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        return target
    # A symbolic link that has taken its place is never followed: what it leads to may be anybody's.
    if not os.path.samestat(target.lstat(), state):
        target.unlink()
        raise FileNotFoundError(path)
    if not state.st_mode & stat.S_IRUSR:
        target.chmod(stat.S_IMODE(state.st_mode) | stat.S_IRUSR)  # or it could not be delivered
    return target
