"""What of a workflow can be set, in words for forms: name, kind, range, choices, the value it has. No IO.

    {"address": "6.text", "kind": "text", "role": "prompt", "value": "a fox", …}

An input can be set if it has a value in the graph in API format, and is not connected. What ComfyUI declares of it says
the rest; without a declaration, the value itself says which kind it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from comfy_serverless.graph.file_inputs import takes_file
from comfy_serverless.graph.lookup import MAX_ADDRESS_LENGTH, title_of
from comfy_serverless.graph.nodes import PREFIX, SEED_INPUTS, Takes, model_folder
from comfy_serverless.graph.workflow import is_link

#: What is told: the inputs, the choices of one and of all, the letters of a text and of all.
_MOST_INPUTS, _MOST_CHOICES, _ALL_CHOICES, _LONGEST_TEXT, _ALL_TEXT = 2_000, 1_000, 50_000, 10_000, 1_000_000
_LONGEST_TITLE = 200
_SIZES = frozenset({"width", "height", "batch_size", "length", "frames", "frame_rate", "fps", "duration"})
_LONGEST_TOOLTIP = 500


class InputKind(StrEnum):
    """The kind of an input's values."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    FILE = "file"
    OTHER = "other"


class Role(StrEnum):
    """What an input is mostly set for."""

    PROMPT = "prompt"
    SEED = "seed"
    SIZE = "size"
    IMAGE = "image"
    FILE = "file"
    MODEL = "model"
    NAME = "name of the result"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input that can be set.

    Attributes:
        address: as `set` and `inputs` of a request take it: `6.text`.
        title: what the author of the workflow called the node; its class, if nothing.
        value: what stands in the workflow; null if it is too long to be told.
        minimum, maximum, step: of numbers; None where there is no bound.
        choices: of `InputKind.CHOICE`; `is_open` if there are more than are told, or they come from elsewhere.
    """

    address: str
    node_id: str
    class_type: str
    title: str
    name: str
    kind: InputKind
    role: Role = Role.NONE
    value: object = None
    default: object = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[object, ...] = ()
    is_open: bool = False
    multiline: bool = False
    tooltip: str = ""

    def to_json(self) -> dict[str, Any]:
        """The input as JSON, without what says nothing."""
        document: dict[str, Any] = {
            "address": self.address,
            "node_id": self.node_id,
            "class_type": self.class_type,
            "title": self.title,
            "name": self.name,
            "kind": str(self.kind),
            "role": str(self.role) or None,
            "value": self.value,
        }
        further = {
            "default": self.default,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "step": self.step,
            "choices": list(self.choices) or None,
            "is_open": self.is_open or None,
            "multiline": self.multiline or None,
            "tooltip": self.tooltip or None,
        }
        return document | {name: value for name, value in further.items() if value is not None}


def inputs_of(graph: Mapping[str, Any], object_info: Mapping[str, Any] | None) -> tuple[Input, ...]:
    """The inputs of a graph in API format that can be set, in its order.

    What is told of a huge graph has an end: after 2,000 inputs there are no more, after a megabyte no more values, and
    after 50,000 choices no more of those.
    """
    found: list[Input] = []
    text_left, choices_left = _ALL_TEXT, _ALL_CHOICES
    for node_id, node in graph.items():
        declaration = (object_info or {}).get(str(node.get("class_type")))
        for name, value in node["inputs"].items():
            if is_link(value) or isinstance(value, Mapping) or len(node_id) + len(name) >= MAX_ADDRESS_LENGTH:
                continue
            if len(found) >= _MOST_INPUTS:
                return tuple(found)
            one = _input(node_id, node, name, value, _spec(declaration, name, node["inputs"]))
            size = len(json.dumps(value, default=str))
            text_left, choices_left = text_left - size, choices_left - len(one.choices)
            is_told = size <= _LONGEST_TEXT and text_left >= 0
            found.append(
                replace(
                    one,
                    value=value if is_told else None,
                    choices=one.choices if choices_left >= 0 else (),
                    is_open=one.is_open or choices_left < 0,
                )
            )
    return tuple(found)


def input_at(graph: Mapping[str, Any], node_id: str, name: str, object_info: Mapping[str, Any] | None) -> Input:
    """An input of a node, however long its value is; also one that is connected, or has no value yet."""
    node = graph[node_id]
    declaration = (object_info or {}).get(str(node.get("class_type")))
    value = node["inputs"].get(name)
    one = _input(node_id, node, name, value, _spec(declaration, name, node["inputs"]))
    return replace(one, value=None if is_link(value) else value)


def _input(node_id: str, node: Mapping[str, Any], name: str, value: object, spec: list[Any] | None) -> Input:
    class_type = str(node.get("class_type"))
    options = spec[1] if spec is not None and len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    choices = _choices(spec, options)
    kind = _kind(class_type, name, value, spec)
    is_number = kind in (InputKind.INTEGER, InputKind.NUMBER)
    listed = choices if kind is InputKind.CHOICE and choices is not None else []
    return Input(
        address=f"{node_id}.{name}",
        node_id=node_id,
        class_type=class_type[:_LONGEST_TITLE],
        title=title_of(node)[:_LONGEST_TITLE],
        name=name,
        kind=kind,
        role=_role(class_type, name, kind, options),
        default=_plain(options.get("default")),
        minimum=_bound(options.get("min")) if is_number else None,
        maximum=_bound(options.get("max")) if is_number else None,
        step=_bound(options.get("step")) if is_number else None,
        choices=tuple(listed[:_MOST_CHOICES]),
        is_open=len(listed) > _MOST_CHOICES or (kind is InputKind.CHOICE and "remote" in options),
        multiline=bool(options.get("multiline")),
        tooltip=str(options.get("tooltip") or "")[:_LONGEST_TOOLTIP],
    )


def _spec(declaration: object, name: str, given: Mapping[str, Any]) -> list[Any] | None:
    """The declaration of an input; of one like `model.steps`, that of the option which is chosen for `model`."""
    groups = declaration.get("input") if isinstance(declaration, Mapping) else None
    parent, dot, rest = name.partition(".")
    for group in ("required", "optional"):
        names = groups.get(group) if isinstance(groups, Mapping) else None
        if not isinstance(names, Mapping):
            continue
        if isinstance(names.get(name), list) and names[name]:
            return list(names[name])
        spec = names.get(parent) if dot else None
        if isinstance(spec, list) and spec and spec[0] == "COMFY_DYNAMICCOMBO_V3":
            options = spec[1].get("options") if len(spec) > 1 and isinstance(spec[1], Mapping) else None
            of_this = (one for one in options if isinstance(one, Mapping)) if isinstance(options, list) else ()
            chosen = next((one for one in of_this if one.get("key") == given.get(parent)), None)
            prefix = f"{parent}."
            inner = {key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)}
            return None if chosen is None else _spec({"input": chosen.get("inputs")}, rest, inner)
    return None


def _choices(spec: list[Any] | None, options: Mapping[str, Any]) -> list[Any] | None:
    if spec is None:
        return None
    if isinstance(spec[0], list):
        return spec[0]
    listed = options.get("options")
    if spec[0] == "COMFY_DYNAMICCOMBO_V3" and isinstance(listed, list):
        return [one.get("key") for one in listed if isinstance(one, Mapping)]
    return listed if spec[0] == "COMBO" and isinstance(listed, list) else None


_KINDS = {
    "STRING": InputKind.TEXT,
    "INT": InputKind.INTEGER,
    "FLOAT": InputKind.NUMBER,
    "BOOLEAN": InputKind.BOOLEAN,
    "COMBO": InputKind.CHOICE,
    "COMFY_DYNAMICCOMBO_V3": InputKind.CHOICE,
}


def _kind(class_type: str, name: str, value: object, spec: list[Any] | None) -> InputKind:
    if isinstance(value, str) and takes_file(class_type, name) is not None:
        return InputKind.FILE
    if spec is not None:
        return InputKind.CHOICE if isinstance(spec[0], list) else _KINDS.get(str(spec[0]), InputKind.OTHER)
    for types, kind in (
        (bool, InputKind.BOOLEAN),
        (str, InputKind.TEXT),
        (int, InputKind.INTEGER),
        (float, InputKind.NUMBER),
    ):
        if isinstance(value, types):
            return kind
    return InputKind.OTHER


def _role(class_type: str, name: str, kind: InputKind, options: Mapping[str, Any]) -> Role:
    if kind is InputKind.FILE:
        return Role.IMAGE if takes_file(class_type, name) is Takes.IMAGE else Role.FILE
    if model_folder(class_type, name):
        return Role.MODEL
    if name in SEED_INPUTS or (kind is InputKind.INTEGER and options.get("control_after_generate")):
        return Role.SEED
    if name == PREFIX:
        return Role.NAME
    if kind in (InputKind.INTEGER, InputKind.NUMBER) and name in _SIZES:
        return Role.SIZE
    if kind is InputKind.TEXT and (options.get("multiline") or options.get("dynamicPrompts")):
        return Role.PROMPT
    return Role.NONE


def _bound(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return value if is_number else None  # type: ignore[return-value]


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool) else None
