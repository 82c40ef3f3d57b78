"""Brings a picture's colours to sRGB, by the ICC profile that came with it. Runs in the child.

A profile is a program for a library in C. It is read in the sandbox only, for a small picture only, and only after its
table of contents has been found to lie inside it. One that is not taken changes nothing: the picture's numbers are then
shown as they are, as by whoever knows no profiles.
"""

from __future__ import annotations

import io
import struct
from typing import Final

from PIL import Image

try:
    from PIL import ImageCms
except ImportError:  # Pillow without LittleCMS
    ImageCms = None  # type: ignore[assignment]

#: Those of displays and cameras have some kilobytes; those of presses, which we take none of, some megabytes.
MAX_BYTES: Final = 1 << 20
_HEADER_BYTES, _TAG_BYTES, _MAX_TAGS = 128, 12, 64
_KINDS: Final = (b"mntr", b"scnr", b"spac", b"prtr")
_SPACES: Final = {"RGB": b"RGB ", "RGBA": b"RGB ", "L": b"GRAY"}


def in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """A picture (L, RGB, RGBA) in sRGB; as it is, if it has no profile, or none that is taken.

    Args:
        profile: what stands in the picture's place for it: in a TIFF that may be anything.
    """
    if ImageCms is None or not isinstance(profile, bytes) or not is_sound(profile, _SPACES.get(image.mode, b"")):
        return image
    try:
        return (
            ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB" if image.mode == "L" else image.mode,
            )
            or image
        )
    except (ImageCms.PyCMSError, OSError, ValueError):  # what the library itself refuses
        return image


def is_sound(profile: bytes, space: bytes) -> bool:
    """Whether this is a profile of device colours in this space, each of whose parts lies inside it."""
    if not _HEADER_BYTES + 4 <= len(profile) <= MAX_BYTES:
        return False
    size, kind, colours, mark = struct.unpack_from(">I8x4s4s16x4s", profile)
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    first = _HEADER_BYTES + 4 + _TAG_BYTES * count
    if size > len(profile) or kind not in _KINDS or colours != space or mark != b"acsp":
        return False
    if not 0 < count <= _MAX_TAGS or first > size:
        return False
    tags = struct.iter_unpack(">4sII", profile[_HEADER_BYTES + 4 : first])
    return all(first <= start and start + length <= size for _, start, length in tags)
