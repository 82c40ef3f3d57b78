"""Finds texts in RIFF: EXIF and XMP of WebP, ID3 and INFO of WAV and AVI."""

from __future__ import annotations

from comfy_serverless.sandbox.embedded.exif import find_in_exif
from comfy_serverless.sandbox.embedded.finds import Finds
from comfy_serverless.sandbox.embedded.id3 import find_in_id3
from comfy_serverless.sandbox.embedded.markup import find_in_xmp
from comfy_serverless.sandbox.embedded.window import Window, chunks

_COMMENTS = {b"ICMT": "comment", b"ISBJ": "description", b"INAM": "title"}


def find_in_riff(window: Window, finds: Finds) -> None:
    """Look at each chunk that has texts. SaveAnimatedWEBP writes EXIF, with the mark of JPEG before it or without."""
    for kind, begin, size in chunks(window, 12, window.size, form="<I", padded=True):
        match kind:
            case b"EXIF":
                find_in_exif(window.read(begin, size), finds)
            case b"XMP ":
                find_in_xmp(window.read(begin, size), finds)
            case b"id3 " | b"ID3 ":
                find_in_id3(Window.over(window.read(begin, size)), finds)
            case b"LIST" if window.read(begin, 4) == b"INFO":
                for name, at, length in chunks(window, begin + 4, begin + size, form="<I", padded=True):
                    finds.add(_COMMENTS.get(name, name.decode("latin-1")), window.read(at, length))
