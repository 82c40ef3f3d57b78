"""What of a file can be read: all of it, or the ranges that have been fetched. Bounds the work of its readers."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from comfy_serverless.sandbox.refused import Refused

#: Reads, and so parts of a file that are looked at: boxes, chunks, pages, segments. An hour of video has some 10,000.
MOST_READS = 100_000
#: Bytes that are read in all, and at once: a text of a workflow has a megabyte at most, its JSON chunk or tags more.
MOST_BYTES = 128_000_000
MOST_AT_ONCE = 32_000_000


class Missing(Exception):
    """A range is wanted that has not been fetched: `offset` and `size`, within the file."""

    def __init__(self, offset: int, size: int) -> None:
        super().__init__(f"bytes {offset} to {offset + size}")
        self.offset = offset
        self.size = size


class Window:
    """Reads a file at any place, as far as its ranges are known.

    Args:
        pread: reads at most so many bytes at an offset: `(size, offset)`.
        size: of the file.
        known: the ranges that can be read, begin and end; None for all.
    """

    def __init__(
        self, pread: Callable[[int, int], bytes], size: int, *, known: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self.size = size
        self._pread = pread
        self._known = [(0, size)] if known is None else known
        self._reads = self._bytes = 0

    @classmethod
    def over(cls, content: bytes) -> Window:
        """A window over bytes that are in memory, e.g. a part of a file; it has bounds of its own."""
        return cls(lambda size, offset: content[offset : offset + size], len(content))

    @classmethod
    def of_file(cls, descriptor: int, *, size: int, known: Sequence[tuple[int, int]] | None = None) -> Window:
        """A window over an open file, whose position stays where it is."""
        return cls(lambda count, offset: os.pread(descriptor, count, offset), size, known=known)

    def read(self, offset: int, size: int) -> bytes:
        """The bytes of a range, as far as the file has them: fewer, or none, at its end.

        Raises:
            Missing: they have not been fetched.
            Refused: this is more than any file with a workflow needs.
        """
        size = min(size, self.size - offset)
        if offset < 0 or size <= 0:
            return b""
        self._reads += 1
        self._bytes += size
        if self._reads > MOST_READS:
            raise Refused(f"has more parts than are looked through for a workflow: {MOST_READS:,}")
        if size > MOST_AT_ONCE or self._bytes > MOST_BYTES:
            raise Refused(
                f"has more data to look through for a workflow than are read: {MOST_AT_ONCE:,} bytes at once, "
                f"{MOST_BYTES:,} in all"
            )
        if not any(begin <= offset and offset + size <= end for begin, end in self._known):
            raise Missing(offset, size)
        return self._pread(size, offset)

    def whole(self, offset: int, size: int) -> bytes | None:
        """The bytes of a range; None if the file ends before."""
        content = self.read(offset, size)
        return content if len(content) == size else None


def numbers(form: str, content: bytes, offset: int = 0) -> tuple[Any, ...] | None:
    """What `struct` reads there; None if there are too few bytes."""
    return struct.unpack_from(form, content, offset) if 0 <= offset <= len(content) - struct.calcsize(form) else None


def chunks(window: Window, offset: int, end: int, *, form: str, padded: bool) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and size of each chunk of RIFF: kind, then size. A size that lies ends at the end."""
    while (head := window.whole(offset, 8)) and offset < end:
        (size,) = struct.unpack_from(form, head, 4)
        yield head[:4], offset + 8, min(size, end - offset - 8)
        offset += 8 + size + (size & 1 if padded else 0)
