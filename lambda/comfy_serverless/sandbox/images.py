"""Checks that a file is an image ComfyUI can load, before ComfyUI sees it.

The content decides, never the name. The size in the header is checked before anything is decoded; then every frame is
decoded, so that a truncated or damaged file is found here, with a message, and not in the middle of a workflow.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.files import IMAGE_ENDINGS

#: The least a frame counts for: a million frames of one pixel cost time too.
_MIN_FRAME_PIXELS = 4096


def check_image(path: Path, *, max_pixels: int) -> str:
    """The file name ending for an image's real format.

    Raises Unusable if the file is not an image of an accepted format, is truncated or damaged, or has more than
    `max_pixels` in all frames together. Pillow's own limit (about 179 million a frame) holds as well: ComfyUI could
    not open more either.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            _decode_frames(image, max_pixels=max_pixels)
            return IMAGE_ENDINGS[str(image.format)]
    except Unusable:
        raise
    except UnidentifiedImageError:
        accepted = ", ".join(sorted(IMAGE_ENDINGS))
        raise Unusable(f"is not an image: {_looks_like(path)}. Accepted are {accepted}") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"has more pixels than can be opened: {error}") from error
    except MemoryError as error:
        raise Unusable("needs more memory to decode than there is") from error
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        raise Unusable(f"is a truncated or damaged image: {error or type(error).__name__}") from error


@cache
def _formats() -> tuple[str, ...]:
    """The formats to open a file as. Their plugins are imported here, not with this module: it takes a while."""
    for plugin in ("Avif", "Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP"):
        import_module(f"PIL.{plugin}ImagePlugin")
    # Pillow finds out by itself whether a JPEG is an MPO; not every build can read AVIF.
    return tuple(name for name in IMAGE_ENDINGS if name in Image.OPEN and name != "MPO")


def _decode_frames(image: Image.Image, *, max_pixels: int) -> None:
    """Decode frame after frame, counting the pixels of each before it is decoded."""
    pixels = frame = 0
    while True:
        pixels += max(image.width * image.height, _MIN_FRAME_PIXELS)
        if pixels > max_pixels:
            raise Unusable(
                f"has too many pixels: {image.width} x {image.height}"
                + (f", over {frame + 1} frames" if frame else "")
                + f"; the limit is {max_pixels} (MAX_INPUT_PIXELS)"
            )
        image.load()
        frame += 1
        try:
            image.seek(frame)
        except EOFError:
            return


def _looks_like(path: Path) -> str:
    """Say in a few words what a file that is no image may be."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "it is empty"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) or b"<svg" in text:
        return "it looks like SVG or XML, which must be rendered to PNG first"
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if text.startswith((b"{", b"[")):
        return "it looks like JSON"
    return f"it begins with {start[:8].hex(' ')}"
