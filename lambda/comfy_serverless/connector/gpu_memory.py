"""The memory that is in use on this machine's GPUs, as NVIDIA's management library says it.

Asking costs microseconds and does not involve ComfyUI, which answers late while it computes. The library comes with
the driver; without it, or where it refuses (a share of a GPU), nothing is known.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

#: The time between two looks, in seconds: shorter peaks may be missed.
LOOK_S = 0.25
_LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    """`nvmlMemory_t`, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@functools.cache
def _devices() -> tuple[ctypes.CDLL, tuple[ctypes.c_void_p, ...]] | None:
    """The library and its GPUs; None where there are none."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    count = ctypes.c_uint()
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return None
    found = []
    for number in range(count.value):
        device = ctypes.c_void_p()
        if not library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(device)):
            found.append(device)
    return (library, tuple(found)) if found else None


def used_bytes() -> int | None:
    """The memory in use on all GPUs, whoever uses it; None where that is not known."""
    if (known := _devices()) is None:
        return None
    library, devices = known
    used = 0
    for device in devices:
        memory = _Memory()
        if library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)):
            return None
        used += int(memory.used)
    return used


class PeakGauge:
    """The most that was in use at the looks at it.

    Args:
        read: returns the bytes in use; None where that is not known.
    """

    def __init__(self, read: Callable[[], int | None] = used_bytes) -> None:
        self._read = read
        self._next_look = 0.0
        self._peak: int | None = None

    def look(self) -> None:
        """Look, unless that was done a moment ago."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            if (used := self._read()) is not None:
                self._peak = max(used, self._peak or 0)

    @property
    def peak_mb(self) -> int | None:
        """In whole megabytes; None if it is not known."""
        return None if self._peak is None else round(self._peak / 1_000_000)
