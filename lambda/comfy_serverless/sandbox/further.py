"""What a file has that Pillow does not look at, and ComfyUI 0.33.0 decodes: images behind the first; frames; scans.

Several PNG, JPEG, GIF, WebP or BMP images one behind the other are to it several images, and so are those of an MPO.
Of an animation it takes every frame that is there: also those beyond the number that a PNG claims, and those behind one
at which Pillow gives up. So they are counted here as they stand in the file: before Pillow opens it, which goes from
piece to piece in Python as well.
"""

from __future__ import annotations

import io
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from comfy_serverless.pixels import JPEG_FRAMES, size_in_pixels
from comfy_serverless.sandbox.refused import Refused

#: The beginning of another image.
_BEGINNINGS = (
    re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
)
_HEAD_BYTES = 64
#: Pieces that a file consists of: blocks of a GIF, chunks of a PNG, segments of a JPEG. A GIF of 200 MB has 800,000, as
#: its blocks have 255 bytes; a PNG with chunks of 8 KB, as they are usual, has 25,000.
_MOST_PIECES = {"GIF": 1_000_000, "PNG": 250_000, "JPEG": 250_000}
_PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
_PNG = re.compile(re.escape(_PNG_BEGINS))
#: The head of a frame of an animated PNG: a length that never differs, and its kind.
_PNG_FRAME = re.compile(rb"\0\0\0\x1afcTL")
_GIF = re.compile(rb"GIF8[79]a")
_GIF_HEAD_BYTES, _GIF_FRAME_BYTES, _GIF_EXTENSION_BYTES = 13, 10, 2
_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C
_JPEG = b"\xff\xd8\xff"
#: A marker among the bits of an image: not a stuffed zero, a restart or a fill byte.
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_START, _END, _SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01
#: A component in the header of a JPEG's image: its number, two shares that are not 0, and one of four tables.
_COMPONENT = b".(?![\\x00-\\x0f]|[" + re.escape(bytes(range(0, 256, 16))) + rb"]).[\0-\3]"
_COMPONENTS = b"|".join(
    re.escape(bytes([8 + 3 * count])) + b".{5}" + bytes([count]) + _COMPONENT * count for count in range(1, 5)
)
#: The header itself: marker, length, bits of a value, height, width, components. It is all as decoders take it: phones
#: write megabytes of video behind a photo, and by less than all of this one of some hundreds would have one in there.
_JPEG_FRAME = re.compile(
    rb"\xff[" + re.escape(bytes(sorted(JPEG_FRAMES))) + rb"]\0(?=" + _COMPONENTS + rb").[\x01-\x10](..)(..)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Found:
    """An image in a file: the pixels of a frame, its frames (0: they are counted elsewhere), and its scans."""

    pixels: int
    scans: int = 1
    frames: int = 1


def images_in(file: BinaryIO) -> Iterator[Found]:
    """Each image that stands by itself in a file, the first included; nothing for formats that have one only.

    Raises Refused for a file of too many pieces.
    """
    if not os.fstat(file.fileno()).st_size:
        return
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        if content[:3] == _JPEG:
            yield from _jpegs(content)
        elif _PNG.match(content):
            yield from _pngs(content)
        elif _GIF.match(content):
            yield from _gifs(content)
        for beginning in _BEGINNINGS:
            for match in beginning.finditer(content) if beginning.match(content) else ():
                head = content[match.start() : match.start() + _HEAD_BYTES]
                width, height = size_in_pixels(io.BytesIO(head)) or (0, 0)
                yield Found(width * height)


class _Pieces:
    """Counts the pieces of a file that are gone through.

    What looks like a beginning may stand anywhere in a file, thousands of times, and each leads through all the rest.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._left = _MOST_PIECES[kind]

    def spend(self) -> None:
        """Go on to another piece. Raises Refused if these are too many."""
        self._left -= 1
        if self._left < 0:
            raise Refused(f"is in too many pieces; the limit for a {self._kind} is {_MOST_PIECES[self._kind]:,}")


def _pngs(content: mmap.mmap) -> Iterator[Found]:
    pieces = _Pieces("PNG")
    position = len(_PNG_BEGINS)
    while chunk := content[position : position + 4]:  # decoders go through all of them
        pieces.spend()
        position += 12 + int.from_bytes(chunk, "big")
    starts = [match.end() for match in _PNG.finditer(content)]
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        frames = sum(1 for _ in _PNG_FRAME.finditer(content, start, end))
        yield Found(_png_pixels(content, start, pieces), frames=max(1, frames))


def _gifs(content: mmap.mmap) -> Iterator[Found]:
    """Each that begins anywhere, to its end: sizes of blocks may lie, and decoders search for the next beginning."""
    pieces = _Pieces("GIF")
    for begun in _GIF.finditer(content):
        head = content[begun.start() : begun.start() + _GIF_HEAD_BYTES]
        width, height = size_in_pixels(io.BytesIO(head)) or (0, 0)
        position = begun.start() + len(head) + _palette_bytes(head[10:11])
        frames = 0
        while kind := content[position : position + 1]:
            pieces.spend()
            if kind[0] == _GIF_FRAME:
                frames += 1
                flags = content[position + _GIF_FRAME_BYTES - 1 : position + _GIF_FRAME_BYTES]
                position += _GIF_FRAME_BYTES + _palette_bytes(flags) + 1
            elif kind[0] == _GIF_EXTENSION:
                position += _GIF_EXTENSION_BYTES
            else:
                break
            while size := content[position : position + 1]:  # blocks, and an empty one behind them
                pieces.spend()
                position += 1 + size[0]
                if not size[0]:
                    break
        yield Found(width * height, frames=max(1, frames))


def _palette_bytes(flags: bytes) -> int:
    """The size of the palette that these flags tell of."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _png_pixels(content: mmap.mmap, position: int, pieces: _Pieces) -> int:
    """The pixels of a PNG whose first chunk is there, wherever its header is: decoders find it behind other chunks."""
    while chunk := content[position : position + 16]:
        pieces.spend()
        if chunk[4:8] == b"IHDR":
            return int.from_bytes(chunk[8:12], "big") * int.from_bytes(chunk[12:16], "big")
        position += 12 + int.from_bytes(chunk[:4], "big")
    return 0


def most_scans(file: BinaryIO) -> int:
    """How many scans the JPEG in a file has that has most of them: those of a TIFF are its strips or tiles."""
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        return max((found.scans for found in _jpegs_by_scans(content)), default=0)


def _jpegs(content: mmap.mmap) -> Iterator[Found]:
    """The scans of each image in turn, as its segments tell; then every header of an image.

    Lengths of segments may lie, and an image may lack its scan: decoders overlook both.
    """
    yield from _jpegs_by_scans(content)
    for match in _JPEG_FRAME.finditer(content):
        yield Found(int.from_bytes(match[1], "big") * int.from_bytes(match[2], "big"))


def _jpegs_by_scans(content: mmap.mmap) -> Iterator[Found]:
    pieces = _Pieces("JPEG")
    start = 0
    while (start := content.find(_JPEG, start)) >= 0:
        pieces.spend()
        position, pixels, scans = start + 2, 0, 0
        while marker := _JPEG_MARKER.search(content, position):
            pieces.spend()
            kind, position = marker[1][0], marker.end()
            if kind in (_START, _END):
                break
            if kind in JPEG_FRAMES:
                size = content[position + 3 : position + 7]
                pixels = max(pixels, int.from_bytes(size[:2], "big") * int.from_bytes(size[2:], "big"))
            scans += kind == _SCAN
            if kind != _TEMPORARY:
                position += int.from_bytes(content[position : position + 2], "big")
        else:
            position = len(content)
        if scans:
            yield Found(pixels, scans, frames=0)
        start = max(position - 2, start + 2)
