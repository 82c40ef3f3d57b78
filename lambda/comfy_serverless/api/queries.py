"""Parameters in the query of a request: one that a route does not have is refused, because it was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from comfy_serverless.errors import InvalidRequest

_MOST_NAMED, _LONGEST_NAME = 20, 60


def check_query(given: Mapping[str, str] | None, known: Collection[str]) -> None:
    """Raise InvalidRequest if there are other parameters than those that are known; it names all of them."""
    unknown = [name for name in given or {} if name not in known]
    if not unknown:
        return
    problems = [
        {"field": f"query.{name[:_LONGEST_NAME]}", "problem": f"is no parameter of this route; {_hint(name, known)}"}
        for name in unknown[:_MOST_NAMED]
    ]
    listing = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems)
    raise InvalidRequest(f"The request cannot be used: {listing}.", details={"errors": problems})


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name[:_LONGEST_NAME].lower(), known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it has {', '.join(sorted(known))}" if known else "it has none"
