"""What is wrong with the fields of a body or of arguments, in our words: for `details.errors`. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from comfy_serverless.jobs.request import MAX_REQUEST_ERRORS, problem_in_words, unknown_field


def field_problems(
    entries: Sequence[Mapping[str, Any]], model: type[BaseModel] | None, *, outer: int = 0
) -> list[dict[str, str]]:
    """The problems that pydantic has found, each with the way to its field; the first of very many.

    Args:
        entries: as of `ValidationError.errors()`.
        model: what should have been given, to guess what was meant by a field that it does not have.
        outer: how many parts of the way lead to the model itself (`body`).
    """
    return [
        {
            "field": ".".join(str(part) for part in entry["loc"] if part != "[key]")[:200] or "request",
            "problem": unknown_field(entry["loc"][outer:], model)
            if model is not None and entry["type"] == "extra_forbidden"
            else problem_in_words(entry["type"], entry["msg"]),
        }
        for entry in entries[:MAX_REQUEST_ERRORS]
    ]
