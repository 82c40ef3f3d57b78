"""Which calls of the kernel a child may make: none that opens the network, starts a program or reaches other processes.

A decoder needs none of them. So a file that has taken a child over can reach neither the worker's network (on Lambda:
the Runtime API), nor our process, nor start another program. The kernel checks it (seccomp) for as long as the process
lives; the call fails with EPERM. What is named below is refused, and everything else allowed: libraries of decoders
differ, and none may fail for a call that does no harm.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from dataclasses import dataclass
from typing import Final

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
#: Instructions of the kernel's filters: load a word, compare, return.
_LOAD, _EQUALS, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
#: Where the number of the call, the architecture and the low half of its first argument stand.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
#: Calls of the ABI x32 of an x86-64 machine have their numbers above this.
_X32: Final = 0x40000000
#: The same numbers on all machines.
_NEW: Final = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438}


@dataclass(frozen=True, slots=True)
class _Machine:
    """A kind of machine.

    Attributes:
        architecture: as the kernel calls it.
        refused: the numbers of the calls that no child may make.
        on_itself: those that it may make about itself only: their first argument is a process id.
    """

    architecture: int
    refused: dict[str, int]
    on_itself: dict[str, int]


_MACHINES: Final = {
    "x86_64": _Machine(
        0xC000003E,
        {
            "socket": 41,
            "connect": 42,
            "accept": 43,
            "bind": 49,
            "listen": 50,
            "socketpair": 53,
            "accept4": 288,
            "execve": 59,
            "execveat": 322,
            "ptrace": 101,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "kill": 62,
            "tkill": 200,
            "rt_sigqueueinfo": 129,
            "rt_tgsigqueueinfo": 297,
            "unshare": 272,
            "setns": 308,
            "mount": 165,
            "open_by_handle_at": 304,
            "bpf": 321,
            "perf_event_open": 298,
            "userfaultfd": 323,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
        },
        {"tgkill": 234, "prlimit64": 302},
    ),
    "aarch64": _Machine(
        0xC00000B7,
        {
            "socket": 198,
            "connect": 203,
            "accept": 202,
            "bind": 200,
            "listen": 201,
            "socketpair": 199,
            "accept4": 242,
            "execve": 221,
            "execveat": 281,
            "ptrace": 117,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "kill": 129,
            "tkill": 130,
            "rt_sigqueueinfo": 138,
            "rt_tgsigqueueinfo": 240,
            "unshare": 97,
            "setns": 268,
            "mount": 40,
            "open_by_handle_at": 265,
            "bpf": 280,
            "perf_event_open": 241,
            "userfaultfd": 282,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
        },
        {"tgkill": 131, "prlimit64": 261},
    ),
}


class _Program(ctypes.Structure):
    """The kernel's `sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def give_up_calls() -> int | None:
    """Have the kernel refuse these calls to this process, which has given up new rights (`no_new_privs`) before.

    Returns:
        None; where the platform has no such filter, or forbids it, why: an error's number. Nothing is refused then.
    """
    machine = _MACHINES.get(platform.machine()) if sys.platform.startswith("linux") else None
    if machine is None:
        return errno.ENOSYS
    instructions = _filter_of(machine)
    program = _Program(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        return ctypes.get_errno() or errno.EPERM
    return None


def _filter_of(machine: _Machine) -> bytes:
    refuse = _instruction(_RETURN, _REFUSE)
    parts = [_instruction(_LOAD, _ARCHITECTURE), _instruction(_EQUALS, machine.architecture, then=1), refuse]
    parts.append(_instruction(_LOAD, _NUMBER))
    parts += [_instruction(_AT_LEAST, _X32, otherwise=1), refuse]
    for number in sorted({*machine.refused.values(), *_NEW.values()}):
        parts += [_instruction(_EQUALS, number, otherwise=1), refuse]
    for name, number in machine.on_itself.items():
        also = 0 if name == "prlimit64" else os.getpid()
        parts += [
            _instruction(_EQUALS, number, otherwise=5),
            _instruction(_LOAD, _FIRST_ARGUMENT),
            _instruction(_EQUALS, os.getpid(), then=2),
            _instruction(_EQUALS, also, then=1),
            refuse,
            _instruction(_RETURN, _ALLOW),
        ]
    parts.append(_instruction(_RETURN, _ALLOW))
    return b"".join(parts)


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; `then` and `otherwise` are how many of the next are left out."""
    return struct.pack("=HBBI", code, then, otherwise, value)
