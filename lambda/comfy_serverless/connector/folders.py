"""The folders of an engine on this machine, and ours beside them.

ComfyUI's folders are its own and everybody's: what lies there while a job executes, the job can read. So what other
jobs have brought and made is kept beside them, on the same file system, where files move by a link and not by a copy.
"""

from __future__ import annotations

import filecmp
import logging
import os
import re
import shutil
import stat
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from comfy_serverless import locks
from comfy_serverless.connector import places
from comfy_serverless.connector.late_files import LateFiles
from comfy_serverless.connector.made_files import JOBS_FOLDER, WRITTEN
from comfy_serverless.connector.real_paths import make_writable, remove_tree, walk
from comfy_serverless.graph.file_inputs import own_folders

logger = logging.getLogger(__name__)

#: The names of files that jobs have brought, and of those that are not whole yet.
OWN_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,8}")
UNFINISHED_NAME = re.compile(r"\.[0-9a-f-]{36}\.part")
_MAX_RUNS = 10_000
#: The time between two tries to get folders that another process uses, in seconds.
_AGAIN_S = 0.02


def are_here(folders: Mapping[str, Path]) -> bool:
    """Whether an engine that answers has its folders on this machine.

    ComfyUI makes its input folder when it starts, and its output folder with the first file (0.3.64, 0.33.0). Where
    only that is missing it is made now, for ComfyUI's user: what is in it is one run's from the first file on.
    """
    made_by_engine, output = folders["input"], folders["output"]
    if not made_by_engine.is_dir() or output.is_dir():
        return made_by_engine.is_dir()
    try:
        output.mkdir()
        like = made_by_engine.stat()
        os.chown(output, like.st_uid, like.st_gid)
        output.chmod(stat.S_IMODE(like.st_mode))
    except OSError as error:
        logger.info("ComfyUI's output folder is not known: %s", error)
        return False
    return True


class EngineFolders:
    """The folders of one engine on this machine: one process at a time has them, and one owner's jobs are in them.

    Several engines can have the same folders, as when functions on a laptop start the same ComfyUI. Thread-safe.

    Args:
        folders: ComfyUI's input, output and temp folder, by type.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)
        self._made_like = _states(self._folders)
        self._root = root = places.beside(self._folders["output"])
        self._turn, self._next = root / "turn", root / "next"
        self._change = threading.Condition()
        #: The runs that this process has had.
        self._runs: dict[str, None] = {}
        #: How often each thread has the folders.
        self._users: Counter[int] = Counter()
        self._held: int | None = None
        self._is_swept = False
        self._sharers = _Sharers(places.beside(self._folders["input"]) / "users", root.name)
        self._late = LateFiles(root, is_input_shared=self._sharers.are_there)
        self._kept = root / f"kept-{uuid.uuid4().hex[:12]}"
        #: Held as long as this process lives: tells its folder from those of the dead.
        self._life = self._new_life()

    def _new_life(self) -> int:
        self._kept.mkdir(mode=0o700, exist_ok=True)
        return locks.lock(self._kept / _LIFE)

    def _make_again(self) -> None:
        """Make our own folders again, should they have been cleaned up since the last job. Raises OSError."""
        places.make(self._root)
        if not locks.is_at(self._life, self._kept / _LIFE):
            logger.warning("the folder for what jobs have made is gone, and is made again: %s", self._kept)
            # Should the new one fail, the next job must find that this one is gone.
            gone, self._life = self._life, self._new_life()
            os.close(gone)
        self._sharers.stay()
        places.touch(self._turn, self._next, self._kept / _LIFE)

    def follow(self, folders: Mapping[str, Path]) -> None:
        """Note where the engine's folders are now: a process that takes another's place has its own temp folder."""
        with self._change:
            self._folders = dict(folders)
            self._made_like = _states(self._folders)

    def is_operators(self, name: str) -> bool:
        """Whether a file in the input folder is the operator's, for all owners. `name`: its way there, without `..`."""
        with self._change:
            folder = self._folders["input"]
            return self._late.is_operators(folder.resolve() / name, folder)

    def restore(self) -> None:
        """Make ComfyUI's folders again that are gone, or that a node has put something else in the place of.

        All jobs need them. What is in their place is moved out, and what a link there leads to stays. Raises OSError.
        """
        for kind, folder in self._folders.items():
            if folder.is_dir() and not folder.is_symlink():
                self._restore_rights(kind, folder)
                continue
            if folder.is_symlink() or folder.exists():
                logger.warning(
                    "a node has put something else in the place of ComfyUI's %s folder: it is moved out", kind
                )
                self._late.move_out(folder)
            if (like := self._made_like.get(kind)) is not None:
                logger.warning("ComfyUI's %s folder is gone: it is made again, empty", kind)
                _make_like(folder, like)

    def _restore_rights(self, kind: str, folder: Path) -> None:
        """Give ComfyUI's user the rights again that a node has taken from a folder."""
        like = self._made_like.get(kind)
        missing = 0 if like is None else like.st_mode & stat.S_IRWXU & ~folder.stat().st_mode
        if missing:
            try:
                folder.chmod(stat.S_IMODE(folder.stat().st_mode) | missing)
            except OSError as error:  # it is another user's: then its rights are the operator's business
                logger.warning("ComfyUI's %s folder lacks rights that it had: %s", kind, error)
            else:
                logger.warning("a node had taken rights from ComfyUI's %s folder: they are given again", kind)

    def kept(self, run: str) -> Path:
        """Where the files of a run are kept. It need not exist."""
        with self._change:
            self._runs[run] = None
            while len(self._runs) > _MAX_RUNS:
                del self._runs[next(iter(self._runs))]
        return self._kept / "runs" / run

    def kept_bytes(self, run: str) -> int:
        """The size of the kept files of a run, in bytes."""
        size_bytes = 0
        for folder, _, names in walk(self.kept(run)):
            for name in names:
                with suppress(FileNotFoundError):
                    size_bytes += Path(folder, name).lstat().st_size
        return size_bytes

    def forget(self, run: str) -> None:
        """Remove the kept files of a run. What cannot be removed is logged."""
        _remove_tree(self.kept(run))

    def close(self) -> None:
        """Remove all that is kept. The engine has ended."""
        with self._change:
            self._remove_ours()
            # Another process that has the folders says so itself.
            if (turn := locks.try_lock(self._turn, locks.ALONE, create=True)) is not None:
                self._late.end()
                os.close(turn)
        with suppress(OSError):
            os.close(self._life)
        self._sharers.leave()
        _remove_tree(self._kept)

    @contextmanager
    def hold(self, check: Callable[[], None] = lambda: None, *, owner: str | None = None) -> Iterator[None]:
        """Have the folders, from `with` to the end of the block; jobs of the same process may have them together.

        A thread that has them may ask again, whoever waits.

        Args:
            check: called while another process has them; ends the wait by raising.
            owner: whose job it is: what came late of another owner's leaves the folders first. None: nobody's.
        """
        self._acquire(check, owner)
        try:
            yield
        finally:
            with self._change:
                self._users[threading.get_ident()] -= 1
                self._users = +self._users
                if not self._users and self._held is not None:
                    self._late.see()
                    os.close(self._held)
                    self._held = None
                self._change.notify_all()

    def _acquire(self, check: Callable[[], None], owner: str | None) -> None:
        waits: int | None = None
        try:
            while True:
                with self._change:
                    me = threading.get_ident()
                    if self._users[me]:
                        self._users[me] += 1
                        return
                    if waits is not None and not locks.is_at(waits, self._next):
                        os.close(waits)  # the folder has been cleaned up: nobody would get a turn in it
                        waits = None
                    if waits is None:
                        self._make_again()
                        # Who waits holds this, so that a process with many jobs lets others have a turn.
                        waits = locks.try_lock(self._next, locks.ALONE, create=True)
                    if waits is not None and self._held is None:
                        self._held = locks.try_lock(self._turn, locks.ALONE, create=True)
                        if self._held is not None:
                            self._clear_for(owner)
                    if waits is not None and self._held is not None:
                        self._users[me] += 1
                        return
                check()
                time.sleep(_AGAIN_S)
        finally:
            if waits is not None:
                os.close(waits)

    def move_strays(self, since_s: float) -> None:
        """Move what has come into the folders that jobs write to since a moment, and is no job's, out of them."""
        with self._change:
            self._late.move_strays(self._written(), since_s)

    def _clear_for(self, owner: str | None) -> None:
        """Make the folders ready for a job of this owner, now that this process has them. Raises OSError."""
        try:
            self.restore()
            self._tidy()
            if owner is not None:
                self._late.change(owner, self._folders)
        except BaseException:
            if self._held is not None:
                os.close(self._held)
                self._held = None
            raise

    def _tidy(self) -> None:
        """Remove what is left of runs that are over: now that no run of ours has the folders, all of ours are.

        A node that was given up, and went on, may have made something since.
        """
        if not self._is_swept:
            self._sweep()
            self._is_swept = True
        self._remove_ours()

    def _remove_ours(self) -> None:
        for written in self._written():
            for folder in _folders_in(written / JOBS_FOLDER):
                if folder.name in self._runs:
                    _remove_tree(folder)

    def _written(self) -> list[Path]:
        return [self._folders[kind] for kind in WRITTEN if kind in self._folders]

    def _sweep(self) -> None:
        """Remove what processes that are gone have left: files of jobs that they had in hand."""
        for subfolder in () if self._sharers.are_there() else own_folders():
            for file in files_in(self._folders["input"] / subfolder):
                if OWN_NAME.fullmatch(file.name) or UNFINISHED_NAME.fullmatch(file.name):
                    delete(Path(file.path))
        for kept in self._kept.parent.glob("kept-*"):
            life = locks.try_lock(kept / _LIFE, locks.ALONE)
            if life is None:
                continue
            for run in _folders_in(kept / "runs"):
                for written in self._written():
                    _remove_tree(written / JOBS_FOLDER / run.name)
            _remove_tree(kept)
            os.close(life)


_LIFE = "life"
_ALWAYS_THERE = ("input", "output")


def _states(folders: Mapping[str, Path]) -> dict[str, os.stat_result]:
    """What to make folders like: those that there always are. ComfyUI makes the others when it needs them."""
    return {kind: folder.stat() for kind, folder in folders.items() if kind in _ALWAYS_THERE and folder.is_dir()}


def _make_like(folder: Path, like: os.stat_result) -> None:
    """Make a folder, and those around it that are not there, with the owner and the rights of another one."""
    if not folder.parent.is_dir():
        _make_like(folder.parent, like)
    folder.mkdir(exist_ok=True)
    os.chown(folder, like.st_uid, like.st_gid)
    folder.chmod(stat.S_IMODE(like.st_mode))


class _Sharers:
    """Who else has jobs in an input folder: processes whose engines have an output folder of their own.

    These do not take turns with us. What they have in the input folder is in use.

    Args:
        folder: has a file for each output folder, which processes with that one have locked together.
        own: the name of ours.
    """

    def __init__(self, folder: Path, own: str) -> None:
        self._folder, self._own = folder, own
        self._is_told = False
        self._lock: int | None = self._new_lock()

    def _new_lock(self) -> int:
        places.make(self._folder.parent)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return locks.lock(self._folder / self._own, locks.SHARED)

    def stay(self) -> None:
        """Be seen by the others, also if our file has been cleaned up since. Raises OSError."""
        if self._lock is not None and not locks.is_at(self._lock, self._folder / self._own):
            gone, self._lock = self._lock, self._new_lock()
            os.close(gone)
        places.touch(self._folder / self._own)

    def are_there(self) -> bool:
        """Whether there are any now."""
        files: list[Path] = []
        with suppress(FileNotFoundError):  # it has just been cleaned up
            files = list(self._folder.iterdir())
        for file in files:
            if file.name == self._own:
                continue
            free = locks.try_lock(file, locks.ALONE)
            if free is None:
                if not self._is_told:
                    logger.warning(
                        "Another worker has jobs in the same input folder: what nodes write there stays, for the jobs "
                        "of all owners. Give each worker an input folder of its own (--input-directory)."
                    )
                self._is_told = True
                return True
            os.close(free)
        return False

    def leave(self) -> None:
        """Have no more jobs in it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def place_file(source: Path, name: str, *, subfolder: str, folder: Path) -> bool:
    """Copy a file into the engine's input folder.

    Returns:
        False if ComfyUI must be asked instead: the name is taken by other bytes, or leads out of the folder.
    """
    target = (folder / subfolder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        return False
    if target.exists():
        return filecmp.cmp(source, target, shallow=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: another job may look for the same name at the same moment.
    temporary = target.with_name(f".{uuid.uuid4()}.part")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system cannot. Raises OSError."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def files_in(folder: Path) -> list[os.DirEntry[str]]:
    """The files of a folder, no links; none if it is no folder itself."""
    if folder.is_symlink():
        return []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    return []


def names_below(folder: Path) -> Iterator[str]:
    """The names of all files below a folder, each with and without its way there. Links to folders are not followed."""
    for path, _, names in walk(folder):
        way = Path(path).relative_to(folder)
        for name in names:
            yield name
            yield (way / name).as_posix()


def delete(path: Path) -> None:
    """Delete a file that a job has brought, if it is there. What cannot be deleted is logged."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("an input file could not be deleted: %s", error)


def _folders_in(folder: Path) -> list[Path]:
    # ComfyUI removes its temp folder at its start and end. A node may have put a link in the folder's place.
    if folder.is_symlink():
        return []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def _remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; links are not followed. What cannot be removed is logged."""
    if folder.is_dir() and not folder.is_symlink():
        try:
            remove_tree(folder)
        except OSError:  # there is a folder in it in which nothing may be changed
            make_writable(folder)
            try:
                remove_tree(folder)
            except OSError:
                _remove_what_can_be(folder)


def _remove_what_can_be(folder: Path) -> None:
    try:
        shutil.rmtree(folder, onerror=lambda _, path, error: logger.warning("%r not removed: %s", str(path), error[1]))
    except RecursionError:
        logger.warning("%r not removed: it is too deep", str(folder))
