"""Finds texts in EXIF: a small TIFF file, whose tags may hold anything. All of them are searched.

ComfyUI writes `workflow:{…}` into 0x010f (Make) and `prompt:{…}` into 0x0110 (Model); others use 0x010e
(ImageDescription), 0x9286 (UserComment) or Windows' own comments.
"""

from __future__ import annotations

from comfy_serverless.sandbox.embedded.finds import Finds, decoded
from comfy_serverless.sandbox.embedded.window import numbers

_MARK = b"Exif\0\0"
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
#: Types of values that may be texts: bytes, ASCII, undefined, UTF-8 of EXIF 3.
_TEXTS = (1, 2, 7, 129)
_LONG = 4
#: Tags that lead to another directory: of EXIF, and of what others may read.
_DIRECTORIES = (0x8769, 0xA005)
_MOST_DIRECTORIES, _MOST_ENTRIES, _MOST_PARTS = 16, 2000, 8
_NAMES = {0x010E: "description", 0x9286: "usercomment", 0x9C9C: "comment", 0x9C9B: "title"}
_WINDOWS = range(0x9C9B, 0x9CA0)


def find_in_exif(content: bytes, finds: Finds) -> None:
    """Look at every text of EXIF data, with or without the mark that JPEG puts before it."""
    tiff = content[len(_MARK) :] if content.startswith(_MARK) else content
    order = _ORDERS.get(tiff[:4])
    if order is None:
        return
    pending, seen = list(numbers(order + "I", tiff, 4) or ()), set[int]()
    while pending and len(seen) < _MOST_DIRECTORIES:
        at = pending.pop()
        if at in seen or at < 8:
            continue
        seen.add(at)
        pending += _directory(tiff, at, order, finds)


def _directory(tiff: bytes, at: int, order: str, finds: Finds) -> list[int]:
    """Look at the texts of a directory; returns where others are."""
    others: list[int] = []
    (count,) = numbers(order + "H", tiff, at) or (0,)
    for index in range(min(count, _MOST_ENTRIES)):
        entry = at + 2 + 12 * index
        fields = numbers(order + "HHII", tiff, entry)
        if fields is None:
            return others
        tag, kind, length, value = fields
        if kind in _TEXTS:
            place = entry + 8 if length <= 4 else value
            _look(tag, tiff[place : place + length], finds)
        elif kind == _LONG and tag in _DIRECTORIES:
            others.append(value)
    return others + list(numbers(order + "I", tiff, at + 2 + 12 * count) or ())


def _look(tag: int, value: bytes, finds: Finds) -> None:
    text = value.decode("utf-16-le", "replace") if tag in _WINDOWS else decoded(value)
    for part in text.split("\0", _MOST_PARTS):  # ASCII may have several, with zeros between them
        finds.add(_NAMES.get(tag, f"exif-{tag:04x}"), part)
