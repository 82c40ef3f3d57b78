"""Links to live events that carry their own, short-lived right, so that no API key has to go to another address.

    EVENTS_URL/api/v2/jobs/ID/events?token=DAY.EXPIRES.OWNER.MAC

The right is to watch this job, or this owner's list, and nothing else. Whoever has the link has the right until it
expires, so it is shown in no log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from urllib.parse import urlencode

from comfy_serverless.aws.dynamodb import moment_of, now_s
from comfy_serverless.errors import Unauthorized
from comfy_serverless.table.event_keys import EventKeys, day_of, yesterday

#: The parameter of the address that holds the right.
TOKEN = "token"  # noqa: S105  (its name)
LIST_PATH = "/api/v2/events"
_MAX_TOKEN_CHARACTERS = 500
_REFUSED = (
    "the link to these events has expired, or is not one of ours for this address: ask for the job (or for /api/v2/me) "
    "again, which has a new one, or send `Authorization: Bearer <key>`."
)


def events_path(job_id: str) -> str:
    """The path of a job's events."""
    return f"/api/v2/jobs/{job_id}/events"


@dataclass(frozen=True, slots=True)
class EventLinks:
    """Makes links that work for `expiry_s` seconds, below `base` (`EVENTS_URL`)."""

    keys: EventKeys
    base: str
    expiry_s: int

    def of_job(self, job_id: str, *, owner: str) -> str:
        """A link to the events of a job of this owner."""
        return self._of(events_path(job_id), owner)

    def of_list(self, owner: str) -> str:
        """A link to the events of all of this owner's jobs."""
        return self._of(LIST_PATH, owner)

    def _of(self, path: str, owner: str) -> str:
        day, key = self.keys.today()
        expires = now_s() + self.expiry_s
        token = ".".join([day, str(expires), _encode(owner.encode()), _encode(_mac(key, path, owner, expires))])
        return f"{self.base.rstrip('/')}{path}?{urlencode({TOKEN: token})}"


def owner_of(token: str, path: str, keys: EventKeys) -> str:
    """The owner in whose name this path may be watched. Raises Unauthorized for any token that is not good here."""
    try:
        day, expires_text, owner_text, mac_text = token[:_MAX_TOKEN_CHARACTERS].split(".")
        owner, mac, expires = _decode(owner_text).decode(), _decode(mac_text), int(expires_text)
    except (ValueError, binascii.Error):
        raise Unauthorized(_REFUSED) from None
    # Only days whose links may still work are asked for: a made-up one costs no read of the table.
    key = keys.of(day) if day in (day_of(moment_of(now_s())), yesterday()) else None
    is_ours = hmac.compare_digest(_mac(key or b"", path, owner, expires), mac)
    if key is None or not is_ours or expires < now_s():
        raise Unauthorized(_REFUSED)
    return owner


def _mac(key: bytes, path: str, owner: str, expires: int) -> bytes:
    return hmac.new(key, json.dumps([path, owner, expires]).encode(), hashlib.sha256).digest()


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
