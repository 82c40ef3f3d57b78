"""Which calls of the kernel a child may make: none for the network, programs, processes, or changes that outlast it.

A decoder needs none of them. So a file that has taken a child over can reach neither the worker's network (on Lambda:
the Runtime API), nor our process, nor start another program, nor write, replace or delete a file: it writes into the
descriptors that it was given. It ends with the child (a limit of processes does not hold for root), and leaves nothing
to the next one in memory or messages that belong to no process. The kernel checks it (seccomp) for as long as the
process lives; the call fails with EPERM. What is named below is refused, and everything else allowed: libraries of
decoders differ, and none may fail for a call that does no harm. What may be read is in `files`.
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
_LOAD, _EQUALS, _AT_LEAST, _HAS_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW: Final = 0x7FFF0000
_ANSWER: Final = 0x00050000  # and an error's number
_REFUSE: Final = _ANSWER | errno.EPERM
#: Where the number of the call, the architecture and the low half of its first argument stand; the others follow.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _ARGUMENT_BYTES = 0, 4, 16, 8
#: Calls of the ABI x32 of an x86-64 machine have their numbers above this.
_X32: Final = 0x40000000
#: The same numbers on all machines.
_NEW: Final = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "pidfd_getfd": 438,
    "fchmodat2": 452,
    "setxattrat": 463,
    "removexattrat": 466,
}
#: What no descriptor may be asked for, by its second argument: signals to whoever is named as its owner. F_SETOWN,
#: F_SETSIG and F_SETOWN_EX; FIOSETOWN and SIOCSPGRP. The same on all machines.
_OWNERS: Final = {"fcntl": (8, 10, 15), "ioctl": (0x8901, 0x8902)}
#: Which argument of a call names a process: a child may name itself, or 0, which means the same. The first, but of:
_SECOND: Final = frozenset({"setpriority", "ioprio_set"})
#: What the first argument of those must be: PRIO_PROCESS, IOPRIO_WHO_PROCESS, and no group or user.
_OF_A_PROCESS: Final = {"setpriority": 0, "ioprio_set": 1}
#: Which argument of a call says how a file is opened, and what of it means to write or to make one.
_HOW_TO_OPEN: Final = {"open": 1, "openat": 2}
_TO_WRITE: Final = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
#: A call that no machine has, and what a filter answers to it that the kernel itself never does.
_NO_CALL, _MARK = 1 << 20, errno.EDOM


@dataclass(frozen=True, slots=True)
class _Machine:
    """A kind of machine.

    Attributes:
        architecture: as the kernel calls it.
        refused: the numbers of the calls that no child may make.
        older: likewise, those that only this machine has: older forms of others.
        opening: those that open files: to read only.
        on_itself: those that it may make about itself only: an argument of theirs is a process id.
        asking: those that it may ask for nearly everything (`_OWNERS`).
    """

    architecture: int
    refused: dict[str, int]
    older: dict[str, int]
    opening: dict[str, int]
    on_itself: dict[str, int]
    asking: dict[str, int]


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
            "clone": 56,
            "shmget": 29,
            "shmat": 30,
            "shmctl": 31,
            "semget": 64,
            "semop": 65,
            "semctl": 66,
            "semtimedop": 220,
            "msgget": 68,
            "msgsnd": 69,
            "msgrcv": 70,
            "msgctl": 71,
            "mq_open": 240,
            "mq_unlink": 241,
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
            "unlinkat": 263,
            "renameat": 264,
            "renameat2": 316,
            "mkdirat": 258,
            "mknodat": 259,
            "linkat": 265,
            "symlinkat": 266,
            "truncate": 76,
            "fchmod": 91,
            "fchmodat": 268,
            "fchown": 93,
            "fchownat": 260,
            "utimensat": 280,
            "setxattr": 188,
            "lsetxattr": 189,
            "fsetxattr": 190,
            "removexattr": 197,
            "lremovexattr": 198,
            "fremovexattr": 199,
        },
        {
            "fork": 57,
            "vfork": 58,
            "unlink": 87,
            "rename": 82,
            "rmdir": 84,
            "mkdir": 83,
            "mknod": 133,
            "link": 86,
            "symlink": 88,
            "creat": 85,
            "chmod": 90,
            "chown": 92,
            "lchown": 94,
            "utime": 132,
            "utimes": 235,
            "futimesat": 261,
        },
        {"open": 2, "openat": 257},
        {
            "tgkill": 234,
            "prlimit64": 302,
            "setpriority": 141,
            "ioprio_set": 251,
            "sched_setparam": 142,
            "sched_setscheduler": 144,
            "sched_setaffinity": 203,
            "sched_setattr": 314,
        },
        {"fcntl": 72, "ioctl": 16},
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
            "clone": 220,
            "shmget": 194,
            "shmat": 196,
            "shmctl": 195,
            "semget": 190,
            "semop": 193,
            "semctl": 191,
            "semtimedop": 192,
            "msgget": 186,
            "msgsnd": 189,
            "msgrcv": 188,
            "msgctl": 187,
            "mq_open": 180,
            "mq_unlink": 181,
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
            "unlinkat": 35,
            "renameat": 38,
            "renameat2": 276,
            "mkdirat": 34,
            "mknodat": 33,
            "linkat": 37,
            "symlinkat": 36,
            "truncate": 45,
            "fchmod": 52,
            "fchmodat": 53,
            "fchown": 55,
            "fchownat": 54,
            "utimensat": 88,
            "setxattr": 5,
            "lsetxattr": 6,
            "fsetxattr": 7,
            "removexattr": 14,
            "lremovexattr": 15,
            "fremovexattr": 16,
        },
        {},
        {"openat": 56},
        {
            "tgkill": 131,
            "prlimit64": 261,
            "setpriority": 140,
            "ioprio_set": 30,
            "sched_setparam": 118,
            "sched_setscheduler": 119,
            "sched_setaffinity": 122,
            "sched_setattr": 274,
        },
        {"fcntl": 25, "ioctl": 29},
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
    libc = ctypes.CDLL(None, use_errno=True)
    # A program of another machine may be translated (Rosetta, a 32-bit Python): the kernel then sees other calls than
    # those that we make, and a filter of ours would refuse all of them.
    refused = _install(libc, _probe_of(machine))
    if refused is not None:
        return refused
    if libc.syscall(_NO_CALL) != -1 or ctypes.get_errno() != _MARK:
        return errno.ENOSYS
    return _install(libc, _filter_of(machine))


def _install(libc: ctypes.CDLL, instructions: bytes) -> int | None:
    program = _Program(len(instructions) // 8, instructions)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        return ctypes.get_errno() or errno.EPERM
    return None


def _probe_of(machine: _Machine) -> bytes:
    """A filter that answers `_MARK` to `_NO_CALL` where the kernel sees this machine's calls, and else nothing."""
    parts = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUALS, machine.architecture, otherwise=3),
        _instruction(_LOAD, _NUMBER),
        _instruction(_EQUALS, _NO_CALL, otherwise=1),
        _instruction(_RETURN, _ANSWER | _MARK),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(parts)


def _filter_of(machine: _Machine) -> bytes:
    refuse, allow = _instruction(_RETURN, _REFUSE), _instruction(_RETURN, _ALLOW)
    number = _instruction(_LOAD, _NUMBER)
    parts = [_instruction(_LOAD, _ARCHITECTURE), _instruction(_EQUALS, machine.architecture, then=1), refuse]
    parts += [number, _instruction(_AT_LEAST, _X32, otherwise=1), refuse]
    for call in sorted({*machine.refused.values(), *machine.older.values(), *_NEW.values()}):
        parts += [_instruction(_EQUALS, call, otherwise=1), refuse]
    for name, call in machine.opening.items():
        judged = [_argument(_HOW_TO_OPEN[name]), _instruction(_HAS_ANY, _TO_WRITE, otherwise=1), refuse, allow]
        parts += [_instruction(_EQUALS, call, otherwise=len(judged)), *judged]
    for name, call in machine.on_itself.items():
        kind = _OF_A_PROCESS.get(name)
        judged = [] if kind is None else [_argument(0), _instruction(_EQUALS, kind, then=1), refuse]
        judged += [
            _argument(1 if name in _SECOND else 0),
            _instruction(_EQUALS, os.getpid(), then=2),
            _instruction(_EQUALS, 0, then=1),
            refuse,
            allow,
        ]
        parts += [_instruction(_EQUALS, call, otherwise=len(judged)), *judged]
    for name, call in machine.asking.items():
        judged = [_argument(1)]
        for wish in _OWNERS[name]:
            judged += [_instruction(_EQUALS, wish, otherwise=1), refuse]
        parts += [_instruction(_EQUALS, call, otherwise=len(judged) + 1), *judged, allow]
    return b"".join([*parts, allow])


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, _FIRST_ARGUMENT + index * _ARGUMENT_BYTES)


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; `then` and `otherwise` are how many of the next are left out."""
    return struct.pack("=HBBI", code, then, otherwise, value)
