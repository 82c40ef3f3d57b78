"""Named workflows in words: the tables that `comfy-serverless workflows` prints. No IO."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from comfy_serverless.cli.habits import counted

INPUT_TITLES: Final = ("input", "takes", "where", "default", "what it is")
#: The columns of these tables that may be folded.
FOLDED: Final = ("takes", "where", "default", "what it is", "note", "title", "aliases")
_LONGEST: Final = 60
_LONGEST_LIST: Final = 80


def input_row(one: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """An input as a row. `schema` is that of the whole object, whose choices are those that there are now."""
    spec = (schema.get("properties") or {}).get(one["name"]) or {}
    default = "(required)" if one.get("is_required") else shown(one.get("default"))
    return [str(one["name"]), takes(one, spec), " ".join(one.get("targets") or ()), default, what_it_is(one)]


def what_it_is(one: Mapping[str, Any]) -> str:
    """What an author says of an input; "" if that is no more than its name."""
    title = str(one.get("title") or "")
    return str(one.get("description") or ("" if _plain(title) == _plain(str(one["name"])) else title))


def _plain(text: str) -> str:
    return "_".join(text.lower().replace("_", " ").replace("-", " ").split())


def takes(one: Mapping[str, Any], spec: Mapping[str, Any], *, longest: int = _LONGEST_LIST) -> str:
    """What an input takes: `integer from 1 to 100`, `euler, ddim and 8 more`, `image`.

    Args:
        longest: how many letters choices may have.
    """
    kind = str(one.get("kind"))
    if kind == "choice":
        choices = spec.get("enum") or one.get("choices") or ()
        told = _listed(choices, longest)
        return f"{told}{', or another' if one.get('is_open') else ''}" if told else "a choice"
    if kind == "file":
        may_be_many = any(option.get("type") == "array" for option in spec.get("anyOf") or ())
        return f"{one.get('media') or 'file'}{', or several' if may_be_many else ''}"
    bounds = [spec.get(name, one.get(name)) for name in ("minimum", "maximum")]
    words = [f"{word} {shown(bound)}" for word, bound in zip(("from", "to"), bounds, strict=True) if bound is not None]
    step = one.get("step")
    words += [f"in steps of {shown(step)}"] if step not in (None, 1, 0) else []
    return " ".join([kind, *words])


def _listed(choices: Sequence[object], longest: int) -> str:
    """The first choices, and how many more there are."""
    told: list[str] = []
    for choice in choices:
        if told and len(", ".join(told)) + len(shown(choice)) > longest:
            break
        told.append(shown(choice))
    more = len(choices) - len(told)
    return ", ".join(told) + (f" and {more:,} more" if more else "")


def output_row(one: Mapping[str, Any]) -> list[str]:
    """An output as a row."""
    return [str(one["name"]), str(one["node_id"]), str(one.get("title") or "")]


def entry_row(one: Mapping[str, Any]) -> list[str]:
    """A workflow in the list of all."""
    latest = str(one["latest"]) if one.get("latest") else "image"
    return [str(one["name"]), str(one.get("source", "")), latest, aliases_in_words(one), str(one.get("title") or "")]


def version_row(one: Mapping[str, Any]) -> list[str]:
    """A version in the list of a workflow's."""
    aliases = ", ".join(one.get("aliases") or ())
    return [
        str(one["number"]),
        str(one.get("created_at") or "")[:16].replace("T", " "),
        str(one.get("created_by") or ""),
        aliases,
        str(one.get("release") or ""),
        str(one.get("note") or ""),
    ]


def aliases_in_words(one: Mapping[str, Any]) -> str:
    """Where all aliases of a workflow lead: `live 3, staging 4`."""
    aliases = one.get("aliases") or {}
    return ", ".join(
        f"{name} {weights_in_words(alias.get('weights') or {})}" for name, alias in sorted(aliases.items())
    )


def weights_in_words(weights: Mapping[str, int]) -> str:
    """`{"3": 90, "4": 10}` -> `3 (90%), 4 (10%)`."""
    whole = sum(weights.values())
    if len(weights) < 2 or not whole:
        return "".join(weights) or "nowhere"
    in_order = sorted(weights.items(), key=lambda pair: int(pair[0]))
    return ", ".join(f"{number} ({100 * weight / whole:.3g}%)" for number, weight in in_order)


def shown(value: object) -> str:
    """A value in a table: a text as it is, shortened; anything else as JSON."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…"


def found_in_words(document: Mapping[str, Any]) -> str:
    """`5 inputs, 1 output`."""
    return f"{counted(len(document['inputs']), 'input')}, {counted(len(document['outputs']), 'output')}"
