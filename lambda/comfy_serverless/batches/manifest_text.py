"""Makes lines of a manifest that has none: a JSON list, pretty-printed requests, UTF-16, gzip. Decides without IO.

Manifests in lines are copied as they are, of any size, and never read here as a whole. The others are read at once, so
there is a limit; each of their requests becomes a line, the one where it begins if nothing else stands there. What is
no manifest at all is refused as a whole, with the place and the way out, instead of line by line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from comfy_serverless.errors import ComfyError, InvalidRequest, NotJson
from comfy_serverless.files import type_of_head
from comfy_serverless.json_text import GZIP, parse_json, text_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.aws.s3 import S3Address

MANIFEST_TYPE = "application/jsonl"
#: As much of a manifest shows whether it is in lines.
HEAD_BYTES = 64 * 1024
#: The largest manifest, unpacked, that is read as a whole: with its lines it is in memory some times.
MAX_WHOLE_BYTES = 16_000_000
#: The most requests in it: of 60 bytes each, and a packed list of millions of numbers has a few kilobytes.
MAX_WHOLE_REQUESTS = 250_000
_PLAIN = frozenset({"utf-8", "utf-8-sig"})
_BLANKS = " \t\r\n\ufeff"
_WAY_OUT = (
    "A manifest has one request a line: `jq -c '.[]' list.json > manifest.jsonl` writes a list so, and "
    "`jq -c . pretty.json > manifest.jsonl` what is spread over lines"
)


def is_in_lines(head: bytes) -> bool:
    """Whether a manifest that begins so has one request a line, good or bad ones.

    Args:
        head: its first `HEAD_BYTES`, or all of it.
    """
    if head.startswith(GZIP) or type_of_head(head) is not None or json.detect_encoding(head) not in _PLAIN:
        return False
    text = head.decode("utf-8", "ignore").lstrip(_BLANKS)
    line, end, rest = text.partition("\n")
    if not end:
        return not text.startswith("[")  # one line, or a long one
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        begins_more = line.startswith("[") or not _is_object(rest.lstrip(_BLANKS).partition("\n")[0])
        return not (_breaks_off(error, line) and begins_more)
    return not isinstance(found, list) or bool(rest.strip(_BLANKS))


def in_lines(content: bytes, *, source: str) -> bytes:
    """The requests of a manifest that is not in lines, a line each.

    Raises InvalidRequest if it is no manifest.
    """
    try:
        text = text_of(content, source=source, most_bytes=MAX_WHOLE_BYTES).lstrip("\ufeff")
        return text.encode() if is_in_lines(text[:HEAD_BYTES].encode()) else "".join(_lines(text, source)).encode()
    except ComfyError as error:
        raise InvalidRequest(f"{error.message.rstrip('.')}. {_WAY_OUT}.") from error
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{source} has half of a character, as of an emoji that was cut: {error}.") from error


def write_in_lines(s3: S3Client, source: S3Address, target: S3Address, *, size_bytes: int, called: str) -> int:
    """Write a manifest that is not in lines as one that is; returns its size.

    Args:
        called: what people call the manifest.

    Raises:
        InvalidRequest: it is none, or too large to be read as a whole.
    """
    if size_bytes > MAX_WHOLE_BYTES:
        raise InvalidRequest(
            f"{called} is not in lines (a JSON list, spread over lines, packed, or UTF-16) and has {size_bytes:,} "
            f"bytes; up to {MAX_WHOLE_BYTES:,} are read that way. {_WAY_OUT}."
        )
    lines = in_lines(s3.get_object(Bucket=source.bucket, Key=source.key)["Body"].read(), source=called)
    s3.put_object(Bucket=target.bucket, Key=target.key, Body=lines, ContentType=MANIFEST_TYPE)
    return len(lines)


def _lines(text: str, source: str) -> Iterator[str]:
    """Each document in a list, or one behind the other, as a line: where it begins in the text, or after the last."""
    decoder = json.JSONDecoder()
    at = _past(text, 0, _BLANKS)
    is_list = text.startswith("[", at)
    at = _past(text, at + 1, _BLANKS) if is_list else at
    line, counted = 0, 0
    begins = count = 0
    while at < len(text) and not (is_list and text[at] == "]"):
        count += 1
        if count > MAX_WHOLE_REQUESTS:
            raise InvalidRequest(
                f"{source} is not in lines, and has more than {MAX_WHOLE_REQUESTS:,} requests: so many are read in "
                "lines only."
            )
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            parse_json(text, source=source)  # says where, in the words of all doors
            raise NotJson(f"{source} is not JSON from its character {at + 1} on.") from None
        begins, counted = begins + text.count("\n", counted, at), at
        yield "\n" * (begins - line)
        yield " ".join(text[at:end].split("\n")).replace("\r", " ") + "\n"
        line = max(begins, line) + 1
        at = _past(text, end, _BLANKS + ",")
    if not is_list:
        return
    if at >= len(text):
        raise NotJson(f"{source} is not JSON: the list that it is breaks off.")
    more = _past(text, at + 1, _BLANKS)
    if more < len(text):
        begins = text.count("\n", 0, more) + 1
        raise NotJson(f"{source} is not JSON: it is a list, and more follows its end, from line {begins} on.")


def _past(text: str, at: int, letters: str) -> int:
    """The first place from here on where another letter stands."""
    found = re.compile(f"[{letters}]*").match(text, at)
    return at if found is None else found.end()


def _breaks_off(error: Exception, line: str) -> bool:
    """Whether a line is only the beginning of a document."""
    return isinstance(error, json.JSONDecodeError) and error.pos >= len(line.rstrip(_BLANKS + ","))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line.rstrip(_BLANKS + ",")), dict)
    except (ValueError, RecursionError):
        return False
