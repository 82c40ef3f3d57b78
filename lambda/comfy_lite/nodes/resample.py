"""Resizing: PyTorch's `interpolate` (without antialiasing) and Pillow's Lanczos, on float32 image batches.

ComfyUI cuts off fractions of a level when it saves, so the last bit of a float32 can decide a level, and in a flat
colour the level of every pixel. This module therefore rounds exactly where PyTorch's CPU kernels round: in
float32, with fused multiply-adds, and by one of two kernels, depending on the size of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from comfy_lite.node import Pixels
from comfy_lite.nodes.pixels import from_pillow, to_pillow

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")

_Floats = npt.NDArray[np.float32]
_Indices = npt.NDArray[np.intp]
#: For each target position, its source positions and their weights: two arrays (size, taps).
_Taps = tuple[_Indices, _Floats]

#: PyTorch uses its small-image kernels up to this sum of width and height.
_SMALL = 128


def resize(images: Pixels, width: int, height: int, *, method: str, crop: str = "disabled") -> Pixels:
    """Resize a batch (batch, height, width, channels); `crop="center"` keeps the aspect ratio by cutting."""
    if crop == "center":
        images = _crop_to_aspect(images, width, height)
    if method == "lanczos":
        resized = (to_pillow(image).resize((width, height), Image.Resampling.LANCZOS) for image in images)
        return np.stack([from_pillow(image) for image in resized])
    if width < 1 or height < 1:
        kind = ValueError if method == "area" else RuntimeError
        raise kind(
            f"Input and output sizes should be greater than 0, but got input (H: {images.shape[1]}, "
            f"W: {images.shape[2]}) output (H: {height}, W: {width})"
        )
    if images.shape[1:3] == (height, width):
        return images
    # One image at a time: intermediate results need several times its memory.
    return np.stack([_resize_one(image, width, height, method=method) for image in images])


def resize_masks(masks: Pixels, width: int, height: int) -> Pixels:
    """Resize a mask batch (batch, height, width), bilinearly."""
    return resize(masks[..., np.newaxis], width, height, method="bilinear")[..., 0]


def _crop_to_aspect(images: Pixels, width: int, height: int) -> Pixels:
    rows, columns = images.shape[1:3]
    given, wanted = columns / rows, width / height
    return images[:, _middle(rows, share=given / wanted), _middle(columns, share=wanted / given)]


def _middle(length: int, *, share: float) -> slice:
    """The middle part of a length that is this share of it; a share of 1 or more keeps everything."""
    margin = max(round((length - length * share) / 2), 0)
    return slice(margin, length - margin)


def _resize_one(image: Pixels, width: int, height: int, *, method: str) -> Pixels:
    old_height, old_width = image.shape[:2]
    small = width + height <= _SMALL
    if method == "area":
        return _averages(image, width, height)
    if method == "nearest-exact":
        rows, columns = _nearest(old_height, height, small=small), _nearest(old_width, width, small=small)
        return image.take(rows, axis=0).take(columns, axis=1)
    if method == "bicubic":
        return _combine_rows(_combine_columns(image, _bicubic(old_width, width)), _bicubic(old_height, height))
    horizontal, vertical = _bilinear(old_width, width), _bilinear(old_height, height)
    if small:
        return _combine_corners(image, horizontal, vertical)
    return _combine_rows(_combine_columns(image, horizontal), vertical)


def _fused(a: _Floats, b: _Floats | np.float32, c: _Floats | np.float32) -> _Floats:
    """a * b + c, rounded to float32 once."""
    result: npt.NDArray[np.float64] = np.multiply(a, b, dtype=np.float64)
    result += c
    return result.astype(np.float32)


# Positions and weights


def _positions(old_size: int, size: int) -> _Floats:
    """The centres of the target pixels, in source pixels."""
    scale = np.float32(old_size) / np.float32(size)
    return _fused(np.arange(size, dtype=np.float32) + np.float32(0.5), scale, np.float32(-0.5))


def _nearest(old_size: int, size: int, *, small: bool) -> _Indices:
    if small:
        scale = np.float32(old_size) / np.float32(size)
        positions = np.floor((np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale)
    else:
        positions = np.floor(np.maximum(_positions(old_size, size), np.float32(0)) + np.float32(0.5))
    return np.asarray(np.minimum(positions, old_size - 1), np.intp)


def _bilinear(old_size: int, size: int) -> _Taps:
    positions = np.maximum(_positions(old_size, size), np.float32(0))
    first = positions.astype(np.intp)
    fraction = positions - first.astype(np.float32)
    second = np.minimum(first + 1, old_size - 1)
    return np.stack([first, second], axis=1), np.stack([1 - fraction, fraction], axis=1)


def _bicubic(old_size: int, size: int) -> _Taps:
    """The taps of cubic convolution over four neighbours, with a = -0.75."""
    positions = _positions(old_size, size)
    floors = np.floor(positions)
    t = positions - floors
    weights = np.stack([_far(t + 1), _near(t), _near(1 - t), _far(2 - t)], axis=1)
    indices = floors.astype(np.intp)[:, np.newaxis] + np.arange(-1, 3)
    return np.clip(indices, 0, old_size - 1), weights


def _near(x: _Floats) -> _Floats:
    """The cubic convolution kernel at distances up to 1."""
    return _fused(x, np.float32(1.25), np.float32(-2.25)) * x * x + np.float32(1)


def _far(x: _Floats) -> _Floats:
    """The cubic convolution kernel at distances from 1 to 2."""
    return _fused(_fused(x, np.float32(-0.75), np.float32(3.75)), x, np.float32(-6)) * x + np.float32(3)


# Weighted sums


def _combine_columns(image: Pixels, taps: _Taps) -> Pixels:
    indices, weights = taps
    columns = [image.take(index, axis=1) for index in indices.T]
    return _weighted_sum(columns, [weight[:, np.newaxis] for weight in weights.T])


def _combine_rows(image: Pixels, taps: _Taps) -> Pixels:
    indices, weights = taps
    rows = [image.take(index, axis=0) for index in indices.T]
    return _weighted_sum(rows, [weight[:, np.newaxis, np.newaxis] for weight in weights.T])


def _combine_corners(image: Pixels, horizontal: _Taps, vertical: _Taps) -> Pixels:
    """Combine both axes at once: four neighbours, each with the product of its two weights."""
    (columns, x_weights), (rows, y_weights) = horizontal, vertical
    corners = [(row, column) for row in range(2) for column in range(2)]
    return _weighted_sum(
        [image.take(rows[:, row], axis=0).take(columns[:, column], axis=1) for row, column in corners],
        [(y_weights[:, row, np.newaxis] * x_weights[:, column])[..., np.newaxis] for row, column in corners],
    )


def _weighted_sum(parts: list[Pixels], weights: list[Any]) -> Pixels:
    result = _fused(parts[0], weights[0], parts[1] * weights[1])
    for part, weight in zip(parts[2:], weights[2:], strict=True):
        result = _fused(part, weight, result)
    return result


def _averages(image: Pixels, width: int, height: int) -> Pixels:
    """Make each target pixel the mean of the source pixels that it touches, wholly or in part."""
    tops, bottoms = _spans(image.shape[0], height)
    lefts, rights = _spans(image.shape[1], width)
    # The columns of every span as one array (widest span, width); shorter spans end in a column of zeros.
    columns = lefts + np.arange((rights - lefts).max())[:, np.newaxis]
    columns = np.where(columns < rights, columns, image.shape[1])
    padded = np.pad(image, [(0, 0), (0, 1), (0, 0)])
    result = np.empty((height, width, image.shape[2]), np.float32)
    for target, top, bottom in zip(result, tops, bottoms, strict=True):
        spans = padded[top:bottom].take(columns, axis=1)
        total = spans.reshape(-1, width, image.shape[2]).sum(axis=0)
        target[...] = total / np.float32(bottom - top) / (rights - lefts).astype(np.float32)[:, np.newaxis]
    return result


def _spans(old_size: int, size: int) -> tuple[_Indices, _Indices]:
    """The first source position of each target position, and the position after its last."""
    steps = np.arange(size)
    return steps * old_size // size, -(-(steps + 1) * old_size // size)
