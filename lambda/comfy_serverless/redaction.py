"""What a message, a log and an answer may show of an address: never what lets somebody in."""

from __future__ import annotations

from urllib.parse import urlsplit

UNREADABLE = "an address that cannot be read"
_MAX_SHOWN = 200


def redact_url(url: str) -> str:
    """A web address without user name, password and query.

    A password that has `/`, `?` or `#` in it, not encoded, ends the host for every parser: that address is not shown.
    """
    try:
        parts = urlsplit(url)
        if parts.port is not None and "@" in f"{parts.path}{parts.query}{parts.fragment}":
            return UNREADABLE
    except ValueError:
        return UNREADABLE
    host = parts.netloc.rpartition("@")[2]
    query = "?…" if parts.query else ""
    shown = f"{parts.scheme}://{host}{parts.path}"[:_MAX_SHOWN] + query
    return shown if shown.isprintable() else ascii(shown)[1:-1]
