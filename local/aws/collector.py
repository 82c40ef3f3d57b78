"""A collector of OpenTelemetry on this machine: it takes spans as OTLP over HTTP, and keeps them to be looked at.

On AWS that is ADOT's collector beside a function, which hands them on to X-Ray (docs/traces.md).
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from local.aws.http_server import LocalServer
from local.aws.processes import LOOPBACK

_ERROR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A span as it was sent.

    Attributes:
        trace_id, span_id, parent_id: in hex; the last "" for the first span of a trace.
        begun_s, ended_s: in seconds since 1970.
        service: the process's part.
        links: the ids of spans that it comes from.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begun_s: float
    ended_s: float
    kind: str
    service: str
    is_failed: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    links: tuple[str, ...] = ()


class Collector:
    """A server for the time of a `with`.

    Args:
        host: the address to listen on; "0.0.0.0" for containers, too.
    """

    def __init__(self, *, host: str = LOOPBACK) -> None:
        self._spans: list[Collected] = []
        self._lock = threading.Lock()
        self.requests: list[bytes] = []
        handler = type("_Handler", (_Handler,), {"collector": self})
        self._server = LocalServer((host, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector", daemon=True)

    @property
    def endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """Its port."""
        return int(self._server.server_address[1])

    @property
    def spans(self) -> list[Collected]:
        """What has come so far, by the time of its beginning."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.begun_s)

    def take(self, content: bytes) -> None:
        """Take one request's spans."""
        spans = spans_in(content)
        with self._lock:
            self.requests.append(content)
            self._spans += spans

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def spans_in(content: bytes) -> list[Collected]:
    """The spans of a request to `/v1/traces`."""
    request = ExportTraceServiceRequest.FromString(content)
    found: list[Collected] = []
    for resource in request.resource_spans:
        facts = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            found += [
                Collected(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    begun_s=span.start_time_unix_nano / 1e9,
                    ended_s=span.end_time_unix_nano / 1e9,
                    kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    service=str(facts.get("service.name", "")),
                    is_failed=span.status.code == _ERROR,
                    attributes=_values(span.attributes),
                    links=tuple(link.span_id.hex() for link in span.links),
                )
                for span in scope.spans
            ]
    return found


def _values(attributes: Any) -> dict[str, Any]:  # noqa: ANN401  (protobuf's)
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


class _Handler(BaseHTTPRequestHandler):
    collector: Collector

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        self.collector.take(content)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""
