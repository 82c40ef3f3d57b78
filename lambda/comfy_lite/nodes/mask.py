"""Nodes that make, convert and shape masks."""

from __future__ import annotations

import numpy as np

from comfy_lite.node import NodeContext, NodeResult, NodeType, Pixels
from comfy_lite.nodes.declare import IMAGE, MASK, MAX_SIZE, offset, size

_CHANNELS = ("red", "green", "blue", "alpha")
_MODULE = "comfy_extras.nodes_mask"


def _batch_of(mask: Pixels) -> Pixels:
    return mask.reshape(-1, *mask.shape[-2:])


def _solid(_: NodeContext, *, value: float, width: int, height: int) -> NodeResult:
    return NodeResult((np.full((1, height, width), value, np.float32),))


def _invert(_: NodeContext, *, mask: Pixels) -> NodeResult:
    return NodeResult((1.0 - mask,))


def _to_image(_: NodeContext, *, mask: Pixels) -> NodeResult:
    return NodeResult((np.repeat(_batch_of(mask)[..., np.newaxis], 3, axis=-1),))


def _from_image(_: NodeContext, *, image: Pixels, channel: str) -> NodeResult:
    return NodeResult((image[..., _CHANNELS.index(channel)],))


def _grow(_: NodeContext, *, mask: Pixels, expand: int, tapered_corners: bool) -> NodeResult:
    """Each step takes the maximum (or minimum) over the four neighbours, or all eight without tapered corners."""
    extreme = np.maximum if expand > 0 else np.minimum
    grown = _batch_of(mask)
    for _step in range(abs(expand)):
        before = grown
        rows = _with_neighbours(before, axis=1, extreme=extreme)
        columns = _with_neighbours(before if tapered_corners else rows, axis=2, extreme=extreme)
        grown = extreme(rows, columns)
        if np.array_equal(grown, before):
            break
    return NodeResult((grown,))


def _with_neighbours(masks: Pixels, *, axis: int, extreme: np.ufunc) -> Pixels:
    """The extreme of every value and its two neighbours along an axis; edge values have one neighbour."""
    result = masks.copy()
    leading = (slice(None),) * axis
    before, after = (*leading, slice(None, -1)), (*leading, slice(1, None))
    result[before] = extreme(result[before], masks[after])
    result[after] = extreme(result[after], masks[before])
    return result


def _feather(_: NodeContext, *, mask: Pixels, left: int, top: int, right: int, bottom: int) -> NodeResult:
    """Multiply the mask by ramps from its edges inwards.

    ComfyUI 0.3.64 counts the right and bottom ramps from index -0, which is the first column and row, not the last:
    the last ones get the second value of their ramp, and the opposite edge gets the first.
    """
    return NodeResult((_feathered(mask, left, top, right, bottom, last=0),))


def feather(_: NodeContext, *, mask: Pixels, left: int, top: int, right: int, bottom: int) -> NodeResult:
    """FeatherMask of later releases: every ramp begins at its own edge."""
    return NodeResult((_feathered(mask, left, top, right, bottom, last=-1),))


def _feathered(mask: Pixels, left: int, top: int, right: int, bottom: int, *, last: int) -> Pixels:
    """The mask with its ramps; those of the right and the bottom are counted down from the line `last`."""
    result = _batch_of(mask).copy()
    for lines, before, after in ((result.swapaxes(1, 2), left, right), (result, top, bottom)):
        rising, falling = _ramp(min(before, lines.shape[1])), _ramp(min(after, lines.shape[1]))
        lines[:, : len(rising)] *= rising
        lines[:, last - np.arange(len(falling))] *= falling
    return result


def _ramp(length: int) -> Pixels:
    """`length` even steps up to 1, one for each line of a mask."""
    return (np.arange(1, length + 1) / length).astype(np.float32)[:, np.newaxis]


NODES = (
    NodeType(
        class_type="SolidMask",
        display_name="SolidMask",
        category="mask",
        execute=_solid,
        required={
            "value": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            "width": size(),
            "height": size(),
        },
        returns=("MASK",),
        python_module=_MODULE,
    ),
    NodeType(
        class_type="InvertMask",
        display_name="InvertMask",
        category="mask",
        execute=_invert,
        required={"mask": MASK},
        returns=("MASK",),
        python_module=_MODULE,
    ),
    NodeType(
        class_type="MaskToImage",
        display_name="Convert Mask to Image",
        category="mask",
        execute=_to_image,
        required={"mask": MASK},
        returns=("IMAGE",),
        python_module=_MODULE,
    ),
    NodeType(
        class_type="ImageToMask",
        display_name="Convert Image to Mask",
        category="mask",
        execute=_from_image,
        required={"image": IMAGE, "channel": (list(_CHANNELS),)},
        returns=("MASK",),
        python_module=_MODULE,
    ),
    NodeType(
        class_type="GrowMask",
        display_name="GrowMask",
        category="mask",
        execute=_grow,
        required={
            "mask": MASK,
            "expand": ("INT", {"default": 0, "min": -MAX_SIZE, "max": MAX_SIZE, "step": 1}),
            "tapered_corners": ("BOOLEAN", {"default": True}),
        },
        returns=("MASK",),
        python_module=_MODULE,
    ),
    NodeType(
        class_type="FeatherMask",
        display_name="FeatherMask",
        category="mask",
        execute=_feather,
        required={
            "mask": MASK,
            "left": offset(),
            "top": offset(),
            "right": offset(),
            "bottom": offset(),
        },
        returns=("MASK",),
        python_module=_MODULE,
    ),
)
