"""What a file has that Pillow does not look at, and ComfyUI 0.33.0 decodes: images behind the first; frames; scans.

Several PNG, JPEG, GIF, WebP or BMP images one behind the other are to it several images, and so are those of an MPO.
Of an animation it takes every frame that is there: also those beyond the number that a PNG claims, and those behind one
at which Pillow gives up. So they are counted here as they stand in the file.
"""

from __future__ import annotations

import io
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from comfy_serverless.pixels import JPEG_FRAMES, size_in_pixels

#: The beginning of another image.
_BEGINNINGS = {
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
}
_HEAD_BYTES = 64
_PNG = re.compile(rb"\x89PNG\r\n\x1a\n")
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


def images_in(file: BinaryIO, image_format: str) -> Iterator[Found]:
    """Each image that stands by itself in a file, the first included; nothing for formats that have one only."""
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        if image_format in ("JPEG", "MPO"):
            yield from _jpegs(content)
        elif image_format == "PNG":
            yield from _pngs(content)
        elif image_format == "GIF":
            yield from _gifs(content)
        elif beginning := _BEGINNINGS.get(image_format):
            for match in beginning.finditer(content):
                head = content[match.start() : match.start() + _HEAD_BYTES]
                width, height = size_in_pixels(io.BytesIO(head)) or (0, 0)
                yield Found(width * height)


def _pngs(content: mmap.mmap) -> Iterator[Found]:
    starts = [match.end() for match in _PNG.finditer(content)]
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        frames = sum(1 for _ in _PNG_FRAME.finditer(content, start, end))
        yield Found(_png_pixels(content, start), frames=max(1, frames))


def _gifs(content: mmap.mmap) -> Iterator[Found]:
    """Each that begins anywhere, to its end: sizes of blocks may lie, and decoders search for the next beginning."""
    for begun in _GIF.finditer(content):
        head = content[begun.start() : begun.start() + _GIF_HEAD_BYTES]
        width, height = size_in_pixels(io.BytesIO(head)) or (0, 0)
        position = begun.start() + len(head) + _palette_bytes(head[10:11])
        frames = 0
        while kind := content[position : position + 1]:
            if kind[0] == _GIF_FRAME:
                frames += 1
                flags = content[position + _GIF_FRAME_BYTES - 1 : position + _GIF_FRAME_BYTES]
                position += _GIF_FRAME_BYTES + _palette_bytes(flags) + 1
            elif kind[0] == _GIF_EXTENSION:
                position += _GIF_EXTENSION_BYTES
            else:
                break
            while size := content[position : position + 1]:  # blocks, and an empty one behind them
                position += 1 + size[0]
                if not size[0]:
                    break
        yield Found(width * height, frames=max(1, frames))


def _palette_bytes(flags: bytes) -> int:
    """The size of the palette that these flags tell of."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _png_pixels(content: mmap.mmap, position: int) -> int:
    """The pixels of a PNG whose first chunk is there, wherever its header is: decoders find it behind other chunks."""
    while chunk := content[position : position + 16]:
        if chunk[4:8] == b"IHDR":
            return int.from_bytes(chunk[8:12], "big") * int.from_bytes(chunk[12:16], "big")
        position += 12 + int.from_bytes(chunk[:4], "big")
    return 0


def _jpegs(content: mmap.mmap) -> Iterator[Found]:
    """The scans of each image in turn, as its segments tell; then every header of an image.

    Lengths of segments may lie, and an image may lack its scan: decoders overlook both.
    """
    start = 0
    while (start := content.find(_JPEG, start)) >= 0:
        position, pixels, scans = start + 2, 0, 0
        while marker := _JPEG_MARKER.search(content, position):
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
    for match in _JPEG_FRAME.finditer(content):
        yield Found(int.from_bytes(match[1], "big") * int.from_bytes(match[2], "big"))
