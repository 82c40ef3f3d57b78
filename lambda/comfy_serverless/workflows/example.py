"""Inputs of a named workflow that can be sent as they stand: for the API's description, and for tools. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.schema import InputCheck, schema_of
from comfy_serverless.workflows.version import NamedInput, Version

#: Inputs that are no required ones: how many, and how long a value may be.
_MOST, _LONGEST = 6, 200
#: What callers mostly set, in this order.
_TELLING: Final = (Role.PROMPT, Role.IMAGE, Role.FILE, Role.SEED, Role.SIZE, Role.NONE)
_PROMPT: Final = "a red fox in the snow"
#: The smallest files, for inputs without a default: 8 by 8 pixels of one color, and a hundredth of a second of silence.
_FILES: Final = {
    "image": (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mM8UaHBgA0wMeAAg1MCAB"
        "4nAXgllso1AAAAAElFTkSuQmCC"
    ),
    "audio": (
        "data:audio/wav;base64,UklGRsQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YaAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    ),
}


def example_of(version: Version, object_info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Values for the required inputs, and for some others as they stand in the graph. Those that would not fit are
    left out: a choice that no worker has any more is nobody's example.

    Args:
        object_info: what ComfyUI declares now, as for `schema_of`.
    """
    ordered = sorted(version.inputs, key=lambda one: (not one.is_required, _place(one)))
    required = [one for one in ordered if one.is_required]
    others = [one for one in ordered if not one.is_required and _is_telling(one)][: max(0, _MOST - len(required))]
    properties = schema_of(version, object_info)["properties"]
    values = {one.name: _value(one, properties[one.name]) for one in (*required, *others)}
    wrong = {problem.field for problem in InputCheck.of(version, object_info).problems(values)}
    return {name: value for name, value in values.items() if name not in wrong}


def _place(one: NamedInput) -> int:
    return _TELLING.index(one.role) if one.role in _TELLING else len(_TELLING)


def _is_telling(one: NamedInput) -> bool:
    is_short = not isinstance(one.default, str) or len(one.default) <= _LONGEST
    return one.default is not None and is_short and one.role in _TELLING and one.kind is not InputKind.FILE


def _value(one: NamedInput, told: Mapping[str, Any]) -> object:
    if one.default is not None and one.kind is not InputKind.FILE:
        return one.default
    if one.choices:
        return told.get("enum", list(one.choices))[0]
    match one.kind:
        case InputKind.FILE:
            return _FILES.get(one.media or "image", _FILES["image"])
        case InputKind.INTEGER | InputKind.NUMBER:
            return max(one.minimum or 0, min(1, one.maximum if one.maximum is not None else 1))
        case InputKind.BOOLEAN:
            return True
        case _:
            return _PROMPT
