"""Nodes that make images, resize them, rearrange them and put them together."""

from __future__ import annotations

import numpy as np

from comfy_lite.node import NodeContext, NodeResult, NodeType, Pixels
from comfy_lite.nodes.declare import IMAGE, MASK, V3_ENTRY, batch_size, combo, offset, size
from comfy_lite.nodes.resample import METHODS, resize, resize_masks


def _empty_image(_: NodeContext, *, width: int, height: int, batch_size: int, color: int) -> NodeResult:
    channels = np.array([color >> 16 & 255, color >> 8 & 255, color & 255]) / 255
    return NodeResult((np.full((batch_size, height, width, 3), channels, np.float32),))


def _scale(_: NodeContext, *, image: Pixels, upscale_method: str, width: int, height: int, crop: str) -> NodeResult:
    old_height, old_width = image.shape[1:3]
    if not (width or height):
        return NodeResult((image,))
    # A side of 0 follows from the other one.
    new_width = width or max(1, round(old_width * height / old_height))
    new_height = height or max(1, round(old_height * width / old_width))
    return NodeResult((resize(image, new_width, new_height, method=upscale_method, crop=crop),))


def _scale_by(_: NodeContext, *, image: Pixels, upscale_method: str, scale_by: float) -> NodeResult:
    width, height = round(image.shape[2] * scale_by), round(image.shape[1] * scale_by)
    return NodeResult((resize(image, width, height, method=upscale_method),))


def _invert(_: NodeContext, *, image: Pixels) -> NodeResult:
    return NodeResult((1.0 - image,))


def _batch(_: NodeContext, *, image1: Pixels, image2: Pixels) -> NodeResult:
    if image1.shape[1:] != image2.shape[1:]:
        image2 = resize(image2, image1.shape[2], image1.shape[1], method="bilinear", crop="center")
    return NodeResult((np.concatenate([image1, image2]),))


def _repeat(_: NodeContext, *, image: Pixels, amount: int) -> NodeResult:
    return NodeResult((np.tile(image, (amount, 1, 1, 1)),))


def _from_batch(_: NodeContext, *, image: Pixels, batch_index: int, length: int) -> NodeResult:
    count = image.shape[0]
    first = min(max(batch_index + (count if batch_index < 0 else 0), 0), count - 1)
    return NodeResult((image[first : first + length],))


def _crop(_: NodeContext, *, image: Pixels, width: int, height: int, x: int, y: int) -> NodeResult:
    left, top = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return NodeResult((image[:, top : top + height, left : left + width],))


def _flip(_: NodeContext, *, image: Pixels, flip_method: str) -> NodeResult:
    return NodeResult((np.flip(image, axis=1 if flip_method.startswith("x") else 2),))


def _rotate(_: NodeContext, *, image: Pixels, rotation: str) -> NodeResult:
    quarters = {"none": 0, "90 degrees": 1, "180 degrees": 2, "270 degrees": 3}[rotation]
    return NodeResult((np.rot90(image, k=quarters, axes=(2, 1)),))


def _pad_for_outpaint(
    _: NodeContext, *, image: Pixels, left: int, top: int, right: int, bottom: int, feathering: int
) -> NodeResult:
    batch, height, width, channels = image.shape
    inside = np.s_[top : top + height, left : left + width]
    shape = (top + height + bottom, left + width + right)
    padded = np.full((batch, *shape, channels), 0.5, np.float32)
    padded[:, *inside] = image
    mask = np.ones(shape, np.float32)
    mask[inside] = 0
    if feathering > 0 and feathering * 2 < min(height, width):
        # The distance to the nearest edge with padding beyond it.
        rows, columns = np.arange(height)[:, np.newaxis], np.arange(width)[np.newaxis, :]
        far = np.full((height, width), max(height, width))
        edges = [(top, rows), (bottom, height - rows), (left, columns), (right, width - columns)]
        distance = np.minimum.reduce([far] + [np.broadcast_to(d, far.shape) for pad, d in edges if pad])
        mask[inside] = np.square(np.maximum(feathering - distance, 0) / feathering)
    return NodeResult((padded, mask[np.newaxis]))


def _composite(
    _: NodeContext,
    *,
    destination: Pixels,
    source: Pixels,
    x: int,
    y: int,
    resize_source: bool,
    mask: Pixels | None = None,
) -> NodeResult:
    result = destination.copy()
    batch, height, width, channels = result.shape
    source = source[..., :channels]
    if resize_source:
        source = resize(source, width, height, method="bilinear")
    source = _repeat_to(source, batch)
    window = result[:, y : y + source.shape[1], x : x + source.shape[2]]
    source_portion = source[:, : window.shape[1], : window.shape[2]]
    if mask is None:
        window[...] = source_portion
    else:
        weights = resize_masks(mask.reshape(-1, *mask.shape[-2:]), source.shape[2], source.shape[1])
        weights = _repeat_to(weights, batch)[:, : window.shape[1], : window.shape[2], np.newaxis]
        window[...] = weights * source_portion + (1 - weights) * window
    return NodeResult((result,))


def _repeat_to(images: Pixels, batch: int) -> Pixels:
    """Exactly `batch` images: the first ones, or all of them over and over."""
    return images[np.arange(batch) % images.shape[0]] if images.shape[0] != batch else images


def _blend(_: NodeContext, *, image1: Pixels, image2: Pixels, blend_factor: float, blend_mode: str) -> NodeResult:
    image2 = image2[..., : image1.shape[-1]]
    if image1.shape != image2.shape:
        image2 = resize(image2, image1.shape[2], image1.shape[1], method="bicubic", crop="center")
    blended = image1 * (1 - blend_factor) + _blended(image1, image2, blend_mode) * blend_factor
    return NodeResult((np.clip(blended, 0, 1),))


def _blended(a: Pixels, b: Pixels, mode: str) -> Pixels:
    match mode:
        case "multiply":
            return a * b
        case "screen":
            return 1 - (1 - a) * (1 - b)
        case "overlay":
            return np.where(a <= 0.5, 2 * a * b, 1 - 2 * (1 - a) * (1 - b))
        case "soft_light":
            # Bicubic resizing leaves values below 0, which have no root; they take the other branch.
            brighter = np.where(a <= 0.25, ((16 * a - 12) * a + 4) * a, np.sqrt(np.maximum(a, 0)))
            return np.where(b <= 0.5, a - (1 - 2 * b) * a * (1 - a), a + (2 * b - 1) * (brighter - a))
        case "difference":
            return a - b
        case "normal":
            return b
        case _:
            raise ValueError(f"Unsupported blend mode: {mode}")


_UPSCALE_METHOD = (list(METHODS),)

NODES = (
    NodeType(
        class_type="EmptyImage",
        display_name="EmptyImage",
        category="image",
        execute=_empty_image,
        required={
            "width": size(),
            "height": size(),
            "batch_size": batch_size(),
            "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
        },
        returns=("IMAGE",),
    ),
    NodeType(
        class_type="ImageScale",
        display_name="Upscale Image",
        category="image/upscaling",
        execute=_scale,
        required={
            "image": IMAGE,
            "upscale_method": _UPSCALE_METHOD,
            "width": size(minimum=0),
            "height": size(minimum=0),
            "crop": (["disabled", "center"],),
        },
        returns=("IMAGE",),
    ),
    NodeType(
        class_type="ImageScaleBy",
        display_name="Upscale Image By",
        category="image/upscaling",
        execute=_scale_by,
        required={
            "image": IMAGE,
            "upscale_method": _UPSCALE_METHOD,
            "scale_by": ("FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}),
        },
        returns=("IMAGE",),
    ),
    NodeType(
        class_type="ImageInvert",
        display_name="Invert Image",
        category="image",
        execute=_invert,
        required={"image": IMAGE},
        returns=("IMAGE",),
    ),
    NodeType(
        class_type="ImageBatch",
        display_name="Batch Images",
        category="image",
        execute=_batch,
        required={"image1": IMAGE, "image2": IMAGE},
        returns=("IMAGE",),
    ),
    NodeType(
        class_type="RepeatImageBatch",
        display_name="RepeatImageBatch",
        category="image/batch",
        execute=_repeat,
        required={"image": IMAGE, "amount": batch_size()},
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_images",
    ),
    NodeType(
        class_type="ImageFromBatch",
        display_name="ImageFromBatch",
        category="image/batch",
        execute=_from_batch,
        required={
            "image": IMAGE,
            "batch_index": ("INT", {"default": 0, "min": 0, "max": 4095}),
            "length": batch_size(),
        },
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_images",
    ),
    NodeType(
        class_type="ImageCrop",
        display_name="Image Crop",
        category="image/transform",
        execute=_crop,
        required={"image": IMAGE, "width": size(), "height": size(), "x": offset(), "y": offset()},
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_images",
    ),
    NodeType(
        class_type="ImageFlip",
        display_name="ImageFlip",
        category="image/transform",
        execute=_flip,
        required={"image": IMAGE, "flip_method": (["x-axis: vertically", "y-axis: horizontally"],)},
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_images",
    ),
    NodeType(
        class_type="ImageRotate",
        display_name="ImageRotate",
        category="image/transform",
        execute=_rotate,
        required={"image": IMAGE, "rotation": (["none", "90 degrees", "180 degrees", "270 degrees"],)},
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_images",
    ),
    NodeType(
        class_type="ImagePadForOutpaint",
        display_name="Pad Image for Outpainting",
        category="image",
        execute=_pad_for_outpaint,
        required={
            "image": IMAGE,
            "left": offset(step=8),
            "top": offset(step=8),
            "right": offset(step=8),
            "bottom": offset(step=8),
            "feathering": size(minimum=0, default=40),
        },
        returns=("IMAGE", "MASK"),
    ),
    NodeType(
        class_type="ImageCompositeMasked",
        display_name="ImageCompositeMasked",
        category="image",
        execute=_composite,
        required={
            "destination": IMAGE,
            "source": IMAGE,
            "x": offset(),
            "y": offset(),
            "resize_source": ("BOOLEAN", {"default": False}),
        },
        optional={"mask": MASK},
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_mask",
    ),
    NodeType(
        class_type="ImageBlend",
        display_name=None,
        category="image/postprocessing",
        execute=_blend,
        required={
            "image1": ("IMAGE", {}),
            "image2": ("IMAGE", {}),
            "blend_factor": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01}),
            "blend_mode": combo("normal", "multiply", "screen", "overlay", "soft_light", "difference"),
        },
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_post_processing",
        entry=V3_ENTRY,
    ),
)
