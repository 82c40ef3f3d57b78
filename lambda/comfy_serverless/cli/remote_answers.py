"""What an answer of the API, or none, means: one of our errors, in words.

Addresses are shown without what is secret in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

import requests

from comfy_serverless.cli.habits import one_line
from comfy_serverless.cli.remote_variables import KEY_VARIABLE, URL_VARIABLE
from comfy_serverless.errors import (
    ComfyError,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooLarge,
    Unauthorized,
    UpstreamError,
    all_errors,
)
from comfy_serverless.proxies import proxy_for
from comfy_serverless.redaction import redact_url, redacted

_KINDS: Mapping[str, type[ComfyError]] = {kind.code: kind for kind in reversed(list(all_errors())) if kind.code}
_TEXT_SHOWN = 200

Document = dict[str, Any]


def refusal_of(answer: requests.Response, *, base_url: str, key: str) -> ComfyError:
    """The error that an answer means: the contract's envelope, or what API Gateway, a proxy or something else says."""
    document, api = object_in(answer.text) or {}, redact_url(base_url)
    error = document.get("error")
    if isinstance(error, dict) and isinstance(error.get("code"), str):
        return error_of(error)
    status, told = answer.status_code, document.get("message")
    if answer.is_redirect or status in {301, 302, 303, 307, 308}:
        target = redact_url(urljoin(answer.url or base_url, answer.headers.get("location", "")))
        return InvalidRequest(
            f"{api} sends its callers on to {target}, and the key is not sent there: set {URL_VARIABLE} to the "
            "address of the API itself."
        )
    if status == HTTPStatus.UNAUTHORIZED and not key:
        return Unauthorized(f"{api} asks for a key: set {KEY_VARIABLE} (`comfy-serverless keys create` makes one).")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        kind = Unauthorized if status == HTTPStatus.UNAUTHORIZED else Forbidden
        return kind(f"{api} does not accept the key in {KEY_VARIABLE}: it is unknown, revoked or expired.")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge(f"{api} does not take a request of this size: give large inputs as files (--input).")
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return UpstreamError("the proxy asks for a password: HTTPS_PROXY=http://user:password@host:port.")
    text = one_line(str(told) if isinstance(told, str) else answer.text[:_TEXT_SHOWN].strip())
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(f"{api} is no Comfy API ({status}: {text or 'nothing'}): is {URL_VARIABLE} right?")
    return UpstreamError(f"{api} has answered {status}, and not as the Comfy API does: {text or 'nothing'}")


def error_of(error: Mapping[str, Any]) -> ComfyError:
    """A failure as the API tells it (`error` of a refusal or of a job), as one of ours."""
    code, message = str(error.get("code")), str(error.get("message") or error.get("code"))
    details = {name: value for name, value in error.items() if name not in {"code", "message", "details"} and value}
    if isinstance(given := error.get("details"), dict):
        details |= given
    kind = _KINDS.get(code)
    if kind is None:
        return UpstreamError(f"{one_line(code)}: {message}", details=details)
    return kind(message, details=details)


def reason_of(error: BaseException | None) -> str:
    """Why there was no answer, in words. The text of requests itself is not shown: it has addresses with signatures."""
    if isinstance(error, requests.exceptions.InvalidURL):
        return one_line(redacted(error)) if isinstance(error.__cause__, ValueError) else "it is no address"
    reason = _innermost_reason(error)
    if isinstance(error, requests.exceptions.ProxyError) and error.request is not None and error.request.url:
        return f"the proxy {proxy_for(error.request.url)} does not let it through: {reason}"
    return reason


def _innermost_reason(error: BaseException | None) -> str:
    seen: BaseException | None = error
    last: OSError | None = None
    for _ in range(20):  # a ring of causes has no end
        if isinstance(seen, OSError) and not isinstance(seen, requests.RequestException):
            last = seen
        inner = (*getattr(seen, "args", ()), getattr(seen, "reason", None))
        causes = [part for part in inner if isinstance(part, BaseException)]
        seen = causes[-1] if causes else getattr(seen, "__cause__", None)
    if last is not None:
        return one_line(redacted(last.strerror or last))
    return "it takes too long" if isinstance(error, requests.Timeout) else type(error).__name__


def object_in(text: str) -> Document | None:
    """The JSON object that a text is; None if it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
