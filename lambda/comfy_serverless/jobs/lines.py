"""The lines of a batch's manifest: where they are, and how a stream is cut into them, with one in memory at most.

A line ends with `\\n`, as for every editor and `wc -l`; a `\\r` before it belongs to the blanks at its end. Every line
counts: blank ones, those that are no request, and a last one without an end.
"""

from __future__ import annotations

import hashlib
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
#: `stored_lines_address`; ids of batches have a `-` or `_` before their last twenty digits (`batches.ranges`).
_STORED = re.compile(r"stored-[0-9a-f]{40}")
_KEY = re.compile(r"requests/batches/(?P<batch>[A-Za-z0-9_-]{1,64})\.jsonl#(?P<offset>\d{1,15})-(?P<length>\d{1,8})")


def manifest_address(bucket: str, batch_id: str) -> S3Address:
    """The address of our copy of a batch's manifest."""
    return S3Address(bucket, f"requests/batches/{batch_id}.jsonl")


def named_lines_address(bucket: str, content: bytes) -> S3Address:
    """The address of lines that got their jobs' ids from us (`jobs.line_ids`); they never change.

    Its form is that of a manifest, because workers of any release read requests from there.
    """
    return manifest_address(bucket, f"named-{hashlib.sha256(content).hexdigest()[:40]}")


def stored_lines_address(bucket: str, content: bytes) -> S3Address:
    """The address of the requests that lines of an owner's batch have become (`jobs.runnable`); they never change."""
    return manifest_address(bucket, f"stored-{hashlib.sha256(content).hexdigest()[:40]}")


@dataclass(frozen=True, slots=True)
class LineAddress:
    """Where a line is, in bytes of the manifest: `s3://bucket/requests/batches/{batch}.jsonl#{offset}-{length}`.

    Attributes:
        batch_id: the batch; or the name of what `named_lines_address` says.
    """

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
    def is_stored(self) -> bool:
        """Whether a stored request is there, checked as any of the API: no batch has such a name (`batch_id`)."""
        return _STORED.fullmatch(self.batch_id) is not None

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
        number: which line it is of those that were cut, from 1 on. From the beginning of a manifest on it is the line
            of the file; from that of a range on, as many more as lines begin before the range.
    """

    offset: int
    length: int
    content: bytes | None
    number: int = 1

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

    Raises NotJson, with the place in the line; PayloadTooLarge if it unpacks to more than a line may have.
    """
    bare = content.rstrip(b" \t\r\n")
    try:
        return parse_json(bare.removesuffix(b",") or content, source=_WHAT, most_bytes=MAX_LINE_BYTES)
    except NotJson as error:  # which calls every line the first
        raise NotJson(error.message.replace(" at line 1, column ", " at its character ")) from None


def lines_of(chunks: Iterable[bytes], *, offset: int = 0, number: int = 1) -> Iterator[Line]:
    """Cut the bytes of a manifest into lines, from `offset` on, which is the beginning of the line of this number."""
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
            yield _line(begin, held, skipped, number)
            begin += (skipped or len(held)) + 1
            held, skipped, number = bytearray(), 0, number + 1
            rest = rest[length + 1 :]
    if held or skipped:
        yield _line(begin, held, skipped, number)


def lines_in_range(chunks: Iterable[bytes], *, start: int, end: int) -> Iterator[Line]:
    """The lines that begin in a range.

    Args:
        chunks: the bytes from `start - 1` on (from 0, if that is the beginning): a line begins after a line's end.
    """
    first = max(0, start - 1)
    for line in lines_of(chunks, offset=first, number=1 if start == 0 else 0):
        if line.offset >= end:
            return
        if line.number > 0:  # else it began before, and is its end
            yield line


def ranges_of(size_bytes: int, *, step_bytes: int) -> list[tuple[int, int]]:
    """Ranges that cover a manifest; each is read separately."""
    return [(start, min(start + step_bytes, size_bytes)) for start in range(0, size_bytes, step_bytes)]


def _line(begin: int, held: bytearray, skipped: int, number: int) -> Line:
    return Line(begin, skipped or len(held), None if skipped else bytes(held), number)
