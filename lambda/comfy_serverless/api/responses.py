"""Answers of the API: JSON that no cache may keep, and one form for all refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response

from comfy_serverless.errors import ComfyError, Refusal
from comfy_serverless.jobs.document import error_envelope

JSON = "application/json"
#: Links expire, and jobs go on.
NOT_KEPT = {"cache-control": "no-store"}


def answer(status: int, document: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None) -> Response[str]:
    """A JSON answer, or one without a body."""
    body = "" if document is None else json.dumps(document)
    return Response(
        status_code=status,
        content_type=JSON if document is not None else None,
        body=body,
        headers={**NOT_KEPT, **(headers or {})},
    )


def refuse(error: ComfyError) -> Response[str]:
    """The contract's envelope for a failure."""
    headers = {}
    if isinstance(error, Refusal) and error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return answer(error.http_status, error_envelope(error), headers)
