"""Which files a child may open by their names: those of Python and its libraries, to read. No other, and none to write.

What a check is about comes as an open descriptor, which this leaves alone. So a file that has taken a child over can
read neither the files of its user nor what other jobs have left on the disk, and `calls` lets it write and delete none.
The kernel checks it (Landlock, Linux 5.13 and later, where it is switched on) for as long as the process lives; opening
another file fails with EACCES.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The same numbers on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
#: How many kinds of access each version of Landlock knows, from the first on: later ones know no fewer.
_KINDS: Final = (13, 14, 15, 15, 16)
#: What is decoded with, beside what is our own: found where they are installed, with the libraries they bring along.
_DECODERS: Final = ("PIL", "av")
#: Where shared libraries are, and the list of them.
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache")


def give_up_files() -> int | None:
    """Let the kernel refuse all other files to this process, which has given up new rights (`no_new_privs`) before.

    Returns:
        None; where the platform has no such rules, or forbids them, why: an error's number. Nothing is refused then.
    """
    if not sys.platform.startswith("linux"):
        return errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return ctypes.get_errno() or errno.ENOSYS
    known = struct.pack("=Q", (1 << _KINDS[min(version, len(_KINDS)) - 1]) - 1)
    rules = libc.syscall(_CREATE_RULESET, known, ctypes.c_size_t(len(known)), 0)
    if rules < 0:
        return ctypes.get_errno()
    try:
        for place in readable():
            _allow(libc, rules, place)
        if libc.syscall(_RESTRICT_SELF, rules, 0) != 0:
            return ctypes.get_errno()
    except OSError as error:
        return error.errno or errno.EPERM
    finally:
        os.close(rules)
    return None


def readable() -> set[Path]:
    """What a child may read: the folders of Python, of our package, of decoders and of shared libraries."""
    # Of what nobody can ask for, `Path` raises, and then nothing would be refused.
    return {Path(place).resolve() for place in _places() if place.startswith("/") and os.access(place, os.F_OK)}


def _places() -> Iterator[str]:
    yield from (sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    yield from (f"{prefix}/lib" for prefix in {sys.base_prefix, sys.base_exec_prefix})
    yield str(Path(__file__).parents[1])
    for name in _DECODERS:
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            yield str(Path(found.origin).parents[1])
    yield from os.environ.get("LD_LIBRARY_PATH", "").split(":")
    yield from _LIBRARIES


def _allow(libc: ctypes.CDLL, rules: int, place: Path) -> None:
    """Add a rule: what is below a folder, or a file, may be read."""
    kinds = _READ_FILE | _READ_FOLDER if place.is_dir() else _READ_FILE
    opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        if libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", kinds, opened), 0) != 0:
            raise OSError(ctypes.get_errno(), "a rule for files is refused")
    finally:
        os.close(opened)
