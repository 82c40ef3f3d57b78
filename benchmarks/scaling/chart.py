"""Draws how an endpoint has scaled: three panels, as SVG, which follows the reader's light or dark mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.scaling.simulation import Sample

_WIDTH, _LEFT, _RIGHT, _TOP, _PANEL, _GAP = 900, 70, 20, 84, 150, 54
#: Readable on white and on GitHub's dark paper; the second curve is dashed, for those who see no colours.
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-size: 18px; font-weight: 600 }
.faint { fill: #57606a } .grid { stroke: #8c959f; stroke-opacity: .35 } .paper { fill: #ffffff }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round } .a { stroke: #0969da }
.b { stroke: #bc4c00; stroke-dasharray: 6 4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .faint { fill: #9da7b3 } .paper { fill: #0d1117 } .a { stroke: #58a6ff } .b { stroke: #f0883e } }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """One policy's series."""

    name: str
    series: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    value: Callable[[Sample], float]
    is_stepped: bool = False


_PANELS = (
    _Panel("backlog: jobs that wait or execute", lambda sample: sample.backlog),
    _Panel("instances in service", lambda sample: sample.in_service, is_stepped=True),
    _Panel("age of the oldest waiting job, in minutes", lambda sample: sample.oldest_s / 60),
)


def chart(curves: Sequence[Curve], *, title: str) -> str:
    """The picture of one or two curves."""
    end_s = max((sample.at_s for curve in curves for sample in curve.series), default=0.0) or 1.0
    height = _TOP + len(_PANELS) * (_PANEL + _GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="{_LEFT}" y="30">{escape(title)}</text>',
    ]
    for number, (curve, look) in enumerate(zip(curves, "ab", strict=False)):
        x = _LEFT + 320 * number
        parts.append(f'<line class="curve {look}" x1="{x}" y1="50" x2="{x + 34}" y2="50"/>')
        parts.append(f'<text x="{x + 42}" y="54">{escape(curve.name)}</text>')
    for number, panel in enumerate(_PANELS):
        parts += _panel(panel, curves, top=_TOP + 20 + number * (_PANEL + _GAP), end_s=end_s)
    parts.append(f'<text class="faint" x="{_WIDTH - _RIGHT}" y="{height - 8}" text-anchor="end">hours:minutes</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: _Panel, curves: Sequence[Curve], *, top: int, end_s: float) -> list[str]:
    step = round_step(max((panel.value(sample) for curve in curves for sample in curve.series), default=0.0) / 4)
    most = max((panel.value(sample) for curve in curves for sample in curve.series), default=0.0)
    lines = max(1, -int(-most // step))
    right, bottom = _WIDTH - _RIGHT, top + _PANEL
    parts = [f'<text class="faint" x="{_LEFT}" y="{top - 8}">{escape(panel.title)}</text>']
    for line in range(lines + 1):
        y = bottom - _PANEL * line / lines
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{line * step:,g}</text>')
    step_s = _time_step(end_s)
    for mark in range(int(end_s // step_s) + 1):
        x = _LEFT + (right - _LEFT) * mark * step_s / end_s
        minutes = round(mark * step_s / 60)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(
            f'<text class="faint" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">'
            f"{minutes // 60}:{minutes % 60:02}</text>"
        )
    for curve, look in zip(curves, "ab", strict=False):
        places = [
            (_LEFT + (right - _LEFT) * sample.at_s / end_s, bottom - _PANEL * panel.value(sample) / (lines * step))
            for sample in curve.series
        ]
        parts.append(f'<path class="curve {look}" d="{path(places, is_stepped=panel.is_stepped)}"/>')
    return parts


def path(places: Sequence[tuple[float, float]], *, is_stepped: bool) -> str:
    """A line through points; points that change nothing are left out."""
    kept = [
        place
        for number, place in enumerate(places)
        if not 0 < number < len(places) - 1 or not places[number - 1][1] == place[1] == places[number + 1][1]
    ]
    parts = [f"M{x:.1f} {y:.1f}" if number == 0 else _to(x, y, is_stepped) for number, (x, y) in enumerate(kept)]
    return "".join(parts)


def _to(x: float, y: float, is_stepped: bool) -> str:
    return f"H{x:.1f}V{y:.1f}" if is_stepped else f"L{x:.1f} {y:.1f}"


def round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not less: what a scale is marked by."""
    step, factors = 1.0, (2.0, 2.5, 2.0)
    number = 0
    while step < least:
        step *= factors[number % 3]
        number += 1
    return step


def _time_step(end_s: float) -> float:
    steps = (300, 600, 1200, 1800, 3600, 7200, 14_400, 43_200, 86_400)
    return next((step for step in steps if end_s / step <= 12), end_s / 10)
