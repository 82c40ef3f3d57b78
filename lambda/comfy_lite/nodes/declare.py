"""Shorthand for input declarations that several nodes share."""

from __future__ import annotations

from typing import Any

from comfy_lite.node import InputSpec

#: The largest width and height that ComfyUI's nodes accept.
MAX_SIZE = 16384

IMAGE: InputSpec = ("IMAGE",)
MASK: InputSpec = ("MASK",)

#: The hidden inputs of every node that writes files with metadata.
METADATA = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}

#: The additional fields in `/object_info` of nodes in ComfyUI's newer (V3) form with one output.
V3_ENTRY: dict[str, Any] = {
    "output_tooltips": [None],
    "deprecated": False,
    "experimental": False,
    "api_node": False,
}


def size(*, minimum: int = 1, default: int = 512, step: int = 1) -> InputSpec:
    """A width, height or coordinate in pixels."""
    return ("INT", {"default": default, "min": minimum, "max": MAX_SIZE, "step": step})


def offset(*, step: int = 1) -> InputSpec:
    """A distance in pixels that may be 0."""
    return size(minimum=0, default=0, step=step)


def batch_size() -> InputSpec:
    return ("INT", {"default": 1, "min": 1, "max": 4096})


def combo(*choices: str) -> InputSpec:
    """A choice in the form of ComfyUI's newer (V3) nodes."""
    return ("COMBO", {"multiselect": False, "options": list(choices)})
