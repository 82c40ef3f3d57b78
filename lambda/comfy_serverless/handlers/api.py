"""The Lambda function behind the HTTP API."""

from __future__ import annotations

import gc
from typing import Any

from comfy_serverless import tracing
from comfy_serverless.api.app import create_app
from comfy_serverless.handlers import snapshot, wiring, wiring_api

#: The objects that are made before they are searched for cycles. JSON has none, and the default, 700, makes a large
#: workflow take twice the time.
_SEARCHED_AFTER = 50_000

_app = create_app(wiring_api.services, cors_origins=wiring_api.services().settings.cors_origins)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Answer one request."""
    try:
        return _app.resolve(event, context)
    finally:
        tracing.flush(wiring.FLUSH_ANSWER_S)


gc.freeze()  # what was imported stays
gc.set_threshold(_SEARCHED_AFTER)
snapshot.hooks()
