"""`make traces`: the spans of one line of a batch as a picture, from the whole service on this machine.

    python -m demo.traces [--svg FILE]

A manifest with one line is dropped; ingest reads it, the queue brings it to a worker, and a collector on this machine
takes what they tell of it. The time between the bars of two rows is where nothing of ours ran.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape
from zlib import crc32

from local.aws.collector import Collected, Collector
from local.aws.template import name_of
from local.dev import DevStack

_WITHIN_S = 90.0
#: The graph needs no model, and its nodes take a moment each.
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 768, "height": 768, "batch_size": 1, "color": 0x3A7D5C}},
    "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 3, "sigma": 2.0}},
    "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "traced"}},
}
_ROW, _TOP, _LEFT, _WIDTH, _BARS = 26, 64, 300, 1100, 700
_COLOURS = ("#3a7d5c", "#2f6690", "#b5651d", "#7a4e9c", "#8a8f98")
_LAST = "store result"


def ordered(spans: Sequence[Collected], *, parent: str = "", depth: int = 0) -> list[tuple[int, Collected]]:
    """Spans with how deep they are, each behind the one that it belongs to. Those without a known parent come first."""
    known = {span.span_id for span in spans}
    own = [span for span in spans if (span.parent_id if span.parent_id in known else "") == parent]
    rows: list[tuple[int, Collected]] = []
    for span in sorted(own, key=lambda one: (one.begun_s, -one.ended_s)):
        rows += [(depth, span), *ordered(spans, parent=span.span_id, depth=depth + 1)]
    return rows


def drawn(spans: Sequence[Collected], *, title: str) -> str:
    """The spans of one trace as an SVG: a row each, its bar where it ran."""
    rows = ordered(spans)
    begun = min(span.begun_s for span in spans)
    length_s = max(span.ended_s for span in spans) - begun or 1.0
    services = list(dict.fromkeys(span.service for _, span in rows))
    height = _TOP + _ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" font-size="13"',
        ' font-family="system-ui, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#f7f5f0"/>',
        f'<text x="20" y="28" font-size="17" fill="#222831">{escape(title)}</text>',
    ]
    at = 20
    for number, service in enumerate(services):
        parts.append(f'<rect x="{at}" y="40" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{at + 15}" y="50" fill="#5b616b">{escape(service)}</text>')
        at += 35 + 8 * len(service)
    for number, (depth, span) in enumerate(rows):
        top = _TOP + _ROW * number
        left = _LEFT + _BARS * (span.begun_s - begun) / length_s
        width = max(2.0, _BARS * (span.ended_s - span.begun_s) / length_s)
        colour = "#c0392b" if span.is_failed else _COLOURS[services.index(span.service) % len(_COLOURS)]
        ms = (span.ended_s - span.begun_s) * 1000
        parts.append(f'<text x="{20 + 16 * depth}" y="{top + 16}" fill="#222831">{escape(span.name)}</text>')
        parts.append(f'<rect x="{left:.1f}" y="{top + 4}" width="{width:.1f}" height="15" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - 20}" y="{top + 16}" text-anchor="end" fill="#5b616b">{ms:.1f} ms</text>')
    return "\n".join([*parts, "</svg>", ""])


def trace_of_a_line(stack: DevStack, collector: Collector, *, name: str) -> list[Collected]:
    """Drop a manifest of this name, with one line; returns the spans of its job once they have come."""
    before = {span.trace_id for span in collector.spans}
    line = {"workflow": GRAPH, "set": {"1.color": crc32(name.encode()) & 0xFFFFFF}}  # the same line is the same job
    stack.aws.client().put_object(
        Bucket=name_of("InputBucket"), Key=f"batches/{name}.jsonl", Body=json.dumps(line).encode()
    )
    end = time.monotonic() + _WITHIN_S
    while time.monotonic() < end:
        spans = collector.spans
        roots = [span for span in spans if span.name == "submit line" and span.trace_id not in before]
        found = [span for span in spans if roots and span.trace_id == roots[0].trace_id]
        if any(span.name == "run job" for span in found) and any(span.name == _LAST for span in found):
            return found
        time.sleep(0.1)
    raise TimeoutError(f"no trace of the line came within {_WITHIN_S:g} s: {[span.name for span in collector.spans]}")


def main() -> None:
    """Draw the spans of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=Path, default=Path("docs/images/trace.svg"), help="where the picture goes")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Collector() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        with DevStack(log_folder=Path(folder), environment=environment) as stack:
            # With the first, ComfyUI starts; behind it, the worker writes down what nodes it has, once an hour.
            *_, spans = [trace_of_a_line(stack, collector, name=name) for name in ("first", "second", "third")]
    wanted.svg.write_text(drawn(spans, title="One line of a batch, from the manifest to its stored result"))
    for depth, span in ordered(spans):
        sys.stdout.write(f"{'  ' * depth}{span.name:{40 - 2 * depth}} {(span.ended_s - span.begun_s) * 1000:8.1f} ms\n")


if __name__ == "__main__":
    main()
