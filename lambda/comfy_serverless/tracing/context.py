"""The place in a trace, as it travels between services: `traceparent` and `tracestate` of W3C's Trace Context. No IO.

What is none counts as absent, as the recommendation wants it: nobody is refused for a header of their tracing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
_PARENT_FORM = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)
#: What a service must hand on, at least; more than that, and what is none, is dropped.
_MOST_STATE_CHARACTERS, _MOST_MEMBERS = 512, 32
_STATE_FORM = re.compile(r"[\x20-\x7e\t]*")


@dataclass(frozen=True, slots=True)
class Trace:
    """A span that others may be children of."""

    traceparent: str
    tracestate: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self | None:
        """What headers say, or the fields of a message; None if they name no span."""
        found = {name: value for key, value in fields.items() if (name := str(key).lower()) in (PARENT, STATE)}
        parent, state = found.get(PARENT), found.get(STATE)
        return None if (known := _parent(parent)) is None else cls(known, _state(state))

    @property
    def trace_id(self) -> str:
        """The id of the trace, in hex."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """The id of the span, in hex."""
        return self.traceparent[36:52]

    def fields(self) -> dict[str, str]:
        """The headers, or the fields of a message."""
        return {PARENT: self.traceparent, **({STATE: self.tracestate} if self.tracestate else {})}


def _parent(value: object) -> str | None:
    """A `traceparent` of the version that we know. Of a later one, the beginning means the same."""
    if not isinstance(value, str) or (match := _PARENT_FORM.match(value.strip())) is None:
        return None
    rest = value.strip()[match.end() :]
    is_known = match["version"] == "00" and not rest
    is_later = match["version"] not in ("00", "ff") and (not rest or rest.startswith("-"))
    if not (is_known or is_later) or not int(match["trace"], 16) or not int(match["span"], 16):
        return None
    return f"00-{match['trace']}-{match['span']}-{match['flags']}"


def _state(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MOST_STATE_CHARACTERS or not _STATE_FORM.fullmatch(value):
        return ""
    members = [member.strip() for member in value.split(",") if member.strip()]
    is_one = len(members) <= _MOST_MEMBERS and all("=" in member for member in members)
    return ",".join(members) if is_one else ""
