"""The contents: files named by their SHA-256, within a limit, the least recently used leaving first.

A job that uses a content holds a shared lock on its file, and one that fetches it a lock on its temporary file; both
hold between threads and between processes, and end with the process. So a content in use is never evicted, it is
fetched once at a time, and files of a dead process can be told from those of a living one.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from comfy_serverless import locks

logger = logging.getLogger(__name__)

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class NoRoom(Exception):
    """A content does not fit, even after everything that is not in use has been evicted.

    `later`: it would fit if nothing else were in use.
    """

    def __init__(self, reason: str, *, later: bool) -> None:
        super().__init__(reason)
        self.later = later


class Partial(NamedTuple):
    """A content being fetched: a locked temporary file."""

    path: Path
    descriptor: int


class Blobs:
    """The contents below a folder.

    `limit_bytes` is for all contents together, those being fetched included; None is half of the disk.
    """

    def __init__(self, directory: Path, *, limit_bytes: int | None) -> None:
        self._blobs = directory / "blobs"
        self._partial = directory / "partial"
        self._lock = directory / "lock"
        self._checked = directory / "checked"
        self.make_folders()
        if limit_bytes is None:
            disk = os.statvfs(directory)
            limit_bytes = disk.f_blocks * disk.f_frsize // 2
        self.limit_bytes = limit_bytes
        self._remove_leftovers()

    def make_folders(self) -> None:
        """Make the folders, also those that have been cleaned up since. Raises OSError."""
        for folder in (self._blobs, self._partial, self._checked):
            folder.mkdir(mode=0o700, exist_ok=True)

    def pin(self, sha256: str) -> int | None:
        """Keep a content from being evicted until the descriptor is closed. None if it is not there."""
        descriptor = locks.try_lock(self._blobs / sha256, locks.SHARED)
        if descriptor is not None:
            os.utime(descriptor)
        return descriptor

    def size_of(self, sha256: str) -> int | None:
        """The size of a content, in bytes. None if it is not there."""
        try:
            return (self._blobs / sha256).stat().st_size
        except FileNotFoundError:
            return None

    def is_checked(self, sha256: str) -> bool:
        """Whether this or another process has checked what a content is."""
        return (self._checked / sha256).exists()

    def note_checked(self, sha256: str) -> None:
        """Note that a content is what it should be, for as long as it is here. Raises OSError."""
        (self._checked / sha256).touch(mode=0o600)

    def begin(self, sha256: str) -> Partial | None:
        """Begin to fetch a content. None while another job does, or if it has just done so."""
        path = self._partial / sha256
        descriptor = locks.try_lock(path, locks.ALONE, create=True)
        return None if descriptor is None else Partial(path, descriptor)

    def allocate(self, partial: Partial, size_bytes: int) -> None:
        """Make room for a content that is being fetched. Raises NoRoom, or OSError if the disk cannot be written."""
        if size_bytes > self.limit_bytes:
            raise NoRoom(f"it has {size_bytes:,} bytes; all models may have {self.limit_bytes:,}", later=False)
        os.ftruncate(partial.descriptor, 0)
        with self._alone():
            while self._used_bytes() + size_bytes > self.limit_bytes:
                if not self._evict_one():
                    raise NoRoom(
                        f"it has {size_bytes:,} bytes, and of the {self.limit_bytes:,} bytes for models the others "
                        f"that are in use now take {self._used_bytes():,}",
                        later=True,
                    )
            os.ftruncate(partial.descriptor, size_bytes)
        while True:
            try:
                os.posix_fallocate(partial.descriptor, 0, size_bytes)
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    return  # a file system that cannot allocate: the writing itself will show
                with self._alone():
                    if not self._evict_one():
                        raise NoRoom(f"its {size_bytes:,} bytes do not fit on the disk", later=True) from error
            else:
                return

    def finish(self, partial: Partial, sha256: str) -> int | None:
        """Give a fetched and checked content its name, and pin it. None if it is evicted at the same moment."""
        blob = self._blobs / sha256
        os.fchmod(partial.descriptor, 0o644)
        partial.path.replace(blob)
        if locks.try_change(partial.descriptor, locks.SHARED) and locks.is_at(partial.descriptor, blob):
            os.utime(partial.descriptor)
            return partial.descriptor
        os.close(partial.descriptor)
        return None

    def abandon(self, partial: Partial) -> None:
        """Remove the part of a content that has been fetched."""
        with suppress(FileNotFoundError):
            partial.path.unlink()
        os.close(partial.descriptor)

    def _remove_leftovers(self) -> None:
        """Remove unlocked files: a process that died in the middle of fetching has left them."""
        for path in self._partial.iterdir():
            if path.is_file() and (descriptor := locks.try_lock(path, locks.ALONE)) is not None:
                logger.info("removed a model that a process which is gone had begun to fetch: %s", path.name)
                self.abandon(Partial(path, descriptor))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = locks.lock(self._lock)
        try:
            yield
        finally:
            os.close(descriptor)

    def _used_bytes(self) -> int:
        return sum(state.st_size for folder in (self._blobs, self._partial) for _, state in _files(folder))

    def _evict_one(self) -> bool:
        """Remove the least recently used content that no job holds."""
        for path, state in sorted(_files(self._blobs), key=lambda entry: entry[1].st_mtime_ns):
            descriptor = locks.try_lock(path, locks.ALONE)
            if descriptor is None:
                continue
            try:
                (self._checked / path.name).unlink(missing_ok=True)
                path.unlink()
            finally:
                os.close(descriptor)
            logger.info("model evicted", extra={"sha256": path.name, "bytes": state.st_size})
            return True
        return False


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in list(folder.iterdir()):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield path, path.stat()
