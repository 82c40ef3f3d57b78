"""The body of a webhook and its signature, by the specification of Standard Webhooks. No IO."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.fetch.addresses import refusal

SECRET_PREFIX = "whsec_"  # noqa: S105  (it marks a secret, and is none)
#: The specification's bounds for a secret, in bytes.
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
MAX_URL_CHARACTERS = 8192


def check_webhook(url: str, secret: str | None, *, allow_private: bool = False, allow_own_host: bool = False) -> None:
    """Check a webhook before its job is taken; the IP addresses of its host are checked when it is called.

    Raises:
        InvalidRequest: it is no https address, or the secret does not have the form of the specification.
    """
    try:
        parts = urlsplit(url)
        is_web = bool(parts.hostname) and parts.username is None and (parts.port or 443) > 0
    except ValueError:
        is_web = False
    schemes = {"https", "http"} if allow_private else {"https"}
    is_clean = url.isprintable() and not any(character in ' \\<>"' for character in url)
    if not is_web or urlsplit(url).scheme not in schemes or not is_clean or len(url) > MAX_URL_CHARACTERS:
        raise InvalidRequest("webhook_url must be a public https:// address, without user name and password.")
    with suppress(ValueError):  # a name
        address = str(ip_address(urlsplit(url).hostname or ""))
        if reason := refusal(address, allow_private=allow_private, allow_own_host=allow_own_host):
            raise InvalidRequest(f"webhook_url must be a public https:// address; this is {reason}.")
    if secret is not None:
        key_of(secret)


def key_of(secret: str) -> bytes:
    """The key in a secret. Raises InvalidRequest if the secret is not `whsec_` and base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise InvalidRequest(
            f"webhook_secret must be {SECRET_PREFIX!r} followed by base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} "
            "random bytes, as Standard Webhooks has it."
        )
    return key


def message_of(document: Mapping[str, Any], *, timestamp: str) -> bytes:
    """The body: what has happened, when, and the job as the API returns it."""
    body = {"type": f"job.{document['status']}", "timestamp": timestamp, "data": document}
    return json.dumps(body, separators=(",", ":")).encode()


def headers_of(body: bytes, *, message_id: str, timestamp_s: int, secret: str | None) -> dict[str, str]:
    """The headers of one call, which is signed if there is a secret."""
    headers = {"Content-Type": "application/json", "webhook-id": message_id, "webhook-timestamp": str(timestamp_s)}
    if secret:
        signed = f"{message_id}.{timestamp_s}.".encode() + body
        signature = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(signature).decode('ascii')}"
    return headers
