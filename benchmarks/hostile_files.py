"""Files that cost whoever reads them far more than their sender: what `ping_flood` floods a worker with.

Each is one that a limit of the sandbox is for, and must be refused; none is larger than a stranger may send.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

#: The longest header that the format of safetensors itself allows has 100 MB.
_HEADER_BYTES = 99_000_000
_MANY_LISTS = 8_000_000


def _packed_zeros(row_bytes: int, rows: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(row_bytes)) for _ in range(rows)), packer.flush()])


def _tiff(tile: int, *, frames: int = 1) -> bytes:
    """A TIFF whose frames are of one pixel, and share one tile of so many pixels a side."""
    pixels = _packed_zeros(tile, tile)
    content = bytearray(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels)
    tags = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(pixels)}
    for left in reversed(range(frames)):
        content += struct.pack("<H", len(tags))
        content += b"".join(struct.pack("<HHII", number, 4, 1, value) for number, value in tags.items())
        content += struct.pack("<I", len(content) + 4 if left else 0)
    return bytes(content)


def _jpeg(side: int, *, more_scans: int) -> bytes:
    """A progressive JPEG whose last scan stands there so many times more."""
    written = io.BytesIO()
    Image.new("RGB", (side, side), (90, 60, 30)).save(written, "JPEG", progressive=True, quality=10)
    whole = written.getvalue()
    scan = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + scan * more_scans + whole[-2:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = _packed_zeros(1 + 3 * side, 200)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _animated_png(side: int, frames: int) -> bytes:
    """A PNG that claims one frame, and has more, of a pixel each: a decoder makes whole pictures of them."""
    order = iter(range(2 * frames))

    def control(side: int) -> bytes:
        return _chunk(b"fcTL", struct.pack(">IIIIIHHBB", next(order), side, side, 0, 0, 1, 10, 0, 0))

    content = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    content += _chunk(b"acTL", struct.pack(">II", 1, 0)) + control(side)
    content += _chunk(b"IDAT", _packed_zeros(1 + 3 * side, side))
    pixel = zlib.compress(bytes(4))
    more = [control(1) + _chunk(b"fdAT", struct.pack(">I", next(order)) + pixel) for _ in range(frames - 1)]
    return content + b"".join(more) + _chunk(b"IEND", b"")


def _gif(comments: int) -> bytes:
    """A GIF of one pixel behind so many comments, which a decoder goes through one by one."""
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + b"\x21\xfe\1x\0" * comments + picture


def _header_of_lists() -> bytes:
    header = b'{"__metadata__":{"x":[' + b"[]," * _MANY_LISTS + b"[]]}}"
    return len(header).to_bytes(8, "little") + header


def _longest_header() -> bytes:
    return _HEADER_BYTES.to_bytes(8, "little") + b'{"__metadata__":{"x":"' + bytes(_HEADER_BYTES - 22)


#: By what they are: pictures for LoadImage.
PICTURES: dict[str, Callable[[], bytes]] = {
    "TIFF of one pixel, a tile of 32768 x 32768": lambda: _tiff(32_768),
    "TIFF, 20 frames that share a tile of 16384 x 16384": lambda: _tiff(16_384, frames=20),
    "TIFF, 24,000 frames that share a tile of 1024 x 1024": lambda: _tiff(1024, frames=24_000),
    "JPEG, 9900 x 9900, 900 scans": lambda: _jpeg(9900, more_scans=900),
    "JPEG, 300 x 300, 20,000 scans": lambda: _jpeg(300, more_scans=20_000),
    "PNG that claims 60000 x 60000": lambda: _png(60_000),
    "PNG that claims one frame, and has 24,000 of 9900 x 9900": lambda: _animated_png(9900, 24_000),
    "GIF of one pixel behind 8 million comments": lambda: _gif(8_000_000),
}
#: Workflows, with a node that nobody has.
GRAPHS: dict[str, Callable[[], dict[str, Any]]] = {
    "a workflow of 2 million lists": lambda: {"1": {"class_type": "Hostile", "inputs": {"x": [[]] * 1_950_000}}},
}
#: And models.
MODELS: dict[str, Callable[[], bytes]] = {
    "safetensors, a header of 99 MB": _longest_header,
    "safetensors, 8 million lists in its header": _header_of_lists,
}
