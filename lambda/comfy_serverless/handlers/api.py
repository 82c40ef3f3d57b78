"""The Lambda function behind the HTTP API."""

from __future__ import annotations

from typing import Any

from comfy_serverless.api.app import create_app
from comfy_serverless.api.services import services

_app = create_app(cors_origins=services().settings.cors_origins)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Answer one request."""
    return _app.resolve(event, context)
