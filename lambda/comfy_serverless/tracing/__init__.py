"""Traces of jobs, as spans of OpenTelemetry: from the request through the queue to each node, upload and webhook.

    caller ──traceparent──► request ──► message of the queue ──► job ─┬─► models, inputs, execution, its nodes
                                                                      ├─► uploads, thumbnails, result
                                                                      └─► webhook ──traceparent──► receiver

Nothing of OpenTelemetry is loaded, and a span costs a call, unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector. The
caller's own trace is handed on to the webhook all the same: that is what W3C's Trace Context asks of who takes no part.

What a span tells: ids, kinds, counts, times, and the code of an error. Never a message, a link, a name of a file or
anything else that a caller or a workflow has written, but the classes and ids of nodes.
"""

from __future__ import annotations

from comfy_serverless.tracing.context import Trace as Trace
from comfy_serverless.tracing.spans import Kind as Kind
from comfy_serverless.tracing.spans import Span as Span
from comfy_serverless.tracing.spans import add as add
from comfy_serverless.tracing.spans import begin as begin
from comfy_serverless.tracing.spans import current as current
from comfy_serverless.tracing.spans import flush as flush
from comfy_serverless.tracing.spans import is_on as is_on
from comfy_serverless.tracing.spans import span as span
