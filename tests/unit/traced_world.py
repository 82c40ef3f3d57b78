"""Spans that stay in this process, to be looked at as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from comfy_serverless.tracing import spans as module
from comfy_serverless.tracing.sdk import Sdk


class Kept:
    """The spans that have ended."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def all(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all if span.name == name]
        return span

    def children(self, span: ReadableSpan | None) -> list[ReadableSpan]:
        wanted = None if span is None else span.context.span_id
        return [one for one in self.all if (one.parent.span_id if one.parent else None) == wanted]

    def tree(self, span: ReadableSpan | None = None) -> dict[str, object]:
        """Names of spans with those of their children; equal ones once."""
        return {one.name: self.tree(one) for one in self.children(span)}

    def texts(self) -> str:
        """Everything that they tell."""
        return "\n".join(span.to_json() for span in self.all)


@contextmanager
def kept() -> Iterator[Kept]:
    """Traces are on for the time of a `with`."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with patch.object(module, "_sdk", Sdk(provider)):
        yield Kept(exporter)
