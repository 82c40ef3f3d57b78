"""Answers of the API: JSON that no cache may keep, and one form for all refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response

from comfy_serverless.errors import ComfyError, Refusal
from comfy_serverless.jobs.document import error_envelope
from comfy_serverless.jobs.outward import outward, outward_details
from comfy_serverless.observability import count_refusal, log

JSON = "application/json"
#: Links expire, and jobs go on.
NOT_KEPT = {"cache-control": "no-store"}


#: A page may say more for itself; no answer of ours needs to be run, shown in a frame, or guessed at.
_SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
#: Two years; for this host name only, because others of its domain are not ours.
_STAY_WITH_TLS = {"strict-transport-security": "max-age=63072000"}


def security_headers(request_headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of every answer. API Gateway says whether the request came by https."""
    is_https = request_headers.get("x-forwarded-proto") == "https"
    return {**_SECURITY, **(_STAY_WITH_TLS if is_https else {})}


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
    """The contract's envelope for a failure. The log has what it tells only the operator, whom a metric calls."""
    headers = {}
    if isinstance(error, Refusal) and error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return answer(error.http_status, {"error": shown(error)}, headers)


def shown(error: ComfyError) -> dict[str, Any]:
    """Code, message and details of a failure as its caller reads them. A metric counts what is not his doing."""
    count_refusal(error)
    whole: dict[str, Any] = error_envelope(error)["error"]
    told = {**whole, "message": outward(whole["message"]), "details": outward_details(whole["details"] or {}) or None}
    if told != whole:
        log.warning("a refusal was shortened for its reader", extra={"refusal": whole})
    return told
