"""How much memory there is, and how much of it processes hold: from /proc and the control group. Linux alone says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Where the limits of a container stand, and what of its use is files that can be dropped: control groups 2 and 1.
_GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def total_bytes(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory of this machine or container; None where nothing says it."""
    machine = _meminfo(proc, "MemTotal")
    return None if machine is None else min([machine, *(limit for limit, _ in _limits(groups))])


def available_bytes(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """How much memory processes of this container can still take; 0 where nothing says it."""
    machine = _meminfo(proc, "MemAvailable") or 0
    return max(0, min([machine, *(limit - used for limit, used in _limits(groups))]))


def resident_bytes(pid: int, *, proc: Path = Path("/proc")) -> int:
    """The resident memory of a process and its descendants; 0 where nothing says it. Shared pages count in each."""
    # A job waits for this, and there is a file for each thread: text files and paths take four times as long.
    process, held = f"{proc}/{pid}", 0
    with suppress(OSError):  # it ends meanwhile
        held = int(_read(f"{process}/statm").split()[1]) * _PAGE_BYTES
        for task in os.listdir(f"{process}/task"):  # noqa: PTH208
            children = _read(f"{process}/task/{task}/children").split()
            held += sum(resident_bytes(int(child), proc=proc) for child in children)
    return held


def peak_bytes(pid: int, *, proc: Path = Path("/proc")) -> int:
    """The most that a process has held so far; 0 where nothing says it."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", (proc / str(pid) / "status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def gpu_bytes(stats: Mapping[str, Any]) -> tuple[int, int]:
    """The memory of all GPUs that is in use, whoever uses it, and all there is: from `/system_stats`."""
    gpus = [device for device in stats.get("devices") or () if device.get("type") != "cpu"]
    total = sum(int(gpu["vram_total"]) for gpu in gpus)
    return total - sum(int(gpu["vram_free"]) for gpu in gpus), total


def _read(path: str) -> bytes:
    """The content of one of the kernel's files."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()


def _meminfo(proc: Path, name: str) -> int | None:
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def _limits(groups: Path) -> list[tuple[int, int]]:
    """The limits of the container, and what of each is in use."""
    found = []
    for limit, used, droppable in _GROUPS:
        with suppress(OSError, ValueError):  # none, or "max"
            stat = ((groups / limit).parent / "memory.stat").read_text()
            files = re.search(rf"^{droppable} (\d+)$", stat, re.MULTILINE)
            in_use = int((groups / used).read_text()) - (int(files[1]) if files else 0)
            found.append((int((groups / limit).read_text()), in_use))
    return found
