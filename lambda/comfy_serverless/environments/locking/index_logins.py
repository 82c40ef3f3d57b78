"""User and password of a package index, for the files of it that are read here: sources, and what has no hash.

They are where uv and pip look for them: in the index's address, in uv's variables for a named index, in ~/.netrc. They
are sent to that index alone, and stand in no lock and no message.
"""

from __future__ import annotations

import netrc
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from comfy_serverless.fetch.tokens import Tokens

_VARIABLES: Final = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"),
)
_PORTS: Final = {"http": 80, "https": 443}


class IndexLogins(Tokens):
    """What lets us in at the indexes that environment variables name."""

    __slots__ = ("_logins", "_netrc")

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__({})
        self._logins = dict(_logins(variables))
        self._netrc = Path(variables.get("NETRC") or Path.home() / ".netrc")

    def headers_for(self, target: SplitResult) -> dict[str, str]:
        """The headers for a request: exactly to such an index, by the same scheme."""
        login = self._logins.get(_place(target))
        if login is None and target.scheme == "https":
            login = self._of_netrc(target.hostname or "")
        if login is None:
            return {}
        return {"Authorization": "Basic " + b64encode(":".join(login).encode()).decode("ascii")}

    def _of_netrc(self, host: str) -> tuple[str, str] | None:
        try:
            found = netrc.netrc(str(self._netrc)).authenticators(host)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):  # uv and pip go on without it, too
            return None
        return (found[0], found[2] or "") if found else None


def _logins(variables: Mapping[str, str]) -> Iterator[tuple[tuple[str, str, int], tuple[str, str]]]:
    for variable in _VARIABLES:
        for word in re.split(r"[\s,]+", variables.get(variable, "")):
            named = re.match(r"([A-Za-z0-9][\w.-]*)=(?=\w+://)", word)
            try:
                parts = urlsplit(word[named.end() :] if named else word)
                place = _place(parts)
            except ValueError:  # no address: uv says so itself
                continue
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            if named:
                prefix = f"UV_INDEX_{re.sub(r'[^A-Z0-9]', '_', named[1].upper())}"
                user, password = (
                    variables.get(f"{prefix}_{what}") or said
                    for what, said in (("USERNAME", user), ("PASSWORD", password))
                )
            if user or password:
                yield place, (user, password)


def _place(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
