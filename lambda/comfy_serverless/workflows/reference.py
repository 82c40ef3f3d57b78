"""`poster`, `poster@staging`, `poster@3`: how every door names a workflow. No IO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from comfy_serverless.errors import InvalidRequest

#: The alias that a name alone means.
LIVE: Final = "live"
NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
ALIAS: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")
_NUMBER: Final = re.compile(r"v?(0|[1-9]\d{0,5})")
#: Names that paths of the API have below /api/v2/workflows/, or will have.
RESERVED: Final = frozenset({"convert", "needs", "doctor"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A named workflow, and which of its versions.

    Attributes:
        alias: whose version is meant; None if `version` says it.
        version: its number; 0 is the file in WORKFLOWS_DIR.
    """

    name: str
    alias: str | None = LIVE
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME`, `NAME@ALIAS` or `NAME@NUMBER` (`NAME@v3` too). Raises InvalidRequest for anything else."""
        name, at, which = text.partition("@")
        check_name(name)
        if not at:
            return cls(name)
        if number := _NUMBER.fullmatch(which):
            return cls(name, None, int(number[1]))
        return cls(name, check_alias(which))

    def to_text(self) -> str:
        """As `parse` reads it; the name alone for `live`."""
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return self.name if self.alias == LIVE else f"{self.name}@{self.alias}"


def check_name(name: str) -> str:
    """The name itself. Raises InvalidRequest if no workflow may be called so."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InvalidRequest(
            f"no workflow can be called {name[:100]!r}: a name has 1 to 64 letters, digits, '-' or '_', begins and "
            f"ends with a letter or digit, and is none of {', '.join(sorted(RESERVED))}."
        )
    return name


def check_alias(alias: str) -> str:
    """The alias itself. Raises InvalidRequest if none may be called so."""
    if not ALIAS.fullmatch(alias) or _NUMBER.fullmatch(alias):
        raise InvalidRequest(
            f"no alias can be called {alias[:100]!r}: it has 1 to 32 small letters, digits or '-', begins with a "
            "letter and is not a version like 'v3'."
        )
    return alias
