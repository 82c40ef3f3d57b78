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


def animated_png(
    frames: int, *, claimed: int | None = None, second: int = 1, size: tuple[int, int] = (64, 64)
) -> bytes:
    """A PNG with frames of a pixel, behind a first one of its size.

    Args:
        claimed: how many its header says there are.
        second: the place in their order that the second one claims.
    """
    width, height = size
    controls = iter(range(2 * frames))

    def control(width: int, height: int, place: int) -> bytes:
        return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", place, width, height, 0, 0, 1, 10, 0, 0))

    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content += png_chunk(b"acTL", struct.pack(">II", claimed or frames, 0)) + control(width, height, next(controls))
    content += png_chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width))))
    for index in range(1, frames):
        place = next(controls)
        content += control(1, 1, second if index == 1 else place)
        content += png_chunk(b"fdAT", struct.pack(">I", next(controls)) + zlib.compress(bytes(4)))
    return content + png_chunk(b"IEND", b"")


#: A frame of a GIF: of a pixel, and of none.
GIF_FRAME = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
EMPTY_GIF_FRAME = b"\x2c" + struct.pack("<HHHHB", 0, 0, 0, 0, 0) + b"\x02\x02\x44\x01\0"


def gif_of(*parts: bytes, size: tuple[int, int] = (64, 64)) -> bytes:
    """A GIF of such parts, with a palette of two colours."""
    return b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + b"".join(parts) + b";"


def gif_heads(count: int) -> bytes:
    """Blocks of a GIF, each with the beginning of another one, which leads through all blocks behind it."""
    head = gif_of(GIF_FRAME[:11])[:-1]
    return (bytes([len(head)]) + head) * count


def png_claiming(width: int, height: int, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def png_with(*chunks: bytes) -> bytes:
    """A whole PNG of 10 x 10 with chunks before its pixels."""
    pixels = png_chunk(b"IDAT", zlib.compress((b"\0" + b"\x80" * 30) * 10))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


def behind_a_chunk(png: bytes, size_bytes: int = 4) -> bytes:
    """A PNG with a chunk of so many bytes before its header, as iPhones write it."""
    return png[:8] + png_chunk(b"CgBI", b"\x50\0\x20\x02" * (size_bytes // 4)) + png[8:]


def interlaced_png() -> bytes:
    """A PNG of 16 x 16 in seven passes of 1, 1, 2, 2, 4, 4 and 8 rows, in grey."""
    passes = ((2, 2), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8), (16, 8))
    rows = b"".join((b"\0" + random.Random(1).randbytes(width)) * height for width, height in passes)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def bmp_of_runs(runs: bytes, size: tuple[int, int] = (8, 4), *, has_halves: bool = False) -> bytes:
    """A BMP packed as runs of bytes, with a palette of 256 colours; or of half bytes, with one of 16."""
    colours, bits = (16, 4) if has_halves else (256, 8)
    start = 14 + 40 + 4 * colours
    head = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, 1 + has_halves, len(runs), 0, 0, colours, 0)
    return head + b"".join(bytes([n, 255 - n, n // 2, 0]) for n in range(colours)) + runs


def tiff_of_jpegs(jpeg: bytes, size: tuple[int, int], *, strips: int = 1) -> bytes:
    """A TIFF whose strips are all the same JPEG. Each is as large as that."""
    width, rows = size
    places = 8 + len(jpeg)
    lists = struct.pack("<3H", 8, 8, 8) + struct.pack(f"<{strips}I", *[8] * strips)
    lists += struct.pack(f"<{strips}I", *[len(jpeg)] * strips)
    offsets, sizes = places + 6, places + 6 + 4 * strips
    if strips == 1:
        offsets, sizes = 8, len(jpeg)
    tags = [
        (256, 1, width),
        (257, 1, rows * strips),
        (258, 3, places),
        (259, 1, 7),
        (262, 1, 6),
        (273, strips, offsets),
    ]
    tags += [(277, 1, 3), (278, 1, rows), (279, strips, sizes)]
    folder = struct.pack("<H", len(tags))
    for number, count, value in tags:
        folder += struct.pack("<HHII", number, 3 if number == 258 else 4, count, value)
    head = b"II*\0" + struct.pack("<I", places + len(lists))
    return head + jpeg + lists + folder + struct.pack("<I", 0)


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


def tiff_of_tags(pages: int, tags: int) -> bytes:
    """A TIFF of pages of a pixel, each of which has so many tags that mean nothing, whose values are elsewhere."""
    entries = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1), (279, 1)]
    page = struct.pack("<H", len(entries) + tags)
    page += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    page += b"".join(struct.pack("<HHII", 1000 + number, 4, 2, 8) for number in range(tags))
    nexts = [8 + (number + 1) * (len(page) + 4) for number in range(pages - 1)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(page + struct.pack("<I", place) for place in [*nexts, 0])


def jpeg_with_scans(size: tuple[int, int], more: int, *, has_end: bool = True) -> bytes:
    """A progressive JPEG whose last scan stands there so many times more."""
    whole = picture("JPEG", size, progressive=True, quality=10)
    scan = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + scan * more + (whole[-2:] if has_end else b"")


def profile(
    red: tuple[float, float, float],
    green: tuple[float, float, float],
    blue: tuple[float, float, float],
    *,
    gamma: float = 2.2,
) -> bytes:
    """An ICC profile of a display, by the XYZ (D50) of its three colours."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    start, table, contents = 128 + 4 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, start + len(contents), len(content))
        contents += padded
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(contents), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + contents


#: XYZ (D50) of sRGB's three colours, and of Display P3's.
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
