"""Where files really are: their paths with all links resolved, as texts: a job waits for this, and `Path` is slow."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress

#: In the kernel's list of mounts, a character that would end a word or a line.
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def real_folder(folder: str) -> str:
    """Where a folder is. The kernel says it at once; `realpath` asks it for each part of the path.

    Raises:
        ValueError: nothing can be called that: it has a NUL in it.
        OSError: a link on the way may not be read, as some of /proc, or has just gone.
    """
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it is not there, or no folder
        return os.path.realpath(folder)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # there is no /proc
        return os.path.realpath(folder)
    finally:
        os.close(descriptor)


def way_below(folder: str, path: str) -> str | None:
    """The way from a folder to what is in it, "" to itself; None to what is elsewhere."""
    if path == folder:
        return ""
    return path[len(folder) + 1 :] if path.startswith(f"{folder}/") else None


def folder_below(folder: str, relative: str) -> str | None:
    """A folder in a folder, which has no links on its way; None if it leads out of that, or cannot be known."""
    try:
        found = real_folder(os.path.join(folder, relative))
    except (OSError, ValueError):
        return None
    return None if way_below(folder, found) is None else found


def path_below(folder: str, relative: str) -> str | None:
    """The same for what may be a file: not the folder itself."""
    try:
        path = os.path.realpath(os.path.join(folder, relative))
    except (OSError, ValueError):
        return None
    return path if way_below(folder, path) else None


def make_writable(folder: str | os.PathLike[str]) -> None:
    """Let this user change what is in a folder and in those below it, as far as it may. Links are not followed.

    A node that copies a folder copies its rights, also of a place into which nobody may write.
    """
    pending = [os.fspath(folder)]
    while pending:
        path = pending.pop()
        with suppress(OSError):
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode):
                if mode & stat.S_IRWXU != stat.S_IRWXU:
                    os.chmod(path, stat.S_IMODE(mode) | stat.S_IRWXU)
                with os.scandir(path) as entries:
                    pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def mounts_in(folder: str) -> frozenset[tuple[str, str]]:
    """What is mounted at a folder and below it: paths, each with its device. Only the operator can do that.

    A device does not tell it: a folder can be mounted at another place of its own file system.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            words = [line.split(b" ") for line in file]
    except OSError:  # there is no /proc
        return frozenset()
    mounts = ((os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), one[4])), one[2]) for one in words)
    return frozenset((path, device.decode()) for path, device in mounts if way_below(folder, path) is not None)


def walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, which raises RecursionError (Python 3.11) for folders as deep as a node can make them."""
    pending = [os.fspath(folder)]
    while pending:
        path = pending.pop()
        folders: list[str] = []
        files: list[str] = []
        with suppress(OSError):
            with os.scandir(path) as entries:
                for entry in entries:
                    (folders if entry.is_dir() else files).append(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
            yield path, folders, files


def remove_tree(folder: str | os.PathLike[str]) -> None:
    """Remove a folder with all that is in it, however deep it is. Raises OSError."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError) as error:  # it keeps each folder on its way open
        if isinstance(error, OSError) and error.errno not in (errno.EMFILE, errno.ENAMETOOLONG):
            raise
        subprocess.run(["rm", "-rf", "--", os.fspath(folder)], check=False, capture_output=True)
        if os.path.lexists(folder):
            raise OSError(errno.ENOTEMPTY, "cannot be removed, it is too deep", os.fspath(folder)) from None
