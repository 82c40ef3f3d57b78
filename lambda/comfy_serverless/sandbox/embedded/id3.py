"""Finds texts in ID3v2, the tags of MP3: TXXX, comments and all other texts, of versions 2.2, 2.3 and 2.4.

ComfyUI writes 2.4, with TXXX of the descriptions `prompt` and `workflow`. Sizes of 2.4 have seven bits a byte; iTunes
and old taggers write eight there too: whichever leads to another frame is meant.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from comfy_serverless.sandbox.embedded.finds import Finds, decoded
from comfy_serverless.sandbox.embedded.window import MOST_AT_ONCE, Window, numbers

HEAD = b"ID3"
_HEAD_BYTES = 10
_UNSYNCHRONISED, _EXTENDED = 0x80, 0x40
_NAME = re.compile(rb"[A-Z][A-Z0-9]{2,3}")
_ENCODINGS = {1: "utf-16", 2: "utf-16-be"}
_TWO_BYTES = (1, 2)
_COMMENTS = (b"COMM", b"COM", b"USLT", b"ULT")


class _Flags(NamedTuple):
    packed: int
    unsynchronised: int
    length_before: int
    group: int
    encrypted: int


#: Bits of a frame's two bytes of flags.
_FLAGS = {3: _Flags(0x80, 0, 0, 0x20, 0x40), 4: _Flags(0x08, 0x02, 0x01, 0x40, 0x04)}


def length_of_id3(window: Window) -> int:
    """The bytes of an ID3v2 tag with its head; 0 if there is none."""
    head = window.read(0, _HEAD_BYTES)
    if not head.startswith(HEAD) or len(head) < _HEAD_BYTES:
        return 0
    return _HEAD_BYTES + _seven_bits(head[6:])


def find_in_id3(window: Window, finds: Finds) -> None:
    """Look at each text frame of a tag at the beginning."""
    head = window.read(0, _HEAD_BYTES)
    length = min(length_of_id3(window), MOST_AT_ONCE)
    if not length:
        return
    version, flags = head[3], head[5]
    body = window.read(_HEAD_BYTES, length - _HEAD_BYTES)
    if flags & _UNSYNCHRONISED and version < 4:  # else each frame says it of itself
        body = body.replace(b"\xff\0", b"\xff")
    at = _extended(body, version) if flags & _EXTENDED else 0
    while frame := _next(body, at, version):
        name, begin, size, frame_flags = frame
        finds.spend(0)
        data = _plain(body[begin : begin + size], version, frame_flags, finds, is_all=bool(flags & _UNSYNCHRONISED))
        _look(name, data, finds)
        at = begin + size


def _extended(body: bytes, version: int) -> int:
    """Where the frames begin, behind an extended head."""
    if version >= 4:
        return _seven_bits(body[:4])
    (size,) = numbers(">I", body) or (0,)
    return 4 + int(size)


def _next(body: bytes, at: int, version: int) -> tuple[bytes, int, int, int] | None:
    """Name, beginning, size and flags of the frame there; None at the end."""
    head, name_bytes = (6, 3) if version == 2 else (10, 4)
    name = body[at : at + name_bytes]
    if len(body) < at + head or not _NAME.fullmatch(name):
        return None
    if version == 2:
        return name, at + head, int.from_bytes(body[at + 3 : at + 6]), 0
    sizes = body[at + 4 : at + 8]
    size = int.from_bytes(sizes)
    if version >= 4 and max(sizes) < 0x80:
        size = _meant(body, at + head, _seven_bits(sizes), size)
    return name, at + head, size, int.from_bytes(body[at + 8 : at + 10])


def _meant(body: bytes, begin: int, seven: int, eight: int) -> int:
    """Which of two sizes leads to another frame, or to the end; the right one, unless only the other does."""
    return next((size for size in (seven, eight) if _ends_well(body, begin + size)), seven)


def _ends_well(body: bytes, end: int) -> bool:
    following = body[end : end + 4]
    return end <= len(body) and (not following.strip(b"\0") or _NAME.fullmatch(following) is not None)


def _plain(data: bytes, version: int, flags: int, finds: Finds, *, is_all: bool) -> bytes:
    """What a frame has, without what its flags say: packed, with its length or group before it."""
    bits = _FLAGS.get(version)
    if bits is None or flags & bits.encrypted:
        return data if bits is None else b""
    if flags & bits.group:
        data = data[1:]
    if version == 3 and flags & bits.packed:
        return finds.unpacked(data[4:])
    if flags & bits.length_before:
        data = data[4:]
    if version >= 4 and (is_all or flags & bits.unsynchronised):
        data = data.replace(b"\xff\0", b"\xff")
    return finds.unpacked(data) if flags & bits.packed else data


def _look(name: bytes, data: bytes, finds: Finds) -> None:
    is_comment, is_own = name in _COMMENTS, name in (b"TXXX", b"TXX")
    if not data or not (is_comment or name.startswith(b"T")):
        return
    encoding, rest = data[0], data[4 if is_comment else 1 :]
    called = "comment" if is_comment else name.decode("latin-1")
    texts = _parts(rest, encoding)
    if is_own or is_comment:
        called = texts[0] or called
        texts = texts[1:]
    for text in texts:
        finds.add(called, text)


def _parts(data: bytes, encoding: int) -> list[str]:
    """The texts of a frame, which zeros keep apart: the first one, and at most a few more."""
    if encoding not in _TWO_BYTES:
        return [decoded(part) for part in data.split(b"\0", 8)]
    text = data[: len(data) // 2 * 2].decode(_ENCODINGS[encoding], "replace")
    return [part.lstrip("\ufeff\ufffe") for part in text.split("\0", 8)]


def _seven_bits(size: bytes) -> int:
    value = 0
    for byte in size:
        value = value << 7 | byte & 0x7F
    return value
