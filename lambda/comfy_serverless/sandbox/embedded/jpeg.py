"""Finds texts in a JPEG: EXIF, XMP, also XMP in several segments, and comments. Ends where the image begins."""

from __future__ import annotations

from comfy_serverless.sandbox.embedded.exif import find_in_exif
from comfy_serverless.sandbox.embedded.finds import Finds
from comfy_serverless.sandbox.embedded.markup import find_in_xmp
from comfy_serverless.sandbox.embedded.window import Window, numbers

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
#: Then 32 characters that name the whole, its length, and the place of the part in it.
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_APP1, _COMMENT, _SCAN, _END = 0xE1, 0xFE, 0xDA, 0xD9
_ALONE = (0x01, *range(0xD0, 0xD9))


def find_in_jpeg(window: Window, finds: Finds) -> None:
    """Look at each segment before the first scan."""
    offset = 2
    more: dict[bytes, list[tuple[int, bytes]]] = {}
    exif: list[bytes] = []
    while fields := numbers(">BB", window.read(offset, 2)):
        mark, kind = fields
        if mark != 0xFF or kind in (_SCAN, _END):
            break
        if kind == 0xFF or kind in _ALONE:
            offset += 1 if kind == 0xFF else 2
            continue
        (length,) = numbers(">H", window.read(offset + 2, 2)) or (0,)
        if length < 2:
            break
        if kind in (_APP1, _COMMENT):
            _segment(kind, window.read(offset + 4, length - 2), finds, exif, more)
        offset += 2 + length
    if exif:  # more than 64 KB do not fit into one: some programs go on in the next
        find_in_exif(b"".join(exif), finds)
    for parts in more.values():
        find_in_xmp(b"".join(part for _, part in sorted(parts)), finds)


def _segment(
    kind: int, data: bytes, finds: Finds, exif: list[bytes], more: dict[bytes, list[tuple[int, bytes]]]
) -> None:
    if kind == _COMMENT:
        finds.add("comment", data)
    elif data.startswith(_EXIF):
        body = data[len(_EXIF) :]
        if exif and body[:2] in (b"II", b"MM"):
            find_in_exif(body, finds)
        else:
            exif.append(body)
    elif data.startswith(_XMP):
        find_in_xmp(data[len(_XMP) :], finds)
    elif data.startswith(_MORE_XMP):
        head = len(_MORE_XMP) + 40
        (place,) = numbers(">I", data, head - 4) or (0,)
        more.setdefault(data[head - 40 : head - 8], []).append((place, data[head:]))
