"""Outputs as a notebook shows them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from comfy_serverless.connector.outputs import Output
from comfy_serverless.files import OutputKind

#: The longest side of each picture in pixels, and how many there are.
_LONGEST_SIDE, _MOST_PICTURES = 320, 24
_LONGEST_TEXT = 2_000


def as_html(outputs: Sequence[Output], warnings: Sequence[str]) -> str:
    """Outputs side by side, with their names below; then the warnings."""
    figures = [_figure(output) for output in outputs[:_MOST_PICTURES]]
    if len(outputs) > _MOST_PICTURES:
        figures.append(f"<p>and {len(outputs) - _MOST_PICTURES} more</p>")
    warned = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    style = "display:flex;flex-wrap:wrap;gap:12px;align-items:flex-end"
    return f'<div style="{style}">{"".join(figures)}</div>' + (f"<ul>{warned}</ul>" if warned else "")


def _figure(output: Output) -> str:
    named = escape(f"{output.name} · {output.node_id} {output.title or output.class_type}")
    png = output.as_png(longest_side=_LONGEST_SIDE)
    if png is not None:
        shown = f'<img alt="{named}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    else:
        shown = f"<pre>{escape(_text_of(output))}</pre>"
    return f'<figure style="margin:0">{shown}<figcaption>{named}</figcaption></figure>'


def _text_of(output: Output) -> str:
    """The beginning of a text; of anything else its type."""
    if output.kind is not OutputKind.TEXT or output.content is None:
        return output.content_type
    text = output.content.decode("utf-8", errors="replace")
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
