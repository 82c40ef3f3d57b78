"""A named input as ComfyUI declares what it sets: kind, range, choices, default. No IO."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from comfy_serverless.graph.file_inputs import is_address, takes_file
from comfy_serverless.graph.inputs import Input, InputKind, Role, input_at
from comfy_serverless.graph.nodes import Takes
from comfy_serverless.graph.undeclared import is_stand_in
from comfy_serverless.workflows.offered import common_choices
from comfy_serverless.workflows.version import NamedInput

#: The longest default that is told beside the graph, in characters of JSON.
LONGEST_DEFAULT: Final = 10_000
_LONGEST_TITLE, _LONGEST_DESCRIPTION = 200, 2_000
#: Numbers that are whole in every node.
_WHOLE: Final = frozenset({"width", "height", "batch_size", "length", "frames", "steps"})
#: By what a class or an input is called: the media of its files.
_MEDIA: Final = (
    ("video", "video"),
    ("audio", "audio"),
    ("3d", "model3d"),
    ("mesh", "model3d"),
    ("model_file", "model3d"),
)


def described(
    graph: Mapping[str, Any],
    object_info: Mapping[str, Any] | None,
    targets: Sequence[tuple[str, str]],
    *,
    name: str,
    title: str = "",
    description: str = "",
    role: Role = Role.NONE,
    is_random: bool = False,
) -> NamedInput:
    """The named input that sets these inputs of the graph, one at least, all to the same value.

    A file that stands in the graph by its name is the author's: callers have to bring one. Where none stands, none is
    needed.

    Args:
        role: if the inputs themselves do not tell it.
        is_random: whether it is drawn for each run, unless somebody sets it.
    """
    ones = [input_at(graph, node_id, input_name, object_info) for node_id, input_name in targets]
    first = ones[0]
    kind = _kind(ones, object_info or {})
    role = next((one.role for one in ones if one.role is not Role.NONE), role)
    addresses = tuple(f"{node_id}.{input_name}" for node_id, input_name in targets)
    choices = common_choices(graph, addresses, object_info) if kind is InputKind.CHOICE else None
    default = _default(first.value)
    if kind is InputKind.FILE:
        default = default if isinstance(default, str) and is_address(default) else None
    elif is_random and role is Role.SEED and kind is InputKind.INTEGER:
        default = -1
    return NamedInput(
        name=name,
        targets=addresses,
        kind=kind,
        role=role,
        title=plain_text(title, _LONGEST_TITLE),
        description=plain_text(description or first.tooltip, _LONGEST_DESCRIPTION),
        default=default,
        is_required=kind is InputKind.FILE and default is None and bool(first.value),
        minimum=max((one.minimum for one in ones if one.minimum is not None), default=None),
        maximum=min((one.maximum for one in ones if one.maximum is not None), default=None),
        step=first.step,
        choices=choices[0] if choices is not None else (),
        is_open=kind is InputKind.CHOICE and (choices is None or choices[1]),
        multiline=any(one.multiline for one in ones),
        media=media_of(first) if kind is InputKind.FILE else "",
        is_guessed=kind is not InputKind.FILE and not any(_is_declared(one, object_info or {}) for one in ones),
    )


def media_of(one: Input) -> str:
    """The media of the files that an input takes; "" if that is not plain."""
    if takes_file(one.class_type, one.name) is Takes.IMAGE:
        return "image"
    called = f"{one.class_type} {one.name}".lower()
    return next((media for word, media in _MEDIA if word in called), "")


def plain_text(text: str, longest: int) -> str:
    """A text in one line, without what cannot be seen, and not too long."""
    seen = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * longest])
    line = " ".join(seen.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _kind(ones: list[Input], object_info: Mapping[str, Any]) -> InputKind:
    """The kind that all have; of numbers, whole ones are taken by all.

    Where nobody has told what a node takes, a whole number in the graph says only that a number is taken: JavaScript,
    and so the editor, writes 8.0 as `8`. Seeds, and sizes in pixels and frames, are whole all the same.
    """
    kinds = {one.kind for one in ones}
    if kinds == {InputKind.INTEGER, InputKind.NUMBER}:
        kinds = {InputKind.INTEGER}
    if len(kinds) > 1:
        return InputKind.OTHER
    is_told = any(one.class_type in object_info for one in ones)
    is_whole = any(one.role is Role.SEED or one.name in _WHOLE for one in ones)
    (kind,) = kinds
    return InputKind.NUMBER if kind is InputKind.INTEGER and not is_told and not is_whole else kind


def _is_declared(one: Input, object_info: Mapping[str, Any]) -> bool:
    return one.class_type in object_info and not is_stand_in(object_info[one.class_type])


def _default(value: object) -> object:
    if value is None or len(json.dumps(value, default=str)) > LONGEST_DEFAULT:
        return None
    return value
