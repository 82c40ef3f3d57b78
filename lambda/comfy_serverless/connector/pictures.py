"""Bytes as pictures. The only module of this room that loads Pillow, which takes a while."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

#: What Pillow raises for what it cannot read: `UnidentifiedImageError` is an OSError.
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def picture_of(content: bytes) -> Image.Image:
    """An image, read whole. Raises OSError if Pillow does not know it."""
    image = Image.open(BytesIO(content))
    image.load()
    return image


def as_png(content: bytes, *, longest_side: int | None = None) -> bytes | None:
    """An image as PNG, scaled down if a side is longer; None for what Pillow cannot read."""
    try:
        picture = picture_of(content)
        if longest_side is None and picture.format == "PNG":
            return content
        if longest_side is not None:
            picture.thumbnail((longest_side, longest_side))
        if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            picture = picture.convert("RGB")
        file = BytesIO()
        picture.save(file, "PNG")
    except _UNREADABLE:
        return None
    return file.getvalue()
