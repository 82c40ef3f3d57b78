"""The input files that jobs have brought: fetched once, shown to ComfyUI while their job runs, bounded.

A file is named by its content, so equal content is one file. Those of an engine on this machine are kept beside its
input folder, where no node can list them, and are linked into it for the jobs that have brought them, as long as these
are in ComfyUI. An engine elsewhere is given each file once, and keeps it.

A job holds its files by `HeldFiles`; of those that no job holds, the least recently used are deleted when there are too
many, also those of a former life of this process (successive processes of a Lambda sandbox share /tmp). The folder may
be emptied, and ComfyUI may come back with another one: so each file is checked before use.
"""

from __future__ import annotations

import filecmp
import hashlib
import logging
import os
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from comfy_serverless.connector.folders import OWN_NAME, UNFINISHED_NAME, delete, files_in, link_or_copy
from comfy_serverless.connector.places import beside
from comfy_serverless.errors import AssetUnavailable
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.worker.inputs.receive import DISK_IS_FULL, DiskFull

logger = logging.getLogger(__name__)

#: Characters of the SHA-256 in a file's name.
DIGEST_LENGTH = 32
TOO_LATE = "was not there when the job's time was over"
#: A file of another process is deleted when it has been unused this long, in seconds: that process may live, and share
#: the folder with this one.
_ABANDONED_S = 900.0
#: The most files that are remembered. Those of an engine elsewhere have no size to us.
_MAX_REMEMBERED = 10_000
#: Everybody may read a file that is shown, and nobody may change it: the next job's is the same.
_READ_ONLY = 0o444


class _Key(NamedTuple):
    """A file: the folder it is kept in, or the start of an engine elsewhere and the subfolder there; its name."""

    place: str
    name: str
    subfolder: str = ""


class Uploader(Protocol):
    """The methods of `comfy_serverless.ComfyConnector` that are needed here."""

    @property
    def starts(self) -> int: ...
    @property
    def input_directory(self) -> Path | None: ...
    def is_for_all(self, name: str) -> bool: ...
    def wait_ready(self, timeout_s: float | None = None) -> None: ...
    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str: ...
    def get_image(self, filename: str, subfolder: str, folder_type: str) -> bytes: ...


@dataclass(eq=False, slots=True)
class _Entry:
    """A file that was brought, or is about to be.

    Attributes:
        value: the value that an input takes for it, of an engine elsewhere; "" before it is there.
        path: where it is on this machine; None before it is there, and for an engine elsewhere.
        changed_ns: the time of its last change.
        is_inherited: a former life of this process has left it, and its content has not been checked yet.
    """

    key: _Key
    value: str = ""
    path: Path | None = None
    size_bytes: int = 0
    changed_ns: int = 0
    holders: int = 0
    is_inherited: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_there(self) -> bool:
        return bool(self.value) or self.path is not None


class HeldFiles:
    """The files one job holds. None of them is deleted before `release`."""

    def __init__(self, cache: InputCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._held: list[_Entry] | None = []
        #: By their names in ComfyUI's input folder, that folder.
        self._names: dict[Path, tuple[_Entry, Path]] = {}
        self._shown: list[Path] = []

    def bring(self, file: Path, name: str, *, subfolder: str, timeout_s: float) -> str:
        """Take a file, named by its SHA-256 (`DIGEST_LENGTH`); return the value an input takes for it.

        Raises Unusable if there is no room for it or the job has ended meanwhile, and as the connector does.
        """
        key, folder = self._cache.locate(name, subfolder=subfolder, timeout_s=timeout_s)
        with self._lock:
            if self._held is None:
                raise Unusable(TOO_LATE, timed_out=True)
            entry = self._cache.hold(key)
            self._held.append(entry)
        self._cache.put(entry, file)
        if folder is None:
            return entry.value
        place = _free_name(entry, folder / subfolder / name)
        with self._lock:
            self._names[place] = entry, folder
        return str(place.relative_to(folder))

    def show(self, deadline: float) -> None:  # noqa: ARG002  (as all that is shown)
        """Let ComfyUI see the files: it is the job's turn.

        Raises AssetUnavailable if they cannot be put into its input folder.
        """
        with self._lock:
            for name, (entry, folder) in self._names.items():
                self._cache.show(entry, name, folder)
                self._shown.append(name)

    def release(self) -> None:
        """Take the files out of ComfyUI's sight and let them go: the job no longer needs them.

        Idempotent, never raises.
        """
        with self._lock:
            held, self._held = self._held or [], None
            shown, self._shown = self._shown, []
        self._cache.hide(shown)
        self._cache.let_go(held)


class InputCache:
    """All input files of one process. Safe to use from several threads."""

    def __init__(self, connector: Uploader, *, max_bytes: int) -> None:
        self._connector = connector
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        #: The least recently used first.
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._searched: set[Path] = set()
        self._swept: set[Path] = set()
        #: How many jobs are shown a file of ours under a name.
        self._shown: Counter[Path] = Counter()

    def make_room(self) -> None:
        """Delete all files that no job holds, because the disk is full."""
        with self._lock:
            self._shrink_to(0, spares_recent=False)

    def locate(self, name: str, *, subfolder: str, timeout_s: float) -> tuple[_Key, Path | None]:
        """The place of a file for the present engine, and the engine's input folder if it is on this machine."""
        self._connector.wait_ready(timeout_s)
        folder = self._connector.input_directory
        if folder is None:
            return _Key(f"start {self._connector.starts}", name, subfolder), None
        kept = beside(folder) / "inputs"
        with self._lock:
            kept.mkdir(mode=0o700, exist_ok=True)
            if kept not in self._searched:
                self._searched.add(kept)
                self._inherit(kept)
        return _Key(str(kept), name), folder

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
                if not entry.holders and not entry.is_there:  # the file never came
                    self._entries.pop(entry.key, None)
            self._shrink_to(self._max_bytes)

    def put(self, entry: _Entry, file: Path) -> None:
        """Take in the file of an entry, unless it is there."""
        with entry.lock:  # two jobs that bring the same file bring it once
            if self._is_there(entry):
                return
            size_bytes = file.stat().st_size
            with self._lock:
                self._shrink_to(self._max_bytes - size_bytes)
            for is_last in (False, True):
                try:
                    self._take(entry, file)
                    break
                except OSError as error:
                    if error.errno not in DISK_IS_FULL:
                        raise
                    if is_last:
                        reason = f"cannot be stored for ComfyUI: {error.strerror}"
                        raise DiskFull(reason, transient=True) from error
                    self.make_room()
            entry.size_bytes = size_bytes

    def show(self, entry: _Entry, name: Path, folder: Path) -> None:
        """Give a file its name in ComfyUI's input folder."""
        with self._lock:
            try:
                self._sweep(folder)
                if self._shown[name] or _give_name(entry, name, folder):
                    self._shown[name] += 1
            except OSError as error:
                raise AssetUnavailable(f"an input cannot be put into ComfyUI's input folder: {error}") from error

    def hide(self, names: Iterable[Path]) -> None:
        """Take the names out of ComfyUI's input folder that no other job is shown."""
        with self._lock:
            for name in names:
                if self._shown[name]:
                    self._shown[name] -= 1
                    if not self._shown[name]:
                        delete(name)
            self._shown = +self._shown

    def _sweep(self, folder: Path) -> None:
        """Remove the names that a former life of this process has left in the input folder itself. Under the lock.

        Those in our own folders are removed by `EngineFolders`.
        """
        if folder in self._swept:
            return
        self._swept.add(folder)
        kept = beside(folder) / "inputs"
        for file in files_in(folder):
            with suppress(FileNotFoundError):
                if OWN_NAME.fullmatch(file.name) and os.path.samestat(file.stat(), (kept / file.name).stat()):
                    delete(Path(file.path))

    def _take(self, entry: _Entry, file: Path) -> None:
        folder = self._connector.input_directory
        if folder is None or entry.key.place != str(beside(folder) / "inputs"):
            entry.value = self._connector.upload_file(file, entry.key.name, subfolder=entry.key.subfolder)
            return
        kept = Path(entry.key.place, entry.key.name)
        unfinished = kept.with_name(f".{uuid.uuid4()}.part")
        try:
            link_or_copy(file, unfinished)
            unfinished.chmod(_READ_ONLY)
            unfinished.replace(kept)
        finally:
            unfinished.unlink(missing_ok=True)
        entry.path, entry.changed_ns = kept, kept.stat().st_mtime_ns

    def _is_there(self, entry: _Entry) -> bool:
        """Whether a file is there, as it was brought. An engine elsewhere is believed to have what was uploaded."""
        if entry.path is None:
            return entry.is_there
        try:
            state = entry.path.stat()
            is_same = state.st_size == entry.size_bytes and state.st_mtime_ns == entry.changed_ns
            if not is_same or (entry.is_inherited and not _has_content_of_its_name(entry.path)):
                logger.warning("%s has been changed: it is brought again", entry.path)
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
        size_bytes = sum(entry.size_bytes for entry in self._entries.values())
        too_many = len(self._entries) - _MAX_REMEMBERED
        for entry in list(self._entries.values()):
            if size_bytes <= max_bytes and too_many <= 0:
                return
            if entry.holders or (spares_recent and entry.is_inherited and not _is_abandoned(entry)):
                continue
            del self._entries[entry.key]
            too_many -= 1
            if entry.path is not None:
                size_bytes -= entry.size_bytes
                delete(entry.path)

    def _inherit(self, kept: Path) -> None:
        """Take over the files that a former life of this process has left. Under the lock."""
        left: list[tuple[float, _Entry]] = []
        for file in files_in(kept):
            state = file.stat(follow_symlinks=False)
            used_at = max(state.st_atime, state.st_mtime)
            path = Path(file.path)
            if OWN_NAME.fullmatch(file.name):
                key = _Key(str(kept), file.name)
                entry = _Entry(key, path=path, size_bytes=state.st_size, changed_ns=state.st_mtime_ns)
                entry.is_inherited = True
                left.append((used_at, entry))
            elif UNFINISHED_NAME.fullmatch(file.name) and used_at < time.time() - _ABANDONED_S:
                delete(path)
        self._entries.update({entry.key: entry for _, entry in sorted(left, key=lambda pair: pair[0])})


def _free_name(entry: _Entry, name: Path) -> Path:
    """The name for a file, or one beside it if the operator has another file of that name."""
    number, free = 1, name
    while free.exists() and not _is_same(entry, free):
        number += 1
        free = name.with_stem(f"{name.stem}-{number}")
    return free


def _is_same(entry: _Entry, name: Path) -> bool:
    assert entry.path is not None  # noqa: S101  (it has been brought)
    return filecmp.cmp(entry.path, name, shallow=False)


def _give_name(entry: _Entry, name: Path, folder: Path) -> bool:
    """Link a file into the input folder; False if it is there already, and the operator's. Raises OSError."""
    assert entry.path is not None  # noqa: S101  (it has been brought)
    if name.exists():
        if not _is_same(entry, name):
            raise FileExistsError(f"it has another file of the name {name.name}")
        if name.parent == folder:
            return False
    if name.parent.is_symlink():
        raise NotADirectoryError(f"{name.parent.name} in it is a link")
    name.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all.
    unfinished = name.with_name(f".{uuid.uuid4()}.part")
    try:
        link_or_copy(entry.path, unfinished)
        unfinished.replace(name)
    finally:
        unfinished.unlink(missing_ok=True)
    return True


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
