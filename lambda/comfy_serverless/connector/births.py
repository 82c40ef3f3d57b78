"""When a file was made: neither a new name nor new times change that. Python's `os.stat` does not tell it."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME = -100, 0x100, 0x800
#: See statx(2): the mask of what was found is the first field of a struct of 256 bytes, `stx_btime` is at 0x50.
_SIZE_BYTES, _BIRTH_AT = 256, 0x50
_SECONDS = 1e9


def birth_s(path: str | Path) -> float | None:
    """When a file was made, in seconds since the epoch; None where neither the system nor the file system knows it."""
    if not sys.platform.startswith("linux"):
        return None
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if statx is None:  # a C library from before 2018
        return None
    found = ctypes.create_string_buffer(_SIZE_BYTES)
    if statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, found) != 0:
        return None
    (mask,) = struct.unpack_from("=I", found)
    seconds, nanoseconds = struct.unpack_from("=qI", found, _BIRTH_AT)
    return seconds + nanoseconds / _SECONDS if mask & _STATX_BTIME else None
