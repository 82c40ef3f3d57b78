"""What a message, a log and an answer may show of an address: never what lets somebody in; and where keys are."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

UNREADABLE = "an address that cannot be read"
_MAX_SHOWN = 200
#: Parameters of addresses that let somebody in.
_TOKENS = frozenset(
    {
        "token", "access_token", "private_token", "api_key", "apikey", "key", "auth", "password", "sig", "signature",
        "x-amz-signature", "x-goog-signature",
    }
)  # fmt: skip
#: `user:password@` of an address inside a text, up to its last `@`, whatever the password has in it. Behind a port it
#: is taken for one, too: `http://user:80/secret@host` cannot be told from it. Without `scheme://` it is one as well,
#: except in an ARN, whose last part may be somebody's e-mail address.
_USER = re.compile(
    r"""://(?:[^\s/?#@]*:\S*|[^\s/?#]*)@|(?<![^\s"'`(=,])(?!arn:)[^\s:/@"'`(=,]+:(?!//)\S+@""", re.IGNORECASE
)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"`]+")
#: Names under which keys come, in JSON, good or broken. In a text in a text, `\\` stands before their last quote.
_KEYS = re.compile(
    r"(?:(?:api|access|private|auth|secret|openai)[-_ ]?key|x-api-|secret|passw(?:or)?d|credential|authori[sz]ation"
    r"|bearer|cookie|comfy_org)[^\"\n:]{0,60}\"\s*:|(?:token|pwd|(?<![a-z])key)\\{0,9}\"\s*:",
    re.IGNORECASE,
)


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


def has_token(query: str) -> bool:
    """Whether the query of an address lets somebody in."""
    return bool(_TOKENS & {name.lower() for name, _ in parse_qsl(query)})


def redact_addresses(text: str) -> str:
    """A text with every address in it as `redact_url` shows it, whatever its scheme."""
    return _ADDRESS.sub(lambda found: redact_url(found[0]), text)


def redacted(text: object) -> str:
    """The text of a failure without the `user:password@` of any address in it.

    Libraries put addresses into their failures as they were given: of a proxy, of an endpoint.
    """
    return _USER.sub(lambda found: "://…@" if found[0].startswith("://") else "…@", str(text))


def sounds_of_keys(text: str) -> bool:
    """Whether JSON, good or broken, has a name under which keys come."""
    return _KEYS.search(text) is not None
