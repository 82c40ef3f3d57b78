"""Locks on files: they hold between threads and between processes alike, and end with their holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

SHARED, ALONE = fcntl.LOCK_SH, fcntl.LOCK_EX


def try_lock(path: Path, kind: int, *, create: bool = False) -> int | None:
    """Open a file and lock it; return its descriptor, which ends the lock when it is closed.

    None if another holder has the lock, or if the file is not there, or no longer.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        if try_change(descriptor, kind) and is_at(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def try_change(descriptor: int, kind: int) -> bool:
    """Lock an open file, or change the kind of its lock. If that fails a lock it had may be gone."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(path: Path, kind: int = ALONE) -> int:
    """Wait for a lock that others only ever hold for a moment, but for those who share it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(descriptor, kind)
    return descriptor


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path: it may have been removed or replaced meanwhile."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
