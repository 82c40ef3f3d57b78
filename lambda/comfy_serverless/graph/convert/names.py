"""`%date:…%` and `%Node.widget%` in texts of the editor: names of files that nodes save, and primitives. No IO.

Observed of the official editor 1.49.6, which looks at widgets: `graph/prefixes.py` does the like for graphs, where only
inputs are left. What is not understood stays: `%width%` and the like are replaced by the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from comfy_serverless.graph.prefixes import date, fit_for_a_name

_FIELD = re.compile(r"%([^%]+)%")
_DATE = "date:"


def replaced(text: str, *, now: Callable[[], datetime], value_of: Callable[[str, str], str | None]) -> str:
    """A name with its fields replaced.

    Args:
        now: the time in the place where people read the name; asked only if the name has a date.
        value_of: the value of a widget as a text, by its node and its name; None if there is no such widget.
    """

    def field(match: re.Match[str]) -> str:
        first, *others = match[1].split(".")
        if len(others) != 1:
            return date(now(), first.removeprefix(_DATE)) if first.startswith(_DATE) else match[0]
        value = value_of(first, others[0])
        return match[0] if value is None else fit_for_a_name(value)

    return _FIELD.sub(field, text)
