"""The input files that we gave to ComfyUI: nothing is uploaded twice, and they never take more room than they may.

A file is named by its content, so equal content is one file. A job holds its files by `HeldFiles`; of those that no
job holds, the least recently used are deleted when there are too many. Only files that this process has put there
itself are deleted, and, in our own folders, those of a former life of it (successive processes of a Lambda sandbox
share /tmp). The folder may be emptied, and ComfyUI may come back with another one: so each file is checked before use.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.graph.file_inputs import own_folders
from comfy_serverless.worker.inputs.receive import DISK_IS_FULL, DiskFull

logger = logging.getLogger(__name__)

#: Characters of the SHA-256 in a file's name.
DIGEST_LENGTH = 32
TOO_LATE = "was not there when the job's time was over"
_OWN_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,8}")
_UNFINISHED_NAME = re.compile(r"\.[0-9a-f-]{36}\.part")
#: A file of another process is deleted when it has been unused this long, in seconds: that process may live, and share
#: the folder with this one.
_ABANDONED_S = 900.0
#: The most files that are remembered. Those of an engine elsewhere have no size to us.
_MAX_REMEMBERED = 10_000
#: The folder, the subfolder and the name.
_Key = tuple[str, str, str]


class Uploader(Protocol):
    """The methods of `comfy_serverless.ComfyConnector` that are needed here."""

    @property
    def starts(self) -> int: ...
    @property
    def input_directory(self) -> Path | None: ...
    def wait_ready(self, timeout_s: float | None = None) -> None: ...
    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str: ...
    def get_image(self, filename: str, subfolder: str, folder_type: str) -> bytes: ...


@dataclass(eq=False, slots=True)
class _Entry:
    """A file that ComfyUI has, or is about to get.

    Attributes:
        value: the value an input takes for it; "" before it is there.
        path: where it is on this machine; None for an engine elsewhere.
        is_ours: it may be deleted.
        is_inherited: a former life of this process has left it, and its content has not been checked yet.
    """

    key: _Key
    value: str = ""
    path: Path | None = None
    size_bytes: int = 0
    holders: int = 0
    is_ours: bool = False
    is_inherited: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class HeldFiles:
    """The files one job holds. None of them is deleted before `release`."""

    def __init__(self, cache: InputCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._held: list[_Entry] | None = []

    def bring(self, file: Path, name: str, *, subfolder: str, timeout_s: float) -> str:
        """Give ComfyUI a file, named by its SHA-256 (`DIGEST_LENGTH`); return the value an input takes for it.

        Raises Unusable if there is no room for it or the job has ended meanwhile, and as the connector does.
        """
        key = self._cache.locate(name, subfolder=subfolder, timeout_s=timeout_s)
        with self._lock:
            if self._held is None:
                raise Unusable(TOO_LATE, timed_out=True)
            entry = self._cache.hold(key)
            self._held.append(entry)
        return self._cache.put(entry, file)

    def release(self) -> None:
        """Let the files go: the job no longer needs them. Idempotent, never raises."""
        with self._lock:
            held, self._held = self._held or [], None
        self._cache.let_go(held)


class InputCache:
    """All input files of one process. Safe to use from several threads."""

    def __init__(self, connector: Uploader, *, max_bytes: int) -> None:
        self._connector = connector
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        #: The least recently used first.
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._searched: set[str] = set()

    def make_room(self) -> None:
        """Delete all files that no job holds, because the disk is full."""
        with self._lock:
            self._shrink_to(0, spares_recent=False)

    def locate(self, name: str, *, subfolder: str, timeout_s: float) -> _Key:
        """The place of a file in the present engine."""
        self._connector.wait_ready(timeout_s)
        folder = self._connector.input_directory
        if folder is None:
            return f"start {self._connector.starts}", subfolder, name
        with self._lock:
            if str(folder) not in self._searched:
                self._searched.add(str(folder))
                self._inherit(folder)
        return str(folder), subfolder, name

    def hold(self, key: _Key) -> _Entry:
        """The entry of a file, which stays until it is let go."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(key))
            entry.holders += 1
            self._entries.move_to_end(key)
            return entry

    def let_go(self, entries: list[_Entry]) -> None:
        """Take a holder from each entry."""
        with self._lock:
            for entry in entries:
                entry.holders -= 1
                if not entry.holders and not entry.value:  # the file never came
                    self._entries.pop(entry.key, None)
            self._shrink_to(self._max_bytes)

    def put(self, entry: _Entry, file: Path) -> str:
        """Give ComfyUI the file of an entry, unless it has it; return the value an input takes for it."""
        with entry.lock:  # two jobs that bring the same file upload it once
            if self._is_there(entry):
                return entry.value
            size_bytes = file.stat().st_size
            with self._lock:
                self._shrink_to(self._max_bytes - size_bytes)
            self._upload(entry, file)
            entry.size_bytes = size_bytes
            return entry.value

    def _upload(self, entry: _Entry, file: Path) -> None:
        folder, subfolder, name = entry.key
        is_local = self._connector.input_directory is not None
        had_it_before = is_local and Path(folder, subfolder, name).exists()
        for is_last in (False, True):
            try:
                entry.value = self._connector.upload_file(file, name, subfolder=subfolder)
                break
            except OSError as error:
                if error.errno not in DISK_IS_FULL:
                    raise
                if is_last:
                    reason = f"cannot be stored in ComfyUI's input folder: {error.strerror}"
                    raise DiskFull(reason, transient=True) from error
                self.make_room()
        entry.path = Path(folder, entry.value) if is_local else None
        entry.is_ours = is_local and (bool(subfolder) or not had_it_before)

    def _is_there(self, entry: _Entry) -> bool:
        """Whether ComfyUI has the file. An engine elsewhere is believed to have what was uploaded."""
        if not entry.value or entry.path is None:
            return bool(entry.value)
        try:
            state = entry.path.stat()
            is_whole = state.st_size == entry.size_bytes
            if not is_whole or (entry.is_inherited and not _has_content_of_its_name(entry.path)):
                logger.warning("%s has been changed: it is brought again", entry.path)
                if entry.is_ours:
                    entry.path.unlink()
                return False
            # The time of the last change stays: LoadVideo takes it for the content.
            os.utime(entry.path, ns=(time.time_ns(), state.st_mtime_ns))
        except FileNotFoundError:
            return False
        entry.is_inherited = False
        return True

    def _shrink_to(self, max_bytes: int, *, spares_recent: bool = True) -> None:
        """Delete files that no job holds, the least recently used first. Under the lock.

        `spares_recent` leaves those that another process may still be using.
        """
        size_bytes = sum(entry.size_bytes for entry in self._entries.values() if entry.is_ours)
        too_many = len(self._entries) - _MAX_REMEMBERED
        for entry in list(self._entries.values()):
            if size_bytes <= max_bytes and too_many <= 0:
                return
            if entry.holders or (spares_recent and entry.is_inherited and not _is_abandoned(entry)):
                continue
            del self._entries[entry.key]
            too_many -= 1
            if entry.is_ours and entry.path is not None:
                size_bytes -= entry.size_bytes
                _delete(entry.path)

    def _inherit(self, folder: Path) -> None:
        """Take over the files that a former life of this process has left in our own folders. Under the lock."""
        left: list[tuple[float, _Entry]] = []
        for subfolder in own_folders():
            for file in _files_in(folder / subfolder):
                state = file.stat(follow_symlinks=False)
                used_at = max(state.st_atime, state.st_mtime)
                path = Path(file.path)
                if _OWN_NAME.fullmatch(file.name):
                    key = (str(folder), subfolder, file.name)
                    entry = _Entry(key, f"{subfolder}/{file.name}", path, state.st_size)
                    entry.is_ours = entry.is_inherited = True
                    left.append((used_at, entry))
                elif _UNFINISHED_NAME.fullmatch(file.name) and used_at < time.time() - _ABANDONED_S:
                    _delete(path)
        self._entries.update({entry.key: entry for _, entry in sorted(left, key=lambda pair: pair[0])})


def _files_in(folder: Path) -> Iterator[os.DirEntry[str]]:
    if folder.is_symlink() or not folder.is_dir():
        return
    with os.scandir(folder) as files:
        yield from (file for file in files if file.is_file(follow_symlinks=False))


def _has_content_of_its_name(path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH] == path.stem


def _is_abandoned(entry: _Entry) -> bool:
    """Whether a file has been unused for long, or is gone."""
    try:
        state = entry.path.stat() if entry.path is not None else None
    except FileNotFoundError:
        return True
    return state is None or max(state.st_atime, state.st_mtime) < time.time() - _ABANDONED_S


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("an input file could not be deleted: %s", error)
