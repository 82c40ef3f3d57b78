"""Gaussian blur and sharpening.

ComfyUI convolves with a square kernel whose sigma is measured in kernel radii. A square Gaussian is the product of two
one-dimensional ones, so it is applied here to one axis after the other: the same result in far fewer operations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from comfy_lite.node import NodeContext, NodeResult, NodeType, Pixels
from comfy_lite.nodes.declare import V3_ENTRY


def _blur(_: NodeContext, *, image: Pixels, blur_radius: int, sigma: float) -> NodeResult:
    return NodeResult((_blurred(image, blur_radius, sigma).astype(np.float32),))


def _sharpen(_: NodeContext, *, image: Pixels, sharpen_radius: int, sigma: float, alpha: float) -> NodeResult:
    amount = alpha * 10
    sharpened = image * (1 + amount) - _blurred(image, sharpen_radius, sigma) * amount
    return NodeResult((np.clip(sharpened, 0, 1).astype(np.float32),))


def _blurred(images: Pixels, radius: int, sigma: float) -> npt.NDArray[np.float64]:
    for axis in (2, 1):
        if radius >= images.shape[axis]:
            raise RuntimeError(
                "Padding size should be less than the corresponding input dimension, but got: padding "
                f"({radius}, {radius}) at a dimension of size {images.shape[axis]}"
            )
    weights = np.exp(-np.square(np.linspace(-1, 1, 2 * radius + 1)) / (2 * sigma * sigma))
    weights /= weights.sum()
    # In float64 the rounding errors of up to 126 additions stay far below what sharpening can make visible.
    result = np.empty(images.shape, np.float64)
    for source, target in zip(images, result, strict=True):
        target[...] = _convolved(_convolved(source, weights, axis=0), weights, axis=1)
    return result


def _convolved(
    image: npt.NDArray[np.floating], weights: npt.NDArray[np.float64], *, axis: int
) -> npt.NDArray[np.float64]:
    """Convolve with a symmetric kernel along an axis. Beyond its edges the image is mirrored, edge not repeated."""
    radius, size = len(weights) // 2, image.shape[axis]
    padding = [(0, 0)] * image.ndim
    padding[axis] = (radius, radius)
    padded = np.pad(image, padding, mode="reflect")
    result = np.zeros(image.shape, np.float64)
    for shift, weight in enumerate(weights):
        result += weight * (padded[shift : shift + size] if axis == 0 else padded[:, shift : shift + size])
    return result


_RADIUS = ("INT", {"default": 1, "min": 1, "max": 31, "step": 1})
_MODULE = "comfy_extras.nodes_post_processing"

NODES = (
    NodeType(
        class_type="ImageBlur",
        display_name=None,
        category="image/postprocessing",
        execute=_blur,
        required={
            "image": ("IMAGE", {}),
            "blur_radius": _RADIUS,
            "sigma": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.1}),
        },
        returns=("IMAGE",),
        python_module=_MODULE,
        entry=V3_ENTRY,
    ),
    NodeType(
        class_type="ImageSharpen",
        display_name=None,
        category="image/postprocessing",
        execute=_sharpen,
        required={
            "image": ("IMAGE", {}),
            "sharpen_radius": _RADIUS,
            "sigma": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.01}),
            "alpha": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 5.0, "step": 0.01}),
        },
        returns=("IMAGE",),
        python_module=_MODULE,
        entry=V3_ENTRY,
    ),
)
