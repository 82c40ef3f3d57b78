"""What the bytes of a file are, where its name does not tell. Reads beginnings only."""

from __future__ import annotations

from typing import BinaryIO

#: How many bytes `media_type_of` wants to see.
HEAD_BYTES = 16
#: What files begin with, from which byte on.
_BEGINNINGS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (0, b"\x1a\x45\xdf\xa3", "video/webm"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"glTF", "model/gltf-binary"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
)


def media_type_of(head: bytes) -> str | None:
    """The media type of a file that begins with these bytes; None when they tell nothing."""
    return next((kind for at, mark, kind in _BEGINNINGS if head.startswith(mark, at)), None)


def pixels_of(stream: BinaryIO) -> tuple[int, int] | None:
    """Width and height of an image, animated ones included; None for what is none that Pillow knows."""
    from PIL import Image  # here: importing the connector must stay cheap

    try:
        with Image.open(stream) as image:
            return image.size
    except Exception:  # noqa: BLE001  (Pillow raises nearly anything for a damaged file, which is an output all the same)
        return None
