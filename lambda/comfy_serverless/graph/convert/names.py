"""`%date:…%` and `%Node.widget%` in texts of the editor: names of files that nodes save, and primitives. No IO.

Observed of the official editor 1.49.6, which looks at widgets: `graph/prefixes.py` does the like for graphs, where only
inputs are left. What is not understood stays: `%width%` and the like are replaced by the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

_FIELD = re.compile(r"%([^%]+)%")
_DATE = "date:"
_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyy?y?")
_UNFIT = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


def replaced(text: str, *, now: Callable[[], datetime], value_of: Callable[[str, str], str | None]) -> str:
    """A name with its fields replaced.

    Args:
        now: the time in the place where people read the name; asked only if the name has a date.
        value_of: the value of a widget as a text, by its node and its name; None if there is no such widget.
    """

    def field(match: re.Match[str]) -> str:
        first, *others = match[1].split(".")
        if len(others) != 1:
            return _date(now(), first.removeprefix(_DATE)) if first.startswith(_DATE) else match[0]
        value = value_of(first, others[0])
        return match[0] if value is None else _UNFIT.sub("_", value)

    return _FIELD.sub(field, text)


def _date(now: datetime, form: str) -> str:
    parts = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def part(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] in parts:
            return str(parts[found[0]]).rjust(len(found), "0")
        year = str(now.year)
        return {"yy": year[2:], "yyyy": year}.get(found, found)

    return _PART.sub(part, form)
