"""How long values are in all the places that they go to: one that is sent once may be set in thousands. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from comfy_serverless.errors import InvalidWorkflow

#: The most letters that values have in all their places: a whole request has fewer.
MAX_SET_LETTERS: Final = 16_000_000


def refuse_copies(placed: Iterable[tuple[object, int]]) -> None:
    """Raise InvalidWorkflow if values, each with the number of its places, have too many letters there together.

    A class may have thousands of nodes: a text that is set in all of them makes a graph of gigabytes.
    """
    sizes: dict[int, int] = {}
    letters = 0
    for value, places in placed:
        if isinstance(value, str | list | Mapping):
            size = sizes.get(id(value))
            if size is None:
                size = sizes[id(value)] = _letters_in(value)
            letters += size * places
    if letters > MAX_SET_LETTERS:
        raise InvalidWorkflow(
            f"the values that are set have {letters:,} letters in all the places that they go to, and at most "
            f"{MAX_SET_LETTERS:,} are taken: set a long value in fewer nodes."
        )


def _letters_in(value: object) -> int:
    """About how long a value is as JSON, without recursion."""
    letters, pending = 0, [value]
    while pending:
        part = pending.pop()
        letters += len(part) if isinstance(part, str) else 2
        if isinstance(part, Mapping):
            pending += (*part.keys(), *part.values())
        elif isinstance(part, list):
            pending += part
    return letters
