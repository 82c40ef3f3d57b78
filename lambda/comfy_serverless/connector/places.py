"""Our own folders among the temporary files: for this user alone, and made again when they are gone.

Who cleans a machine removes what is old, or empty, while a worker lives that needs it for its next job:
systemd-tmpfiles, tmpreaper, a hand. The first leaves alone what somebody has locked, with all that is in it, so the
folders are locked.
For the others nothing counts as there because it was made once: what a job needs is asked for by `make`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from comfy_serverless import locks

#: The descriptors of folders that this process has locked.
_locked: dict[Path, int] = {}
_locking = threading.Lock()


def beside(folder: Path) -> Path:
    """Our own folder for one of an engine's: on the same file system, out of ComfyUI's sight, for this user alone.

    Raises OSError if it cannot be made.
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    shared = Path(tempfile.gettempdir()) / f"comfy-serverless-{os.getuid()}"
    if shared.parent.stat().st_dev != folder.stat().st_dev:
        shared = folder.parent / ".comfy-serverless"
    own = shared / name
    make(own)
    return own


def make(own: Path) -> None:
    """Make one of the folders that `beside` names, unless it is there, and the one around it. Raises OSError.

    Raises PermissionError if another user has put something in their place.
    """
    for place in (own.parent, own):
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(f"{place} is not a folder of this user's own")
    hold(own.parent)


def hold(place: Path) -> None:
    """Keep a folder, and all that is in it, from being cleaned up by who asks for locks. Raises OSError."""
    with _locking:
        held = _locked.get(place)
        if held is not None and locks.is_at(held, place):
            return
        if held is not None:
            del _locked[place]
            os.close(held)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if locks.try_change(descriptor, fcntl.LOCK_SH):
            _locked[place] = descriptor
        else:  # it is being cleaned up at this moment: the next time
            os.close(descriptor)


def touch(*files: Path) -> None:
    """Make files new that are in use: what is old is cleaned up. One that is not there stays away."""
    for file in files:
        with suppress(OSError):
            os.utime(file)
