"""The lines of a manifest: cut out of a stream, and understood one by one. No IO, and never more than one in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.jobs.request import JobRequest

#: The largest request, as everywhere.
MAX_LINE_BYTES = 6 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a manifest.

    Attributes:
        offset: where it begins, in bytes.
        length: in bytes, without its end.
        content: None if it is too long to be one.
    """

    offset: int
    length: int
    content: bytes | None

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.length + 1

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing in it."""
        return self.content is not None and not self.content.strip(b" \t\r\xef\xbb\xbf")


def lines_of(chunks: Iterable[bytes], *, offset: int = 0) -> Iterator[Line]:
    """Cut a stream into lines.

    Args:
        chunks: the bytes of the manifest, from `offset` on, which is the beginning of a line.
    """
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


def request_of(line: Line, *, parse: Callable[[object], JobRequest] = JobRequest.parse) -> JobRequest:
    """What a line asks for, with the id that its job has: its own, or one made of what it says.

    The same line is the same job, in whichever manifest, and however often.

    Args:
        parse: reads the request; `JobRequest.stored` where the line has been judged before.

    Raises:
        InvalidRequest: it is none.
    """
    if line.content is None:
        raise InvalidRequest(f"the line has {line.length:,} bytes; at most {MAX_LINE_BYTES:,} can be a request.")
    try:
        document = json.loads(line.content)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        if "\\ud" in canonical:
            json.dumps(document, ensure_ascii=False).encode()
        request = parse(document)
        if request.job_id is not None:
            return request
    except ComfyError:
        raise
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the line has half of a character, as of an emoji that was cut: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the line is not JSON: {str(error)[:200]}") from error
    return request.model_copy(update={"job_id": f"line-{hashlib.sha256(canonical.encode()).hexdigest()[:40]}"})


def ranges_of(size_bytes: int, *, step_bytes: int) -> list[tuple[int, int]]:
    """Ranges that cover a manifest, each of them to be read by itself."""
    return [(start, min(start + step_bytes, size_bytes)) for start in range(0, size_bytes, step_bytes)]


def _line(begin: int, held: bytearray, skipped: int) -> Line:
    return Line(begin, skipped or len(held), None if skipped else bytes(held))
