"""Finds texts in a PNG: plain, packed and international ones, ComfyUI's own of animations, EXIF and XMP.

SaveImage writes tEXt before the pixels; SaveAnimatedPNG writes chunks of its own kind, `comf`, behind the first frame.
"""

from __future__ import annotations

from comfy_serverless.sandbox.embedded.exif import find_in_exif
from comfy_serverless.sandbox.embedded.finds import Finds
from comfy_serverless.sandbox.embedded.markup import find_in_xmp
from comfy_serverless.sandbox.embedded.window import Window, numbers

HEAD = b"\x89PNG\r\n\x1a\n"
_XMP = "xml:com.adobe.xmp"


def find_in_png(window: Window, finds: Finds) -> None:
    """Look at each chunk that has a text, also behind the end of the image data."""
    offset = len(HEAD)
    while fields := numbers(">I4s", window.read(offset, 8)):
        length, kind = fields
        if kind in _READERS:
            _READERS[kind](window.read(offset + 8, length), finds)
        offset += 12 + length


def _plain(data: bytes, finds: Finds) -> None:
    name, _, text = data.partition(b"\0")
    finds.add(name.decode("latin-1"), text)


def _packed(data: bytes, finds: Finds) -> None:
    name, _, rest = data.partition(b"\0")
    finds.add(name.decode("latin-1"), finds.unpacked(rest[1:]))


def _international(data: bytes, finds: Finds) -> None:
    name, _, rest = data.partition(b"\0")
    packed, text = rest[:1] == b"\x01", rest[2:].split(b"\0", 2)[-1]
    text = finds.unpacked(text) if packed else text
    if name.decode("latin-1").lower() == _XMP:
        find_in_xmp(text, finds)
    else:
        finds.add(name.decode("latin-1"), text)


_READERS = {b"tEXt": _plain, b"comf": _plain, b"zTXt": _packed, b"iTXt": _international, b"eXIf": find_in_exif}
