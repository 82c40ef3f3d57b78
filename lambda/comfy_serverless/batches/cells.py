"""Texts that somebody else has written, as cells that a spreadsheet shows, and does not compute."""

from __future__ import annotations

import re

#: How a cell begins that a spreadsheet computes; and a number, which it may.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?")


def cell(value: str | list[str]) -> str:
    """A text, or several, each in a line of the cell; with a `'` before it if it would be computed."""
    text = value if isinstance(value, str) else "\n".join(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
