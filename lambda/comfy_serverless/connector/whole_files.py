"""Waits until files that nobody has named are whole: none of the engine's processes has them open for writing.

Linux tells it, and no file is opened for that. Where it does not, a file is whole once it has not changed for a moment.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from comfy_serverless.connector.made_files import TICK_S

logger = logging.getLogger(__name__)

#: How long a file must not have changed to be whole, in seconds, and the longest wait for all of them.
_AT_REST_S, _AT_REST_WITHIN_S = 0.03, 2.0
#: So many files are remembered that stay open: of each more, the engine's next job may have to wait again.
_MOST_KEPT_OPEN = 1000

#: A file by its device and inode.
FileId = tuple[int, int]


def when_whole(
    files: Sequence[tuple[str, os.stat_result]], *, pid: int | None = None, kept_open: set[str] | None = None
) -> list[tuple[str, os.stat_result]]:
    """These files, with what is known of each, once nothing writes to them; as they are after the longest wait.

    Args:
        pid: the engine's process; None where it is not known.
        kept_open: those that were waited for in vain, as logs of packs are, and are not again. Is added to.
    """
    kept_open, found = set() if kept_open is None else kept_open, []
    give_up_at = time.monotonic() + _AT_REST_WITHIN_S
    written = being_written(pid) if files else frozenset()
    for path, known in files:
        state = known
        while (is_open := (state.st_dev, state.st_ino) in written and path not in kept_open) or _is_fresh(state):
            if time.monotonic() >= give_up_at:
                if is_open and len(kept_open) < _MOST_KEPT_OPEN:
                    logger.warning("a file is still being written, and is taken as it is: %r", path[-200:])
                    kept_open.add(path)
                break
            time.sleep(_AT_REST_S)
            written = being_written(pid)  # first: what is closed by now has its last state
            with suppress(FileNotFoundError):
                state = os.lstat(path)
        found.append((path, state))
    return found


def _is_fresh(state: os.stat_result) -> bool:
    """Whether a file has just changed. It may have been given a time in the future."""
    return -TICK_S < time.time() - state.st_mtime < _AT_REST_S


def being_written(pid: int | None) -> frozenset[FileId]:
    """The files that a process, or one that it has started, may write to.

    None where the system does not say, or does not say it to this user.
    """
    found: set[FileId] = set()
    pending, seen = [] if pid is None else [pid], set[int]()
    while pending:
        process = pending.pop()
        if process in seen:
            continue
        seen.add(process)
        with suppress(OSError):  # it has just ended, is another user's, or this is no Linux
            pending += _children(process)
            found |= _written_by(process)
    return frozenset(found)


def _written_by(process: int) -> set[FileId]:
    found: set[FileId] = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # closed just now
            if _flags(process, descriptor.name) & os.O_ACCMODE != os.O_RDONLY:
                state = descriptor.stat()
                if stat.S_ISREG(state.st_mode):
                    found.add((state.st_dev, state.st_ino))
    return found


def _flags(process: int, descriptor: str) -> int:
    """What a descriptor was opened with (proc(5): `flags`, in octal)."""
    lines = Path(f"/proc/{process}/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), os.O_RDONLY)


def _children(process: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):  # it has just ended
            found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found
