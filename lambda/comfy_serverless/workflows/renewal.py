"""The inputs of a version as the workers of today take them: choices are theirs, everything else is the version's.

What was guessed, because nobody had told of the nodes when it was pushed, is as they declare it, too. No IO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.describing import described
from comfy_serverless.workflows.offered import common_choices, key_of
from comfy_serverless.workflows.targets import place_of
from comfy_serverless.workflows.version import NamedInput, Version

#: The choices of all inputs of a workflow together; one with more is open.
MOST_CHOICES: Final = 20_000
#: What a guess from the graph turns out to be, once it is told: a text one of a list, a number a whole one.
_TURNS_INTO: Final = {InputKind.TEXT: InputKind.CHOICE, InputKind.NUMBER: InputKind.INTEGER}


def renewed(version: Version, object_info: Mapping[str, Any] | None) -> tuple[NamedInput, ...]:
    """The inputs, with the choices that ComfyUI declares now.

    A class that is not declared, or that offers nothing, says nothing: the choices stay. Of choices that an author has
    narrowed, those stay that there still are.
    """
    found: list[NamedInput] = []
    left = MOST_CHOICES
    for one in version.inputs:
        known = _told(version.graph, one, object_info) if one.is_guessed and object_info else one
        now = _renewed(version.graph, known, object_info) if known.kind is InputKind.CHOICE else known
        left -= len(now.choices)
        found.append(now if left >= 0 else replace(now, choices=(), is_open=True))
    return tuple(found)


def _told(graph: Mapping[str, Any], one: NamedInput, object_info: Mapping[str, Any] | None) -> NamedInput:
    """An input that was guessed, as ComfyUI declares it; the author's limits stay within that. As it is, if nobody has
    told of it yet.
    """
    places = [place for target in one.targets if (place := place_of(graph, target)) is not None]
    if not places:
        return one
    now = described(graph, object_info, places, name=one.name, role=one.role)
    if now.is_guessed:
        return one
    bounds = one.minimum, now.minimum, one.maximum, now.maximum
    low, high = ([bound for bound in pair if bound is not None] for pair in (bounds[:2], bounds[2:]))
    return replace(
        one,
        kind=now.kind if _TURNS_INTO.get(one.kind) is now.kind else one.kind,
        role=one.role if one.role is not Role.NONE else now.role,
        description=one.description or now.description,
        minimum=max(low, default=None),
        maximum=min(high, default=None),
        step=now.step if one.step is None else one.step,
        multiline=one.multiline or now.multiline,
        is_guessed=False,
    )


def _renewed(graph: Mapping[str, Any], one: NamedInput, object_info: Mapping[str, Any] | None) -> NamedInput:
    declared = common_choices(graph, one.targets, object_info)
    if declared is None:
        return _opened(one)
    choices, is_open = declared
    if one.is_narrowed:
        offered = set(map(key_of, choices))
        kept = tuple(choice for choice in one.choices if is_open or key_of(choice) in offered)
        return replace(one, choices=kept or one.choices)
    return _opened(replace(one, choices=choices, is_open=one.is_open or is_open))


def _opened(one: NamedInput) -> NamedInput:
    """A model that stands in the workflow and is none of the choices comes along with jobs: so may others."""
    is_elsewhere = one.role is Role.MODEL and one.default is not None and one.default not in one.choices
    return replace(one, is_open=True) if is_elsewhere or not one.choices else one
