"""Files of pictures: whole ones, and ones that claim what they are not."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

from PIL import Image


def picture(image_format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    noise = random.Random(1).randbytes(size[0] * size[1] * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", size, noise).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def animation(image_format: str, frames: int, size: tuple[int, int] = (100, 100)) -> bytes:
    images = [Image.new("RGB", size, (index * 8, 0, 255 - index * 8)) for index in range(frames)]
    file = io.BytesIO()
    images[0].save(file, image_format, save_all=True, append_images=images[1:])
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width: int, height: int, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def png_with(*chunks: bytes) -> bytes:
    """A whole PNG of 10 x 10 with chunks before its pixels."""
    pixels = png_chunk(b"IDAT", zlib.compress((b"\0" + b"\x80" * 30) * 10))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


def webp_claiming(width: int, height: int) -> bytes:
    content = b"\x2f" + struct.pack("<I", (width - 1) | ((height - 1) << 14)) + b"\0" * 21
    chunk = b"VP8L" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def tiff_with_tiles(tile: int, *, frames: int = 1) -> bytes:
    """A TIFF whose frames are of one pixel, and share one tile of so many pixels a side."""
    compressor = zlib.compressobj(9)
    tile_bytes = b"".join([compressor.compress(b"\0" * tile) for _ in range(tile)] + [compressor.flush()])
    content = bytearray(b"II*\0" + struct.pack("<I", 8 + len(tile_bytes)) + tile_bytes)
    tags = [(256, 1), (257, 1), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile), (324, 8)]
    for frame in range(1, frames + 1):
        entries = [*tags, (325, len(tile_bytes))]
        content += struct.pack("<H", len(entries))
        content += b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in entries)
        content += struct.pack("<I", len(content) + 4 if frame < frames else 0)
    return bytes(content)


def jpeg_with_scans(size: tuple[int, int], more: int, *, has_end: bool = True) -> bytes:
    """A progressive JPEG whose last scan stands there so many times more."""
    whole = picture("JPEG", size, progressive=True, quality=10)
    scan = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + scan * more + (whole[-2:] if has_end else b"")
