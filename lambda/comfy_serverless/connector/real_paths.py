"""Where files really are: their paths with all links resolved."""

from __future__ import annotations

import os
from pathlib import Path


def real_folder(folder: Path) -> Path:
    """Where a folder is. A job waits for this: the kernel says it at once, `Path.resolve` asks for each part of a path.

    Raises:
        OSError, ValueError: nothing can be called that: it is too long, has a NUL in it, or links that go round.
    """
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it is not there, or no folder
        return folder.resolve()
    try:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
    except OSError:  # there is no /proc
        return folder.resolve()
    finally:
        os.close(descriptor)


def folder_below(folder: Path, relative: str) -> Path | None:
    """A folder in a folder, which has no links on its way; None if it leads out of that."""
    try:
        found = real_folder(folder / relative)
    except (OSError, ValueError):
        return None
    return found if found.is_relative_to(folder) else None


def path_below(folder: Path, relative: Path) -> Path | None:
    """The same for what may be a file."""
    try:
        path = (folder / relative).resolve()
    except (OSError, ValueError):
        return None
    return path if path.is_relative_to(folder) else None
