"""Nodes that packs have for the inputs and outputs of a workflow: comfy-pack's and comfy-deploy's. No IO.

What their authors wrote there is taken as it is, so that callers of those services find the names that they know:
comfy-pack names an input by the title of its node, comfy-deploy by `input_id`. Classes and inputs are those that the
packs themselves declare in a real ComfyUI (tests/fixtures/comfyui/input_nodes.json); what their nodes take was tried
there. ViewComfy's pack has no such nodes: its file is read as choices (`choices_file`).
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
#: The inputs of comfy-deploy's nodes that may hold the value, by what the class ends in: the first that has one. Those
#: called `…_url`, and `images` (a list of them in JSON), take addresses that the node itself fetches; its own service
#: writes the value over `input_id`, as must be done where a node has nothing else.
_DEPLOY_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "Audio": ("default_value", "audio_file"),
    "EXR": ("default_image", "exr_file"),
    "FaceModel": ("face_model_url", "default_face_model_name"),
    "File": ("file_url",),
    "Image": ("default_value", "default_value_url"),
    "ImageAlpha": ("default_value", "input_id"),
    "ImageBatch": ("default_value", "images"),
    "Lora": ("lora_url", "default_lora_name"),
    "Video": ("default_video", "default_value_url"),
}
_DEPLOY_VALUE: Final = ("default_value",)
#: Those that take the name of a file in ComfyUI's input folder, where other inputs of these names take none.
_DEPLOY_FILES: Final = frozenset({("Vid", "default_value"), ("Video", "default_video")})
_MOST_CHOICES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Declared:
    """What such a node says of its input.

    Attributes:
        value: the input of the node that holds the value; "" if that comes from the pack's own service alone.
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
    kind = class_type.removeprefix(_DEPLOY_INPUT[0])
    choices = _options(inputs.get("options")) if kind == "Enum" else ()
    names = [name for name in _DEPLOY_VALUES.get(kind, _DEPLOY_VALUE) if name in inputs]
    value = next((name for name in names if inputs[name] not in ("", "[]", None)), next(iter(names), ""))
    least, most = inputs.get("min_value", inputs.get("min")), inputs.get("max_value", inputs.get("max"))
    return Declared(
        value=value,
        name=_text(inputs, "input_id"),
        title=_text(inputs, "display_name"),
        description=_text(inputs, "description"),
        # A seed out of its range has the node draw one: -1 is what its callers write.
        minimum=-1 if kind == "Seed" else _bound(least),
        maximum=_bound(most),
        choices=choices,
        kind=InputKind.FILE if (kind, value) in _DEPLOY_FILES else InputKind.CHOICE if choices else None,
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
