"""Puts a mask into the alpha of an image, so that ComfyUI's LoadImage returns exactly that mask.

LoadImage's mask is 1 - alpha: where the mask is white, alpha is 0. The colours are kept there as everywhere else. Runs
in the child.
"""

from __future__ import annotations

import resource
from typing import BinaryIO

from PIL import Image, ImageChops, ImageFile, ImageOps

from comfy_serverless.sandbox.images import claimed_pixels, open_image
from comfy_serverless.sandbox.limits import Budget, set_soft
from comfy_serverless.sandbox.refused import MaskRefused, Refused

#: Cameras put a second, smaller view into these; ComfyUI loads the first one alone.
_STILL_FORMATS = ("MPO",)
#: A PNG of noise is a little larger than its four bytes for each pixel.
_PNG_BYTES_A_PIXEL = 5
_PNG_BASE_BYTES = 1 << 20


def combine(image: BinaryIO, mask: BinaryIO, target: BinaryIO, *, budget: Budget) -> None:
    """Write a PNG with the colours of an image, as LoadImage sees them, and the mask in its alpha.

    The mask is 1 where it is white; if it has transparent pixels, 1 where it is transparent. Both have passed
    `check_image`. Raises Refused if the image is animated, MaskRefused if the mask is, or has another size; OSError if
    the target cannot be written.
    """
    pixels = 0
    for file in (image, mask):
        budget.add_file(file)
        pixels += claimed_pixels(file)
        budget.allow_pixels(pixels)  # the two are decoded one after the other: 10 bytes a pixel, measured
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # the check has let damaged ones pass: as LoadImage
    try:
        combined = _combined(image, mask)
    except (Refused, MemoryError):
        raise
    except Exception as error:
        raise Refused(f"cannot be given its mask: one of them is damaged: {error or type(error).__name__}") from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    set_soft(resource.RLIMIT_FSIZE, _PNG_BASE_BYTES + _PNG_BYTES_A_PIXEL * combined.width * combined.height)
    try:
        combined.save(target, "PNG", compress_level=1)
        target.flush()
    finally:
        set_soft(resource.RLIMIT_FSIZE, 0)


def _combined(image: BinaryIO, mask: BinaryIO) -> Image.Image:
    with open_image(image) as opened:
        if frames := _frames_beyond_one(opened):
            raise Refused(f"has {frames} frames: a mask can be put into a still image only")
        colours = eight_bit(ImageOps.exif_transpose(opened)).convert("RGB")
    with open_image(mask) as opened:
        if frames := _frames_beyond_one(opened):
            raise MaskRefused(f"has {frames} frames: a mask must be a still image")
        values = _mask_values(eight_bit(ImageOps.exif_transpose(opened)))
    if values.size != colours.size:
        raise MaskRefused(
            f"is {_size(values)} pixels, and its image is {_size(colours)}: a mask must be as large as its image"
        )
    # A new image: nothing that Pillow has read along (a colour profile, a gamma) may change the colours.
    return Image.merge("RGBA", (*colours.split(), ImageChops.invert(values)))


def _mask_values(picture: Image.Image) -> Image.Image:
    """255 where the mask is 1."""
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return ImageChops.invert(alpha)
    return picture.convert("L")


def eight_bit(picture: Image.Image) -> Image.Image:
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
