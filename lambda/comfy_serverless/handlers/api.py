"""The Lambda function behind the HTTP API."""

from __future__ import annotations

from typing import Any

from comfy_serverless.api.app import create_app
from comfy_serverless.handlers import snapshot, wiring

_app = create_app(wiring.services, cors_origins=wiring.services().settings.cors_origins)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Answer one request."""
    return _app.resolve(event, context)


snapshot.hooks()
