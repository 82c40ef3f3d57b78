"""What the child may still do if a file has taken it over: nearly nothing that the user of its process may not.

Its user is ours. The kernel lets a process look into another one of its user (`/proc/…/environ`, `mem`) only if it has
all of that one's capabilities and that one is "dumpable"; on a worker ours is not (`connector.confinement`). So a child
of root gives its capabilities up, and no child gets any back by starting a program. Nor may ComfyUI, which is of our
user on Lambda, look into a child: that has the files of another owner's next job in hand.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CAPABILITIES_V3 = 0x20080522
#: Root keeps the right to read: in a development container the libraries may belong to somebody else.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


def give_up_rights() -> None:
    """Give up capabilities, and close this process to others of its user (Linux; else nothing).

    The kernel ends it first where memory is short.

    Raises OSError if the kernel refuses.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError):  # some platforms let nobody choose
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this process cannot be closed to others")
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, of the first 32 and the others
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities of this process cannot be read")
    kept = sets[1] & (1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    if libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities of this process cannot be given up")
