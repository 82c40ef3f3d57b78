"""Spans by OpenTelemetry's own library, sent as OTLP over HTTP. The only module that imports it.

Its standard variables hold: OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_BSP_*,
OTEL_EXPORTER_OTLP_HEADERS, … The caller's choice whether a trace is kept counts, unless a sampler says otherwise.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from comfy_serverless.tracing.context import Trace

logger = logging.getLogger(__name__)

Facts = Mapping[str, str | int | float | bool | None]

_PATH = "/v1/traces"
_PREFIX = "comfy."
_MOST_CHARACTERS = 200
#: Failures to send are told once in so many seconds.
_TOLD_AGAIN_S = 60.0
_W3C = TraceContextTextMapPropagator()


class _Telling(SpanExporter):  # type: ignore[misc]
    """An exporter that fails quietly, and says so now and then. Its library would log each answer, and each address."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._told_at = -_TOLD_AGAIN_S

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001  (whatever it is, jobs go on)
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS and time.monotonic() - self._told_at >= _TOLD_AGAIN_S:
            self._told_at = time.monotonic()
            logger.warning("%d spans could not be sent to the collector of OTEL_EXPORTER_OTLP_ENDPOINT", len(spans))
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


@dataclass(frozen=True, slots=True)
class _Live:
    """A span that goes on: see `spans.Span`."""

    span: trace.Span

    def set(self, **facts: str | int | float | bool | None) -> None:
        self.span.set_attributes(_attributes(facts))

    def fail(self, code: str) -> None:
        self.span.set_status(trace.StatusCode.ERROR)
        self.span.set_attribute("error.type", code[:_MOST_CHARACTERS])


class Sdk:
    """The tracer of this process."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("comfy_serverless")

    @classmethod
    def of(cls, endpoint: str, *, service: str, facts: Mapping[str, str]) -> Self:
        """One that sends to a collector."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        address = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or f"{endpoint.rstrip('/')}{_PATH}"
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        provider = TracerProvider(
            resource=Resource.create({**named, **facts}),
            span_limits=SpanLimits(max_attribute_length=_MOST_CHARACTERS),
            shutdown_on_exit=False,  # that waits for half a minute
        )
        provider.add_span_processor(BatchSpanProcessor(_Telling(OTLPSpanExporter(endpoint=address))))
        return cls(provider)

    def end(self) -> None:
        """Send no more."""
        threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True).start()

    def flush(self) -> None:
        """Send what has ended, however long that takes."""
        self._provider.force_flush()

    @contextmanager
    def span(
        self, name: str, *, kind: str, parent: Trace | None, links: Sequence[Trace | None], is_root: bool, facts: Facts
    ) -> Iterator[_Live]:
        """See `spans.span`."""
        around = _context(parent)
        if around is None and is_root:
            around = contexts.Context()
        with self._tracer.start_as_current_span(
            name,
            context=around,
            kind=trace.SpanKind[kind],
            attributes=_attributes(facts),
            links=[trace.Link(_span_context(link)) for link in links if link is not None],
            record_exception=False,  # with its message
            set_status_on_exception=False,
        ) as begun:
            live = _Live(begun)
            try:
                yield live
            except BaseException as error:
                live.fail(str(getattr(error, "code", None) or type(error).__name__))
                raise

    def add(self, name: str, begun_s: float, ended_s: float, *, parent: Trace | None, facts: Facts) -> None:
        """See `spans.add`."""
        begun = self._tracer.start_span(
            name, context=_context(parent), attributes=_attributes(facts), start_time=_nanoseconds(begun_s)
        )
        begun.end(end_time=_nanoseconds(ended_s))

    def current(self) -> Trace | None:
        """See `spans.current`."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return Trace.of(carrier)


def _context(parent: Trace | None) -> contexts.Context | None:
    return None if parent is None else _W3C.extract(parent.fields(), context=contexts.Context())


def _span_context(of: Trace) -> trace.SpanContext:
    return trace.get_current_span(_context(of)).get_span_context()


def _attributes(facts: Facts) -> dict[str, str | int | float | bool]:
    return {f"{_PREFIX}{name}": value for name, value in facts.items() if value is not None}


def _nanoseconds(moment_s: float) -> int:
    return round(moment_s * 1_000_000_000)
