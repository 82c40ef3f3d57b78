"""The size of an image in pixels, from its header alone: nothing is decoded, and little is read.

For outputs of custom nodes, and for images that stand behind one another in a file: both can be anything, so each
format is a few reads at known places, and whatever does not fit has no size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

Size = tuple[int, int]
_HEAD_BYTES = 64
#: The start of an AVIF file, which has the properties of its images.
_AVIF_BYTES = 1 << 16
#: An image's size in AVIF. The largest is the whole image's; others are of its tiles and thumbnails.
_AVIF_SIZE = re.compile(rb"\0\0\0\x14ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)
_MOST_SEGMENTS = 2000
#: Chunks before the header of a PNG: there should be none, and iPhones write one (CgBI).
_MOST_CHUNKS = 16
#: The markers before a JPEG's image that have its size: SOF0 to SOF15, without DHT, JPG and DAC.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
#: Tags stand in ascending order: the two are among the first.
_TIFF_TAGS_READ = 16


def size_in_pixels(file: BinaryIO) -> Size | None:
    """Width and height of the image that begins where a seekable file stands; None for what is none of the formats."""
    start = file.tell()
    head = file.read(_HEAD_BYTES)
    for is_format, read in _READERS:
        if is_format(head):
            size = read(file, start, head)
            return size if size and min(size) > 0 else None
    return None


def _png(file: BinaryIO, start: int, _head: bytes) -> Size | None:
    position = start + 8
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        chunk = file.read(16)
        if chunk[4:8] == b"IHDR":
            return _big(chunk[8:12]), _big(chunk[12:16])
        position += 12 + _big(chunk[:4])
    return None


def _gif(_file: BinaryIO, _start: int, head: bytes) -> Size:
    return _little(head[6:8]), _little(head[8:10])


def _bmp(_file: BinaryIO, _start: int, head: bytes) -> Size:
    if _little(head[14:18]) == 12:  # the header of OS/2
        return _little(head[18:20]), _little(head[20:22])
    return _little(head[18:22]), abs(int.from_bytes(head[22:26], "little", signed=True))


def _webp(_file: BinaryIO, _start: int, head: bytes) -> Size | None:
    match head[12:16]:
        case b"VP8X":
            return _little(head[24:27]) + 1, _little(head[27:30]) + 1
        case b"VP8L":
            bits = _little(head[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    return None


def _jpeg(file: BinaryIO, start: int, _head: bytes) -> Size | None:
    position = start + 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(position)
        segment = file.read(9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return None
        if segment[1] in JPEG_FRAMES:
            return _big(segment[7:9]), _big(segment[5:7])
        # A marker may have any number of 0xFF before it.
        position += 1 if segment[1] == 0xFF else 2 + _big(segment[2:4])
    return None


def _tiff(file: BinaryIO, start: int, head: bytes) -> Size | None:
    number = _little if head.startswith(b"II") else _big
    file.seek(start + number(head[4:8]))
    count = min(number(file.read(2)), _TIFF_TAGS_READ)
    tags = {}
    for _ in range(count):
        tag = file.read(12)
        value_bytes = {3: 2, 4: 4}.get(number(tag[2:4]), 0)  # SHORT and LONG
        tags[number(tag[:2])] = number(tag[8 : 8 + value_bytes])
    return tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0)


def _avif(file: BinaryIO, start: int, _head: bytes) -> Size | None:
    file.seek(start)
    sizes = [(_big(width), _big(height)) for width, height in _AVIF_SIZE.findall(file.read(_AVIF_BYTES))]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _big(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _little(value: bytes) -> int:
    return int.from_bytes(value, "little")


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int, bytes], Size | None]], ...] = (
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda head: head.startswith(b"GIF8"), _gif),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _webp),
    (lambda head: head.startswith((b"II*\0", b"MM\0*")), _tiff),
    (lambda head: head[4:12] in (b"ftypavif", b"ftypavis"), _avif),
    (lambda head: head.startswith(b"BM"), _bmp),
)
