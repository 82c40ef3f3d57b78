"""Reads JSON as it comes: bytes or text of any door, with whatever Windows, browsers and proxies put around it.

A byte order mark, UTF-16 and UTF-32, and gzip are taken; what is no JSON is refused with the place and, where it is
known, what is wrong there. `NaN` and the infinities are read, because ComfyUI itself writes them; `finite` keeps
them out of what we write. Of a name that stands twice in an object the last one counts.
"""

from __future__ import annotations

import json
import math
import re
import sys
import zlib
from collections.abc import Callable
from typing import Any

from comfy_serverless.errors import NotJson, PayloadTooLarge
from comfy_serverless.files import HEAD_BYTES, type_of_head
from comfy_serverless.uncollected import load_json

#: The most bytes of a document, unpacked: a workflow, a request or a result.
MAX_DOCUMENT_BYTES = 32_000_000
GZIP = b"\x1f\x8b"
#: How often a text may be packed: by its sender, and once more by a proxy.
_MOST_PACKED = 2
#: As much is unpacked at once: what follows a member of gzip is copied with each of them, and there may be thousands.
_PACKED_AT_ONCE = 4096
#: Marks and blanks that programs and people leave around a text; JSON knows the first four.
_BLANKS = " \t\r\n"
_UNSEEN = _BLANKS + "\f\v\x85\xa0\u2028\u2029\u3000\ufeff\u200b\u200c\u200d\u2060"
_BEGINNING = re.compile(f"[{_UNSEEN}]*")
_COMMA_BEFORE = re.compile(r",\s*\Z")
#: What people write and JSON does not have, where it stops making sense.
_SLIPS = (
    (re.compile(r"'"), "texts and names stand in double quotes"),
    (re.compile(r"[\u2018-\u201f\u00ab\u00bb]"), "texts and names stand in straight double quotes"),
    (re.compile(r"True\b|False\b|None\b|undefined\b"), "write true, false or null"),
    (re.compile(r"//|/\*|#"), "JSON has no comments"),
    (re.compile(r"`"), "leave out the ``` around it"),
    (re.compile(r"<"), "it is a web page, or XML"),
    # How `{"`, `{` and a blank or a line's end, `[{`, `[` and a line's end, and gzip begin; `base64` writes lines.
    (re.compile(r"(?:ey[AJ]|ew[0ko]|W3s|Ww[op]|H4sI)[\w+/=\r\n-]{5,}\Z", re.ASCII), "it is base64: send what is in it"),
    (
        re.compile("[\x1f(x]?\ufffd|\\0"),  # also packed, by what the first byte of gzip, zstd or deflate is as text
        "it is not UTF-8 text, or packed: save it as UTF-8, and say `Content-Encoding` if it is packed",
    ),
    (re.compile(f"[{_UNSEEN}]"), "a blank or an invisible mark stands there that JSON does not know"),
    (re.compile(r"[A-Za-z_]"), "names and texts stand in double quotes"),
)


def parse_json(content: bytes | str, *, source: str, most_bytes: int = MAX_DOCUMENT_BYTES) -> Any:  # noqa: ANN401
    """The value that a text is.

    Args:
        source: what people call it, e.g. "the body".
        most_bytes: how much is unpacked at most.

    Raises:
        NotJson: it is none; the message has the line and the column.
        PayloadTooLarge: it unpacks to more than `most_bytes`.
    """
    text = content if isinstance(content, str) else text_of(content, source=source, most_bytes=most_bytes)
    text = _BEGINNING.sub(_known_blanks, text, count=1)
    text = text.rstrip(_UNSEEN + "\0")
    if not text.strip():
        raise NotJson(f"{source} is empty; it should be a workflow or a job request, in JSON.")
    try:
        return load_json(text)
    except json.JSONDecodeError as error:
        place = f"at line {error.lineno}, column {error.colno}"
        raise NotJson(f"{source} is not JSON: {error.msg.removesuffix(' at')} {place}{_slip(error)}.") from None
    except ValueError:
        raise NotJson(
            f"{source} is not JSON we can read: it has a whole number of more than {sys.get_int_max_str_digits():,} "
            "digits."
        ) from None
    except RecursionError:
        raise NotJson(f"{source} is nested too deeply.") from None


def text_of(content: bytes, *, source: str, most_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """The text in bytes: of UTF-8, UTF-16 or UTF-32, with or without a mark, packed by gzip or not.

    Raises as `parse_json`; NotJson if it is no text.
    """
    for _ in range(_MOST_PACKED):
        if content.startswith(GZIP):
            content = _unpacked(content, source=source, most_bytes=most_bytes)
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        kind = type_of_head(content[:HEAD_BYTES])
        name = encoding.upper().removesuffix("-SIG")
        lost = f"it is not {name} text (byte {error.start} is of no character): save it as UTF-8"
        if content.startswith(GZIP):
            lost = f"it is packed by gzip more than {_MOST_PACKED} times"
        found = f"its content is {kind}" if kind else lost
        raise NotJson(f"{source} is not JSON: {found}.") from None


def _known_blanks(found: re.Match[str]) -> str:
    """Blanks in place of those that JSON does not know, so that lines and columns stay; a mark takes no place."""
    return "".join(letter if letter in _BLANKS else " " for letter in found[0] if letter != "\ufeff")


def _null(_name: str) -> object:
    return None


def finite(value: Any, *, instead: Callable[[str], object] = _null) -> Any:  # noqa: ANN401
    """A JSON value without the numbers that JSON does not have; itself, if there are none.

    Args:
        instead: returns what stands for one, by its name: `NaN`, `Infinity` or `-Infinity`.
    """
    return value if is_finite(value) else json.loads(json.dumps(value), parse_constant=instead)


def is_finite(value: object) -> bool:
    """Whether all numbers in a JSON value are numbers that JSON has."""
    pending = [value]
    while pending:
        match pending.pop():
            case float() as number if not math.isfinite(number):
                return False
            case dict() as entries:
                pending.extend(entries.values())
            case list() | tuple() as items:
                pending.extend(items)
    return True


def _unpacked(content: bytes, *, source: str, most_bytes: int) -> bytes:
    """Unpack gzip, of several members too, no further than `most_bytes`."""
    unpacked = bytearray()
    at = 0
    try:
        while content.startswith(GZIP, at):
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            while not member.eof:
                part = content[at : at + _PACKED_AT_ONCE]
                if not part:
                    raise NotJson(f"{source} is packed by gzip, and breaks off.")
                unpacked += member.decompress(part, most_bytes + 1 - len(unpacked))
                if len(unpacked) > most_bytes:
                    raise PayloadTooLarge(f"{source} has more than {most_bytes:,} bytes when it is unpacked.")
                at += len(part) - len(member.unused_data)
        if content[at:].strip(b"\0 \r\n"):
            raise NotJson(f"{source} is packed by gzip, and something else follows it.")
    except zlib.error as error:
        raise NotJson(f"{source} is packed by gzip, and damaged: {error}.") from None
    return bytes(unpacked)


def _slip(error: json.JSONDecodeError) -> str:
    """What is probably wrong, as the rest of a sentence; "" if it cannot be told."""
    before, rest = error.doc[: error.pos], error.doc[error.pos :]
    if error.msg.startswith("Extra data"):
        hint = "one document is wanted, and more follows it"
    elif error.msg.startswith("Invalid control character"):
        hint = r"a line break inside a text is written \n"
    elif not rest.strip() or error.msg.startswith("Unterminated"):
        hint = "it breaks off"
    elif _COMMA_BEFORE.search(before[-1000:]) and rest[0] in "}]":
        hint = "the comma before it is one too many"
    else:
        hint = next((hint for found, hint in _SLIPS if found.match(rest)), "")
    return f" ({hint})" if hint else ""
