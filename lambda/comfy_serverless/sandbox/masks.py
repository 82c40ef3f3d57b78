"""Puts a mask into the alpha of an image, so that ComfyUI's LoadImage returns exactly that mask.

LoadImage's mask is 1 - alpha: where the mask is white, alpha is 0. The colours are kept there as everywhere else.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageChops, ImageOps

from comfy_serverless.fetch.sources import Unusable, UnusableMask

#: Cameras put a second, smaller view into these; ComfyUI loads the first one alone.
_STILL_FORMATS = ("MPO",)


def combine(image: Path, mask: Path, target: Path) -> None:
    """Write a PNG with the colours of an image, as LoadImage sees them, and the mask in its alpha.

    The mask is 1 where it is white; if it has transparent pixels, 1 where it is transparent. Both have passed
    `check_image`. Raises Unusable if the image is animated, UnusableMask if the mask is, or has another size.
    """
    with Image.open(image) as opened:
        if frames := _frames_beyond_one(opened):
            raise Unusable(f"has {frames} frames: a mask can be put into a still image only")
        colours = _eight_bit(ImageOps.exif_transpose(opened)).convert("RGB")
    with Image.open(mask) as opened:
        if frames := _frames_beyond_one(opened):
            raise UnusableMask(f"has {frames} frames: a mask must be a still image")
        values = _mask_values(_eight_bit(ImageOps.exif_transpose(opened)))
    if values.size != colours.size:
        raise UnusableMask(
            f"is {_size(values)} pixels, and its image is {_size(colours)}: a mask must be as large as its image"
        )
    # A new image: nothing that Pillow has read along (a colour profile, a gamma) may change the colours.
    combined = Image.merge("RGBA", (*colours.split(), ImageChops.invert(values)))
    combined.save(target, "PNG", compress_level=1)


def _mask_values(picture: Image.Image) -> Image.Image:
    """255 where the mask is 1."""
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return ImageChops.invert(alpha)
    return picture.convert("L")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """A picture of 16-bit values as one of 8-bit values. Pillow itself would make everything above 255 white."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return picture.point(lambda value: value * (1 / 257)).convert("L")
    return picture


def _frames_beyond_one(picture: Image.Image) -> int:
    """How many frames an animation has; 0 for a still image."""
    frames = getattr(picture, "n_frames", 1)
    return frames if frames > 1 and picture.format not in _STILL_FORMATS else 0


def _size(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height}"
