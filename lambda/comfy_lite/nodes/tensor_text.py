"""Writes an array as PyTorch prints a tensor, for PreviewAny of images and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from comfy_lite.node import Pixels

_LINE_WIDTH = 80
_LONGEST_SHOWN_WHOLE = 1000
_OPENING = "tensor("


@dataclass(frozen=True, slots=True)
class _Form:
    """How a value is written, and the width it is padded to on its left."""

    form: str
    width: int

    def write(self, value: float) -> str:
        return (self.form if math.isfinite(value) else "{}").format(value).rjust(self.width)


def tensor_text(array: Pixels, *, edge_items: int = 3) -> str:
    """The array as text: in full up to 1000 values, else the first and last `edge_items` of each dimension."""
    shortened = array.size > _LONGEST_SHOWN_WHOLE
    form = _form_for(_corners(array, edge_items) if shortened else array)
    return f"{_OPENING}{_block(array, len(_OPENING), form, edge_items if shortened else 0)})"


def _corners(array: Pixels, edge_items: int) -> Pixels:
    for axis, size in enumerate(array.shape):
        if size > 2 * edge_items:
            array = array.take([*range(edge_items), *range(size - edge_items, size)], axis=axis)
    return array


def _form_for(values: Pixels) -> _Form:
    """One form for all values: whole numbers ("1."), four decimals, or scientific. Zeros do not affect it."""
    numbers = values[np.isfinite(values) & (values != 0)].astype(np.float64)
    if not numbers.size:
        return _Form("{:.0f}.", 1)
    smallest, largest = np.abs(numbers).min(), np.abs(numbers).max()
    whole = bool(np.all(numbers == np.ceil(numbers)))
    if largest / smallest > 1000 or largest > 1e8 or (not whole and smallest < 1e-4):
        form = "{:.4e}"
    else:
        form = "{:.0f}." if whole else "{:.4f}"
    return _Form(form, max(len(form.format(number)) for number in numbers))


def _block(array: Pixels, indent: int, form: _Form, edge: int) -> str:
    """A part of the array; without its middle if that is longer than `edge` values on both sides, 0 for never."""
    gap = 0 < 2 * edge < len(array)
    shown = [*array[:edge], *array[-edge:]] if gap else list(array)
    if array.ndim == 1:
        items = [form.write(float(value)) for value in shown]
        items = _with_gap(items, " ...", edge) if gap else items
        per_line = max((_LINE_WIDTH - indent) // (form.width + len(", ")), 1)
        lines = [", ".join(items[start : start + per_line]) for start in range(0, len(items), per_line)]
        return f"[{(',' + _newlines(1, indent)).join(lines)}]"
    blocks = [_block(part, indent + 1, form, edge) for part in shown]
    blocks = _with_gap(blocks, "...", edge) if gap else blocks
    return f"[{(',' + _newlines(array.ndim - 1, indent)).join(blocks)}]"


def _with_gap(items: list[str], sign: str, edge: int) -> list[str]:
    return [*items[:edge], sign, *items[edge:]]


def _newlines(count: int, indent: int) -> str:
    return "\n" * count + " " * (indent + 1)
