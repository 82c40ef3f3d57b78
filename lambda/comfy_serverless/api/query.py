"""Refuses parameters of an address that a route does not have: `?limt=5` would be answered with what nobody asked for.

Live streams of events (`event_streams`) know no route of this API, and check theirs themselves. Agents' `/mcp` lets all
pass: it has none that could be misspelt, and whoever lists servers of tools may add some of his own.

The official SDKs send `limit`, `cursor` and `metadata[…]` to lists, and nothing else. Public routes let others pass:
browsers and monitors add some of their own (`?_=1`), and there is nothing to filter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from comfy_serverless.api.auth import is_public
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.near import Guesses

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.types import EventHandlerInstance

#: Parameters with a name in brackets, `metadata[campaign]=autumn`, by method and path.
_WITH_KEYS: Final[Mapping[tuple[str, str], str]] = {
    ("GET", "/api/v2/jobs"): "metadata",
    ("GET", "/api/v2/outputs"): "metadata",
}
_MOST_TOLD: Final = 20
_LONGEST_NAME: Final = 60


def check_query(app: EventHandlerInstance) -> None:
    """Check the names behind the `?` of the request in hand. Raises as `check_parameters`."""
    event = app.current_event
    asked = (event.http_method, event.path)
    if not is_public(*asked):
        known = [field.alias for field in app.context["_route"].dependant.query_params]
        check_parameters(event.query_string_parameters or {}, known, with_keys=_WITH_KEYS.get(asked))


def check_parameters(given: Collection[str], known: Collection[str], *, with_keys: str | None = None) -> None:
    """Check the names of parameters.

    Args:
        with_keys: the one that has a name in brackets.

    Raises:
        InvalidRequest: some are not known; each is named, with the one that was probably meant.
    """
    wrong = [name for name in given if name not in known and not _has_key(name, with_keys)]
    if not wrong:
        return
    guesses = Guesses()
    shown = sorted([*known, *([] if with_keys is None else [f"{with_keys}[name]"])])
    problems = [
        {"field": f"query.{name[:_LONGEST_NAME]}", "problem": _problem(name, shown, guesses)}
        for name in wrong[:_MOST_TOLD]
    ]
    more = f"; and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
    listing = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems)
    raise InvalidRequest(f"The request cannot be used: {listing}{more}.", details={"errors": problems})


def _has_key(name: str, with_keys: str | None) -> bool:
    return with_keys is not None and name.startswith(f"{with_keys}[") and name.endswith("]")


def _problem(name: str, known: Collection[str], guesses: Guesses) -> str:
    near = guesses.near(name, known, bare=lambda one: one.partition("[")[0].lower())
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}" if known else "it has none"
    return f"is no parameter of this route ({hint})"
