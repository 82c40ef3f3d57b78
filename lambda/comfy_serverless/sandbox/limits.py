"""Limits that the child sets itself: before a file is opened, and again when its header says how large an image is.

What claims to be small gets little. So the limit that lets the largest image pass lets no small file take as much.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import time
from typing import BinaryIO

_MB = 1 << 20
#: Address space for a file of whatever kind, beside what its size explains: buffers and tables of decoders.
_BASE_BYTES = 96 * _MB
#: A decoder may hold a whole file (WebP, AVIF), and Pillow a second copy of it, while we look at a third.
_COPIES_OF_FILE = 3
#: Of 100 million pixels WebP takes 16.4 bytes each (two canvases, Pillow's copy and its image), progressive CMYK JPEG
#: 12, AVIF 9.3, TIFF 6.4, PNG with alpha and BMP 4: measured with Pillow 13.
BYTES_A_PIXEL = 24
#: Processor time for a file of whatever kind.
CPU_BASE_S = 3.0
#: For a million pixels WebP and progressive JPEG take 0.05 s, AVIF 0.044, PNG 0.03: measured as above. Twice, because a
#: damaged image is decoded a second time; and twice again for slower machines.
CPU_S_A_MEGAPIXEL = 0.2


class Budget:
    """The address space and the processor time that a task may take, beyond what the process had taken before it.

    Over the first, Python and its libraries get no memory. Over the second, the kernel ends the process (SIGPROF).
    """

    def __init__(self) -> None:
        self._begun = _address_space(), time.process_time()
        self._base_bytes = self.limit_bytes = _BASE_BYTES
        self.allow()

    def add_file(self, file: BinaryIO) -> None:
        """Let the task hold a whole file."""
        self._base_bytes += _COPIES_OF_FILE * os.fstat(file.fileno()).st_size
        self.allow()

    def allow(self, *, memory_bytes: int = 0, cpu_s: float = 0.0) -> None:
        """Let the task take so much beyond the least that every task may."""
        memory_before, cpu_before = self._begun
        self.limit_bytes = self._base_bytes + memory_bytes
        set_soft(resource.RLIMIT_AS, memory_before + self.limit_bytes)
        left_s = CPU_BASE_S + cpu_s - (time.process_time() - cpu_before)
        signal.setitimer(signal.ITIMER_PROF, max(0.001, left_s))

    def allow_pixels(self, pixels: int) -> None:
        """Let the task decode so many pixels, in all."""
        self.allow(memory_bytes=BYTES_A_PIXEL * pixels, cpu_s=CPU_S_A_MEGAPIXEL * pixels / 1e6)

    def end(self) -> None:
        """The task is over: its answer needs no limit."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        set_soft(resource.RLIMIT_AS, resource.RLIM_INFINITY)

    def memory_refusal(self) -> str:
        """What is said of a file that has taken all its memory."""
        return f"needs more memory to decode than a file of its size may take: {self.limit_bytes // _MB} MB"


def cpu_refusal() -> str:
    """What is said of a file that has taken all its processor time."""
    return (
        f"needs more processor time to decode than a file of its size may take: {CPU_BASE_S:g} s, and "
        f"{CPU_S_A_MEGAPIXEL:g} s for each million pixels"
    )


def set_soft(kind: int, limit: int) -> None:
    """Set a limit that can be raised again, as far as the hard limit goes."""
    hard = resource.getrlimit(kind)[1]
    soft = hard if limit == resource.RLIM_INFINITY else limit
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


@functools.cache
def _own_size() -> int:
    """A descriptor that stays open: later the process may open no such file (`files`)."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def _address_space() -> int:
    pages = int(os.pread(_own_size(), 100, 0).split()[0])
    return pages * resource.getpagesize()
