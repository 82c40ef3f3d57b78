"""An engine that looks for its caller's secrets wherever the kernel may let it, and writes down what it has found.

    python prying_engine.py REPORT WORD… --port N

It looks for each WORD in its own environment and descriptors, and in environment, command line, memory and descriptors
of every other process; in all else that /proc shows of its caller and the caller's threads, and in shared memory. It
asks the kernel for its caller in every way that there is beside /proc. Then it listens, so that it counts as started.
It needs nothing but Python, and runs in images.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import re
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

#: Of every piece of memory only so much is read, in bytes: environments and small heaps are in that.
MOST_BYTES = 16 << 20


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All that can be read about a process, each with its name; what is refused is left out."""
    for name in ("environ", "cmdline"):
        try:
            yield name, (folder / name).read_bytes()
        except OSError:
            continue
    try:
        maps = (folder / "maps").read_text().splitlines()
        memory = (folder / "mem").open("rb", buffering=0)
    except OSError:
        maps, memory = [], None
    for line in maps:
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
        if found and memory is not None:
            begin, end = (int(number, 16) for number in found.groups())
            try:
                memory.seek(begin)
                yield "mem", memory.read(min(end - begin, MOST_BYTES))
            except (OSError, ValueError, OverflowError):
                continue


def descriptors(folder: Path) -> list[str]:
    """Where the descriptors of a process lead, as far as that can be read."""
    targets = []
    try:
        links = list((folder / "fd").iterdir())
    except OSError:
        return []
    for link in links:
        try:
            targets.append(f"{link.name} -> {link.readlink()}")
        except OSError:
            continue
    return targets


#: These wait for something that happens, or are not the process's own.
NOT_READ = ("net", "fd", "fdinfo", "map_files", "ns", "attr", "cwd", "root", "exe", "clear_refs", "task", "mem")


def shown_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files that /proc shows of a process and of its threads, as far as they can be read."""
    for place in (folder, *(folder / "task").glob("[0-9]*")):
        for file in place.iterdir():
            if file.name in NOT_READ or not file.is_file():
                continue
            try:
                with file.open("rb", buffering=0) as opened:
                    os.set_blocking(opened.fileno(), False)
                    yield str(file.relative_to(folder)), opened.read(MOST_BYTES) or b""
            except OSError:
                continue


def links_of(folder: Path) -> list[str]:
    """The links of a process that can be followed. Root may list them all the same."""
    names = []
    for name in ("cwd", "root", "exe", "ns/mnt", "fd", "map_files"):
        try:
            for link in (folder / name).iterdir() if name in ("fd", "map_files") else [folder / name]:
                link.readlink()
        except OSError:
            continue
        names.append(name)
    return names


def shared_memory() -> Iterator[tuple[str, bytes]]:
    """What is in the shared memory of this machine, as far as it can be read."""
    for file in Path("/dev/shm").rglob("*"):
        try:
            if file.is_file():
                with file.open("rb") as opened:
                    yield str(file), opened.read(MOST_BYTES)
        except OSError:
            continue
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    try:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except OSError:
        return
    for number, size in ((int(line.split()[1]), int(line.split()[3])) for line in lines):
        address = libc.shmat(number, None, 0o10000)
        if address not in (None, ctypes.c_void_p(-1).value):
            yield f"shm {number}", ctypes.string_at(address, min(size, MOST_BYTES))


def ways_into(pid: int) -> list[str]:
    """The calls by which the kernel lets this process into another one, as debuggers and profilers get in."""
    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.create_string_buffer(8)

    class Piece(ctypes.Structure):
        _fields_ = (("place", ctypes.c_void_p), ("size", ctypes.c_size_t))

    here, there = Piece(ctypes.addressof(word), 8), Piece(1, 8)  # nothing is there: who may look hears that
    handle = libc.syscall(434, pid, 0)  # pidfd_open
    attributes = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 128, 0), 128)
    perf, kcmp = {"x86_64": (298, 312), "aarch64": (241, 272)}.get(platform.machine(), (-1, -1))
    iovec = (ctypes.byref(here), ctypes.c_ulong(1), ctypes.byref(there), ctypes.c_ulong(1), ctypes.c_ulong(0))
    seize, detach = 0x4206, 17
    calls: dict[str, tuple[Callable[[], int], int]] = {
        "ptrace": (lambda: libc.ptrace(seize, pid, None, None), 0),
        "process_vm_readv": (lambda: libc.process_vm_readv(pid, *iovec), errno.EFAULT),
        "process_vm_writev": (lambda: libc.process_vm_writev(pid, *iovec), errno.EFAULT),
        "pidfd_getfd": (lambda: libc.syscall(438, handle, 1 << 20, 0), errno.EBADF),
        "perf_event_open": (lambda: libc.syscall(perf, attributes, pid, -1, -1, ctypes.c_ulong(0)), 0),
        "kcmp": (lambda: libc.syscall(kcmp, pid, pid, 1, 0, 0), 0),
    }
    found = []
    for name, (call, means_yes) in calls.items():
        ctypes.set_errno(0)
        if call() >= 0 or ctypes.get_errno() == means_yes:
            found.append(name)
        if name == "ptrace":
            libc.ptrace(detach, pid, None, None)
    if handle >= 0:
        os.close(handle)
    return found


def pry(words: list[bytes]) -> dict[str, object]:
    own = os.getpid()
    found: list[str] = []
    opened: dict[str, list[str]] = {}
    processes = [folder for folder in Path("/proc").glob("[0-9]*") if folder.name != str(own)]
    for folder in processes:
        try:
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue
        for place, content in contents(folder):
            found += [f"{word.decode()} in {place} of {folder.name} ({name})" for word in words if word in content]
        if targets := descriptors(folder):
            opened[folder.name] = targets
    caller = Path(f"/proc/{os.getppid()}")
    for place, content in (*shown_of(caller), *shared_memory()):
        found += [f"{word.decode()} in {place} of its caller" for word in words if word in content]
    found += [f"{word.decode()} in its own environment" for word in words if word.decode() in str(dict(os.environ))]
    return {
        "uid": os.getuid(),
        "parent": os.getppid(),
        "looked_at": len(processes),
        "links": links_of(caller),
        "ways": ways_into(os.getppid()),
        "found": found,
        "own_descriptors": descriptors(Path("/proc/self")),
        "descriptors": opened,
        "variables": sorted(os.environ),
    }


def main() -> None:
    report, *words = sys.argv[1 : sys.argv.index("--port")]
    # Its own command line has the words, backwards, so that no other process is found by what this one is asked for.
    text = json.dumps(pry([word[::-1].encode() for word in words]))
    Path(report + ".part").write_text(text)
    Path(report + ".part").replace(report)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    while True:
        listener.accept()


if __name__ == "__main__":
    main()
