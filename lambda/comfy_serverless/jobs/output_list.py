"""`outputs.jsonl`: all outputs of a job that has more than its document lists, an `Output` a line, without links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Self

from botocore.exceptions import ClientError
from pydantic import ValidationError

from comfy_serverless.aws.s3 import S3Address, error_code
from comfy_serverless.errors import InvalidCursor
from comfy_serverless.jobs.document import Output

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BEYOND_THE_END = frozenset({"InvalidRange", "416"})
_READ_BYTES = 64 * 1024
#: Longer lines are none of ours, and a page of more bytes ends early: the file may stand in a bucket of others.
MAX_LINE_BYTES, MAX_PAGE_BYTES = 256 * 1024, 16 * 1024 * 1024


class Page(NamedTuple):
    """Some outputs, and where the next ones begin, in bytes of the file; None at the end."""

    outputs: list[Output]
    end: int | None

    @classmethod
    def of(cls, outputs: Sequence[Output], *, start: int, limit: int) -> Self:
        """Some of outputs that are at hand: `start` and `end` are places among them."""
        end = start + limit
        return cls(list(outputs[start:end]), end if end < len(outputs) else None)


def list_of(outputs: Sequence[Output]) -> bytes:
    """The content of the file."""
    return "".join(f"{output.to_line()}\n" for output in outputs).encode("utf-8", "replace")


def read_page(s3: S3Client, address: S3Address, *, start: int, limit: int) -> Page:
    """The outputs from a byte on, at most `limit`; no more is read of the file, however long it is.

    Raises InvalidCursor if no line begins there, and S3's own exceptions.
    """
    folder = str(address).rpartition("/")[0] + "/"
    outputs: list[Output] = []
    end = start
    try:
        answer = s3.get_object(Bucket=address.bucket, Key=address.key, Range=f"bytes={start}-")
        with closing(answer["Body"]) as body:
            for line in _lines(body.iter_chunks(_READ_BYTES)):
                if len(outputs) == limit or end - start >= MAX_PAGE_BYTES:
                    return Page(outputs, end)
                output = Output.model_validate_json(line)
                # We make links to all that it names.
                named = [output.s3_uri, *([output.thumb_uri] if output.thumb_uri else [])]
                if not all(uri is not None and uri.startswith(folder) for uri in named):
                    raise InvalidCursor("the list of outputs names files of others: it is not one of ours.")
                outputs.append(output)
                end += len(line)
    except ValidationError as error:
        raise InvalidCursor("the cursor is not one of ours; send the `next_cursor` of the page before.") from error
    except ClientError as error:
        if error_code(error) not in _BEYOND_THE_END:
            raise
        raise InvalidCursor("the cursor is beyond the end; send the `next_cursor` of the page before.") from error
    return Page(outputs, None)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with their ends. Raises InvalidCursor for one that is too long, before it is all in memory."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n"):
            lines, rest = [*lines, rest], b""
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            raise InvalidCursor("the list of outputs has a line that is too long: it is not one of ours.")
    if rest:
        yield rest
