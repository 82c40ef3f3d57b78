"""The lines of a batch's manifest: where they are, and how a stream is cut into them, with one in memory at most."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import NotJson
from comfy_serverless.json_text import parse_json

#: The largest request, as everywhere.
MAX_LINE_BYTES = 6 * 1024 * 1024
_WHAT = "the line"
_KEY = re.compile(r"requests/batches/(?P<batch>[A-Za-z0-9_-]{1,64})\.jsonl#(?P<offset>\d{1,15})-(?P<length>\d{1,8})")


def manifest_address(bucket: str, batch_id: str) -> S3Address:
    """The address of our copy of a batch's manifest."""
    return S3Address(bucket, f"requests/batches/{batch_id}.jsonl")


@dataclass(frozen=True, slots=True)
class LineAddress:
    """Where a line is, in bytes of the manifest: `s3://bucket/requests/batches/{batch}.jsonl#{offset}-{length}`."""

    bucket: str
    batch_id: str
    offset: int
    length: int

    def to_text(self) -> str:
        """The address as a message has it."""
        return f"{self.manifest}#{self.offset}-{self.length}"

    @classmethod
    def parse(cls, address: S3Address) -> Self | None:
        """Read an address; None if it is not that of a line."""
        match = _KEY.fullmatch(address.key)
        return cls(address.bucket, match["batch"], int(match["offset"]), int(match["length"])) if match else None

    @property
    def manifest(self) -> S3Address:
        """The manifest it is a line of."""
        return manifest_address(self.bucket, self.batch_id)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a manifest.

    Attributes:
        offset: where it begins, in bytes.
        length: in bytes, without its end.
        content: None if the line is too long to be a request.
    """

    offset: int
    length: int
    content: bytes | None

    @property
    def end(self) -> int:
        """Where the next line begins."""
        return self.offset + self.length + 1

    @property
    def is_blank(self) -> bool:
        """Whether the line has no content."""
        return self.content is not None and not self.content.strip(b" \t\r\xef\xbb\xbf")


def document_of(content: bytes) -> Any:  # noqa: ANN401  (any JSON value)
    """The JSON in a line; a comma at its end, as in a list that was cut into lines, is no part of it.

    Raises NotJson, with the column.
    """
    try:
        return parse_json(content, source=_WHAT)
    except NotJson:
        without = content.rstrip(b" \t\r\n,")
        if not content.rstrip(b" \t\r\n").endswith(b",") or not without:
            raise
        return parse_json(without, source=_WHAT)


def lines_of(chunks: Iterable[bytes], *, offset: int = 0) -> Iterator[Line]:
    """Cut the bytes of a manifest into lines, from `offset` on, which is the beginning of a line."""
    held, begin, skipped = bytearray(), offset, 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            end = chunk.find(b"\n", len(chunk) - len(rest))
            length = len(rest) if end < 0 else end - (len(chunk) - len(rest))
            if len(held) + length <= MAX_LINE_BYTES and not skipped:
                held += rest[:length]
            else:
                skipped += len(held) + length
                held.clear()
            if end < 0:
                break
            yield _line(begin, held, skipped)
            begin += (skipped or len(held)) + 1
            held, skipped = bytearray(), 0
            rest = rest[length + 1 :]
    if held or skipped:
        yield _line(begin, held, skipped)


def lines_in_range(chunks: Iterable[bytes], *, start: int, end: int) -> Iterator[Line]:
    """The lines that begin in a range.

    Args:
        chunks: the bytes from `start - 1` on (from 0, if that is the beginning): a line begins after a line's end.
    """
    first = max(0, start - 1)
    for number, line in enumerate(lines_of(chunks, offset=first)):
        if line.offset >= end:
            return
        if number > 0 or start == 0:
            yield line


def ranges_of(size_bytes: int, *, step_bytes: int) -> list[tuple[int, int]]:
    """Ranges that cover a manifest; each is read separately."""
    return [(start, min(start + step_bytes, size_bytes)) for start in range(0, size_bytes, step_bytes)]


def _line(begin: int, held: bytearray, skipped: int) -> Line:
    return Line(begin, skipped or len(held), None if skipped else bytes(held))
