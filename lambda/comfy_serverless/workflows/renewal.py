"""The inputs of a version as the workers of today take them: choices are theirs, everything else is the version's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from comfy_serverless.graph.inputs import InputKind, Role, input_at
from comfy_serverless.workflows.targets import place_of
from comfy_serverless.workflows.version import NamedInput, Version

#: The choices of all inputs of a workflow together; one with more is open.
MOST_CHOICES: Final = 20_000


def renewed(version: Version, object_info: Mapping[str, Any] | None) -> tuple[NamedInput, ...]:
    """The inputs, with the choices that ComfyUI declares now.

    A class that is not declared, or that offers nothing, says nothing: the choices stay. Of choices that an author has
    narrowed, those stay that there still are.
    """
    found: list[NamedInput] = []
    left = MOST_CHOICES
    for one in version.inputs:
        now = _renewed(version.graph, one, object_info) if one.kind is InputKind.CHOICE else one
        left -= len(now.choices)
        found.append(now if left >= 0 else replace(now, choices=(), is_open=True))
    return tuple(found)


def _renewed(graph: Mapping[str, Any], one: NamedInput, object_info: Mapping[str, Any] | None) -> NamedInput:
    declared = common_choices(graph, one.targets, object_info)
    if declared is None:
        return _opened(one)
    choices, is_open = declared
    if one.is_narrowed:
        offered = set(map(_key, choices))
        kept = tuple(choice for choice in one.choices if is_open or _key(choice) in offered)
        return replace(one, choices=kept or one.choices)
    return _opened(replace(one, choices=choices, is_open=one.is_open or is_open))


def _opened(one: NamedInput) -> NamedInput:
    """A model that stands in the workflow and is none of the choices comes along with jobs: so may others."""
    is_elsewhere = one.role is Role.MODEL and one.default is not None and one.default not in one.choices
    return replace(one, is_open=True) if is_elsewhere or not one.choices else one


def common_choices(
    graph: Mapping[str, Any], targets: tuple[str, ...], object_info: Mapping[str, Any] | None
) -> tuple[tuple[object, ...], bool] | None:
    """What all targets offer together, and whether there is more than that; None if none of them says anything."""
    common: tuple[object, ...] | None = None
    is_open = False
    for target in targets:
        place = place_of(graph, target)
        offered = input_at(graph, *place, object_info) if place is not None and object_info else None
        if offered is None or offered.kind is not InputKind.CHOICE or not offered.choices:
            continue
        is_open = is_open or offered.is_open
        keys = set(map(_key, offered.choices))
        common = offered.choices if common is None else tuple(one for one in common if _key(one) in keys)
    return None if common is None else (common, is_open)


def _key(choice: object) -> tuple[type, object]:
    """What two equal choices share: 1 and true are two."""
    return (
        bool if isinstance(choice, bool) else object,
        choice if isinstance(choice, str | int | float) else str(choice),
    )
