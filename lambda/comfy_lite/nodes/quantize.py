"""ImageQuantize: fewer colours, with Pillow's median cut and its dithering, or with an ordered (Bayer) pattern."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from comfy_lite.node import NodeContext, NodeResult, NodeType, Pixels
from comfy_lite.nodes.declare import V3_ENTRY, combo
from comfy_lite.nodes.pixels import from_pillow

_DITHERS = ("none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16")


def _quantize(_: NodeContext, *, image: Pixels, colors: int, dither: str) -> NodeResult:
    if dither not in _DITHERS:
        raise ValueError(f"Unsupported dither: {dither}")
    return NodeResult((np.stack([_quantized(one, colors, dither) for one in image]),))


def _quantized(image: Pixels, colors: int, dither: str) -> Pixels:
    # ComfyUI does not clip values outside 0..1 (bicubic resizing makes them): they wrap around.
    picture = Image.fromarray((image * 255).astype(np.int32).astype(np.uint8))
    palette = picture.quantize(colors=colors)
    if dither.startswith("bayer-"):
        used_colors = len(palette.getpalette() or ()) // 3
        picture = _with_pattern(picture, int(dither.removeprefix("bayer-")), spread=512 / used_colors)
    method = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
    return from_pillow(picture.quantize(palette=palette, dither=method).convert("RGB"))


def _with_pattern(picture: Image.Image, order: int, *, spread: float) -> Image.Image:
    """The picture with the Bayer matrix of that order, from -spread/2 to spread/2, added to all channels."""
    levels = np.asarray(picture).astype(np.float32)
    rows, columns = np.indices(levels.shape[:2]) % order
    pattern = (_bayer_matrix(order).astype(np.float32) * spread + 0.5)[rows, columns, np.newaxis]
    return Image.fromarray(np.clip(levels + pattern, 0, 255).astype(np.uint8))


def _bayer_matrix(order: int) -> npt.NDArray[np.float64]:
    """The threshold matrix of order 2, 4, 8 or 16: order² values, evenly spread between -0.5 and 0.5."""
    ranks = np.zeros((1, 1))
    while len(ranks) < order:
        ranks = np.block([[4 * ranks, 4 * ranks + 2], [4 * ranks + 3, 4 * ranks + 1]])
    return (ranks + 0.5) / order**2 - 0.5


NODES = (
    NodeType(
        class_type="ImageQuantize",
        display_name=None,
        category="image/postprocessing",
        execute=_quantize,
        required={
            "image": ("IMAGE", {}),
            "colors": ("INT", {"default": 256, "min": 1, "max": 256, "step": 1}),
            "dither": combo(*_DITHERS),
        },
        returns=("IMAGE",),
        python_module="comfy_extras.nodes_post_processing",
        entry=V3_ENTRY,
    ),
)
