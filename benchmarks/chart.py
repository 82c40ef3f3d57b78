"""Draws the figures as a chart: how much of its limit each one uses up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _ROW, _LEFT, _BAR = 1000, 46, 330, 480
_INK, _GREY, _KEPT, _MISSED, _PAPER = "#222831", "#8a8f98", "#3a7d5c", "#c0392b", "#f7f5f0"


def draw(figures: Sequence[tuple[str, float, float]], *, title: str, path: Path) -> None:
    """Draw one bar per figure, as a share of its limit; the line is the limit."""
    height = 110 + _ROW * len(figures)
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((30, 22), title, _INK, font=ImageFont.load_default(24))
    pen.text((30, 56), "share of the limit that is used; the line is the limit", _GREY, font=ImageFont.load_default(15))
    for index, (name, value, limit) in enumerate(figures):
        top = 92 + _ROW * index
        share = max(0.0, value / limit)
        length = int(_BAR * min(share, 1.3) / 1.3)
        pen.text((30, top + 7), name, _INK, font=ImageFont.load_default(17))
        pen.rectangle((_LEFT, top, _LEFT + max(length, 2), top + 28), _KEPT if share <= 1 else _MISSED)
        pen.text((_LEFT + _BAR + 20, top + 7), f"{value:.2f} of {limit:g}", _INK, font=ImageFont.load_default(17))
    line = _LEFT + int(_BAR / 1.3)
    pen.line((line, 86, line, height - 18), _INK, width=2)
    image.save(path, optimize=True)
