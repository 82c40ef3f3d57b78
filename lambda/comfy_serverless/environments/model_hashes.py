"""Hashes large files, several at once, and remembers what it has hashed: a second run over the same files is instant.

A file is the same as long as its size, its time of change and its place on the disk are. What is remembered may be
lost at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Disks are seldom faster with more readers, and hashing one file takes one processor.
_AT_ONCE: Final = max(2, min(8, os.cpu_count() or 2))
_PIECE_BYTES: Final = 4_000_000
_MOST_REMEMBERED: Final = 50_000
_MOST_CACHE_BYTES: Final = 50_000_000

#: Called with the bytes that have been hashed since the last call; from several threads, one at a time.
Progress = Callable[[int], None]


class HashCache:
    """The hashes of files of earlier runs, in a file of this user."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def get(self, file: Path) -> str | None:
        """The SHA-256 of a file as it is now; None if it is not known, or the file is another since."""
        return self._known.get(_identity(file))

    def keep(self, hashes: Mapping[Path, str]) -> None:
        """Remember these, too. A cache that cannot be written costs time and nothing else."""
        for file, sha256 in hashes.items():
            identity = _identity(file)
            self._known.pop(identity, None)
            self._known[identity] = sha256
        newest = dict(list(self._known.items())[-_MOST_REMEMBERED:])
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part.write_text(json.dumps(newest), encoding="utf-8", errors="surrogateescape")
            part.replace(self._path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def hash_files(
    files: Sequence[Path], cache: HashCache, *, progress: Progress
) -> tuple[dict[Path, str], dict[Path, OSError]]:
    """The SHA-256 of each file, and what went wrong with those that could not be read."""
    known = {file: sha256 for file in files if (sha256 := cache.get(file)) is not None}
    new: dict[Path, str] = {}
    failed: dict[Path, OSError] = {}
    stopped, turn = threading.Event(), threading.Lock()

    def tell(count: int) -> None:
        with turn:
            progress(count)

    def hash_one(file: Path) -> None:
        try:
            new[file] = _sha256(file, tell, stopped)
        except OSError as error:
            failed[file] = error

    unknown = [file for file in dict.fromkeys(files) if file not in known]
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hash")
    try:
        for _ in pool.map(hash_one, unknown):
            pass
    finally:  # also after Ctrl-C: what has been hashed is not hashed again
        stopped.set()
        pool.shutdown(cancel_futures=True)
        if new:
            cache.keep({file: sha256 for file, sha256 in new.items() if sha256})
    return {**known, **new}, failed


def _sha256(file: Path, tell: Progress, stopped: threading.Event) -> str:
    hasher = hashlib.sha256()
    with file.open("rb", buffering=0) as source:
        while not stopped.is_set() and (piece := source.read(_PIECE_BYTES)):
            hasher.update(piece)
            tell(len(piece))
    return "" if stopped.is_set() else hasher.hexdigest()


def _identity(file: Path) -> str:
    """What a file is told by as it is now; raises nothing: a file that has gone is told by its name."""
    try:
        status = file.stat()
    except OSError:
        return str(file)
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST_CACHE_BYTES))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str) and len(value) == 64}
