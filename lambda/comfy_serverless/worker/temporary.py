"""Temporary files with a name, for what strangers send or a job has made. None outlives its process for long.

A process that is killed removes nothing, and its successor shares the disk (in a container, and in Lambda's sandbox).
So every file is locked as long as its process lives, and whoever starts removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PREFIX = "comfy-input-"
#: A younger file may not have got its lock yet, in seconds.
_YOUNG_S = 60.0


@contextmanager
def temporary_file() -> Iterator[IO[bytes]]:
    """An empty file, removed behind the block."""
    with tempfile.NamedTemporaryFile(prefix=_PREFIX) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file


def remove_left() -> None:
    """Remove the files of processes that were killed. Never raises."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, removed meanwhile, or held
            _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(descriptor).st_mtime > _YOUNG_S:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(descriptor)
