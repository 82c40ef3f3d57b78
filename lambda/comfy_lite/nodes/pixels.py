"""Conversion between float32 images and Pillow's 8-bit ones."""

from __future__ import annotations

import numpy as np
from PIL import Image

from comfy_lite.node import Pixels


def to_pillow(image: Pixels) -> Image.Image:
    """One image (height, width, channels) in 8 bits. As in ComfyUI, fractions of a level are cut off, not rounded."""
    levels = 255.0 * image
    return Image.fromarray(np.clip(levels, 0, 255, out=levels).astype(np.uint8))


def from_pillow(image: Image.Image) -> Pixels:
    """One 8-bit image as float32 values from 0 to 1."""
    return np.asarray(image).astype(np.float32) / 255.0
