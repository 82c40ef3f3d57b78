"""Writes an array as PyTorch prints a tensor, for PreviewAny of images and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from comfy_lite.node import Pixels

_LINE_WIDTH = 80
_EDGE_ITEMS = 3
_LONGEST_SHOWN_WHOLE = 1000
_OPENING = "tensor("


@dataclass(frozen=True, slots=True)
class _Form:
    """How a value is written, and the width it is padded to on its left."""

    form: str
    width: int

    def write(self, value: float) -> str:
        return (self.form if math.isfinite(value) else "{}").format(value).rjust(self.width)


def tensor_text(array: Pixels) -> str:
    """The array as text: in full up to 1000 values, else the first and last three of each dimension."""
    shortened = array.size > _LONGEST_SHOWN_WHOLE
    form = _form_for(_corners(array) if shortened else array)
    return f"{_OPENING}{_block(array, len(_OPENING), form, shortened=shortened)})"


def _corners(array: Pixels) -> Pixels:
    for axis, size in enumerate(array.shape):
        if size > 2 * _EDGE_ITEMS:
            array = array.take([*range(_EDGE_ITEMS), *range(size - _EDGE_ITEMS, size)], axis=axis)
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


def _block(array: Pixels, indent: int, form: _Form, *, shortened: bool) -> str:
    gap = shortened and len(array) > 2 * _EDGE_ITEMS
    shown = [*array[:_EDGE_ITEMS], *array[-_EDGE_ITEMS:]] if gap else list(array)
    if array.ndim == 1:
        items = _with_gap([form.write(float(value)) for value in shown], " ...", gap=gap)
        per_line = max((_LINE_WIDTH - indent) // (form.width + len(", ")), 1)
        lines = [", ".join(items[start : start + per_line]) for start in range(0, len(items), per_line)]
        return f"[{(',' + _newlines(1, indent)).join(lines)}]"
    blocks = [_block(part, indent + 1, form, shortened=shortened) for part in shown]
    return f"[{(',' + _newlines(array.ndim - 1, indent)).join(_with_gap(blocks, '...', gap=gap))}]"


def _with_gap(items: list[str], sign: str, *, gap: bool) -> list[str]:
    return [*items[:_EDGE_ITEMS], sign, *items[_EDGE_ITEMS:]] if gap else items


def _newlines(count: int, indent: int) -> str:
    return "\n" * count + " " * (indent + 1)
