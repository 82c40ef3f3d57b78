"""Nodes that packs have for the inputs and outputs of a workflow: comfy-pack's and comfy-deploy's. No IO.

What their authors wrote there is taken as it is, so that callers of those services find the names that they know. Facts
are of the packs' documentation: comfy-pack names an input by the title of its node, comfy-deploy by `input_id`.
ViewComfy has no such nodes: its file is read as choices (`choices_file`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_serverless.graph.inputs import InputKind

_PACK_INPUT, _PACK_OUTPUT = "CPackInput", "CPackOutput"
_DEPLOY_INPUT, _DEPLOY_OUTPUT = ("ComfyUIDeployExternal", "ComfyDeployWebscoketImageInput"), "ComfyDeploy"
#: The inputs of comfy-pack's nodes that hold the value, by what follows the beginning of the class.
_PACK_VALUES: Final[Mapping[str, str]] = {"Image": "image", "File": "path", "Any": "input"}
#: The inputs of comfy-deploy's nodes that may hold the value, the first that there is.
_DEPLOY_VALUES: Final = (
    *("default_value", "default_value_url", "default_checkpoint_name", "default_lora_name", "lora_url"),
    *("checkpoint_url", "default_value_seed", "seed"),
)
_MOST_CHOICES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Declared:
    """What such a node says of its input.

    Attributes:
        value: the input of the node that holds the value.
        name: as callers know it; "" if the node has none.
        kind: None if what ComfyUI declares of the input is right.
    """

    value: str
    name: str = ""
    title: str = ""
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[object, ...] = ()
    kind: InputKind | None = None


def declared_input(node: Mapping[str, Any]) -> Declared | None:
    """What an input node declares; None if the node is none."""
    class_type, inputs = str(node.get("class_type")), node["inputs"]
    if class_type.startswith(_PACK_INPUT):
        return _of_pack(class_type.removeprefix(_PACK_INPUT), node)
    if class_type.startswith(_DEPLOY_INPUT):
        return _of_deploy(class_type, inputs)
    return None


def output_name(node: Mapping[str, Any]) -> str | None:
    """What an output node of these packs is called by its author; "" if by nothing, None if the node is none."""
    class_type, inputs = str(node.get("class_type")), node["inputs"]
    if class_type.startswith(_PACK_OUTPUT) and not class_type.endswith("Switch"):
        return _title(node)
    if class_type.startswith(_DEPLOY_OUTPUT) and "Output" in class_type:
        return _text(inputs, "output_id") or _text(inputs, "display_name")
    return None


def _of_pack(kind: str, node: Mapping[str, Any]) -> Declared:
    inputs, title = node["inputs"], _title(node)
    meta = node.get("_meta")
    options = meta.get("options") if isinstance(meta, Mapping) else None
    options = options if isinstance(options, Mapping) else {}
    listed = options.get("values")
    choices = tuple(_plain(listed)) if isinstance(listed, list) else ()
    return Declared(
        value=_PACK_VALUES.get(kind, "value"),
        name=title,
        title=title,
        minimum=_bound(inputs.get("min", options.get("min"))),
        maximum=_bound(inputs.get("max", options.get("max"))),
        choices=choices,
        kind=InputKind.FILE if kind == "File" else InputKind.CHOICE if choices else None,
    )


def _of_deploy(class_type: str, inputs: Mapping[str, Any]) -> Declared:
    choices = _options(inputs.get("options")) if class_type.endswith("Enum") else ()
    return Declared(
        value=next((name for name in _DEPLOY_VALUES if name in inputs), "input_id"),
        name=_text(inputs, "input_id"),
        title=_text(inputs, "display_name"),
        description=_text(inputs, "description"),
        minimum=_bound(inputs.get("min_value", inputs.get("min"))),
        maximum=_bound(inputs.get("max_value", inputs.get("max"))),
        choices=choices,
        kind=InputKind.CHOICE if choices else None,
    )


def _options(raw: object) -> tuple[object, ...]:
    """The choices of an enum: a list in JSON, of texts or of objects with a `value`, or a text with one a line."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            text = str(raw)
            raw = [part.strip() for part in (text.split("\n") if "\n" in text else text.split(","))]
    entries = raw if isinstance(raw, list) else []
    return tuple(_plain([entry.get("value") if isinstance(entry, Mapping) else entry for entry in entries]))


def _plain(values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, str | int | float) and value != ""][:_MOST_CHOICES]


def _bound(value: object) -> float | None:
    """A bound; the largest numbers of Python stand for none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < sys.maxsize:
        return None
    return value


def _text(inputs: Mapping[str, Any], name: str) -> str:
    value = inputs.get(name)
    return value.strip() if isinstance(value, str) else ""


def _title(node: Mapping[str, Any]) -> str:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title.strip() if isinstance(title, str) else ""
