"""A node class as `/object_info` declares it, in the order in which the editor lists its inputs. No IO.

Observed of the official editor 1.49.6: the order is that of `input_order`, required before optional, then what is left
over. Sockets come first in a node's list of inputs, widgets after them. An input is a widget if its type is one of
`widgets.KINDS` and `forceInput` is not set; an optional one with `defaultInput` counts as forced, too. The editor adds
inputs of its own to some classes: they are in no declaration, but some take a place among the values of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.graph.convert.reading import type_name
from comfy_serverless.graph.nodes import AUDIO_PLAYERS, MODEL_VIEWERS
from comfy_serverless.graph.undeclared import is_stand_in

COMBO = "COMBO"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
MATCH_TYPE = "COMFY_MATCHTYPE_V3"
#: The types whose inputs are widgets.
WIDGET_TYPES = frozenset({
    "INT", "FLOAT", "BOOLEAN", "STRING", COMBO, DYNAMIC_COMBO, "COLOR", "BOUNDING_BOX", "CURVE", "COLORS",
    "BOUNDING_BOXES", "PAINTER", "COMPOSITOR", "IMAGECOMPARE", "MARKDOWN", "TEXTAREA", "VIDEO_EDIT", "RANGE", "CHART",
    "GALLERIA", "LOAD_3D", "WEBCAM", "AUDIO_RECORD", "CAMERA_ANGLE_VIEW",
    # What the editor adds itself; no server declares them.
    "UPLOAD_BUTTON", "AUDIO_PLAYER", "VIEWER",
})  # fmt: skip
_PICTURE_UPLOADS = ("image_upload", "video_upload", "animated_image_upload")


@dataclass(frozen=True, slots=True, eq=False)
class Declared:
    """An input of a class.

    Attributes:
        type: "COMBO" for a list of choices, "*" for what is no text; that of a match type is what it may match.
        options: the object that stands beside the type.
        choices: what a combo offers; for a dynamic one its options, each an object with `key` and `inputs`.
        kind: the type of its widget; None if it is a socket.
        is_forced: whether it would be a widget, but is made a socket.
    """

    name: str
    type: str
    options: Mapping[str, Any]
    choices: list[Any]
    kind: str | None
    is_forced: bool
    is_required: bool = True

    @property
    def is_matching(self) -> bool:
        """Whether its type is that of what is linked to it and to its like."""
        return isinstance(self.options.get("template"), Mapping) and "allowed_types" in self.options["template"]

    @property
    def match_group(self) -> str:
        """What it has in common with those that it matches."""
        return str(self.options["template"].get("template_id"))

    @property
    def has_control(self) -> bool:
        """Whether a widget follows that says what becomes of the value after each run."""
        wanted = self.options.get("control_after_generate")
        if self.kind == "INT" and wanted is None:
            return self.name in ("seed", "noise_seed")
        return bool(wanted)


@dataclass(frozen=True, slots=True, eq=False)
class NodeClass:
    """A class: its inputs in order, sockets and widgets, and the types of its outputs.

    Attributes:
        growing: those that grow by name, also those of options of dynamic combos.
        places: the places of each widget, as far as they were asked for (`widgets.places`).
        free: each input as it is without a link, likewise (`values.Input`).
        is_stand_in: whether nobody has declared it, so that only the names in a file say which value is which.
        as_written: the same inputs in the order of the declaration itself, by which values of old files are counted.
    """

    title: str
    inputs: list[Declared]
    outputs: list[str]
    as_written: list[Declared] = field(default_factory=list)
    growing: Mapping[str, Declared] = field(default_factory=dict)
    places: dict[Declared, tuple[Any, ...]] = field(default_factory=dict)
    free: dict[Declared, Any] = field(default_factory=dict)
    is_stand_in: bool = False

    @property
    def has_model_file(self) -> bool:
        """Whether an input of it is called `model_file`: then a viewer of models has buttons to upload them."""
        return any(entry.name == "model_file" for entry in self.inputs)


def declared(name: str, spec: object, *, is_required: bool) -> Declared | None:
    """An input of a declaration `[type, options]`; None if it is none."""
    if not isinstance(spec, list) or not spec:
        return None
    raw, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    kind = options.get("widgetType") or raw
    kind = COMBO if isinstance(kind, list) else kind
    is_forced = bool(options.get("forceInput")) or (not is_required and bool(options.get("defaultInput")))
    listed = raw if isinstance(raw, list) else options.get("options")
    is_widget = isinstance(kind, str) and kind in WIDGET_TYPES
    return Declared(
        name=name,
        type=_socket_type(raw, options),
        options=options,
        choices=listed if isinstance(listed, list) else [],
        kind=kind if is_widget and not is_forced else None,
        is_forced=is_forced,
        is_required=is_required,
    )


def each_declared(inputs: object, *, prefix: str = "") -> Iterator[Declared]:
    """The inputs of `{"required": {…}, "optional": {…}}` as they are written, with `prefix` before their names."""
    for section in ("required", "optional"):
        entries = inputs.get(section) if isinstance(inputs, Mapping) else None
        for name, spec in entries.items() if isinstance(entries, Mapping) else ():
            found = declared(f"{prefix}{name}", spec, is_required=section == "required")
            if found is not None:
                yield found


def _growing(entries: Iterable[Declared]) -> Iterator[Declared]:
    """The inputs that grow, also those of options."""
    for entry in entries:
        if entry.type == AUTOGROW:
            yield entry
        elif entry.kind == DYNAMIC_COMBO:
            for option in entry.choices:
                inputs = option.get("inputs") if isinstance(option, Mapping) else None
                yield from _growing(each_declared(inputs, prefix=f"{entry.name}."))


class Declarations:
    """The classes of an `/object_info`, each read when it is first asked for."""

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        self._object_info = object_info
        self._classes: dict[str, NodeClass | None] = {}

    def get(self, class_type: str) -> NodeClass | None:
        """The class of this very name; None if there is none."""
        if class_type not in self._classes:
            entry = self._object_info.get(class_type)
            self._classes[class_type] = _node_class(class_type, entry) if isinstance(entry, Mapping) else None
        return self._classes[class_type]


def _node_class(name: str, entry: Mapping[str, Any]) -> NodeClass:
    written = {found.name: found for found in _with_added(name, [*each_declared(entry.get("input"))])}
    order = entry.get("input_order")
    ordered: dict[str, Declared] = {}
    for section in ("required", "optional"):
        names = order.get(section) if isinstance(order, Mapping) else None
        for wanted in names if isinstance(names, list) else ():
            if isinstance(wanted, str) and wanted in written:
                ordered[wanted] = written[wanted]
    title, outputs = entry.get("display_name"), entry.get("output")
    return NodeClass(
        title=title if isinstance(title, str) and title else name,
        inputs=list((ordered | written).values()),
        outputs=[_output_type(kind) for kind in outputs] if isinstance(outputs, list) else [],
        as_written=list(written.values()),
        growing={found.name: found for found in _growing(written.values())},
        is_stand_in=is_stand_in(entry),
    )


def _with_added(class_name: str, inputs: list[Declared]) -> list[Declared]:
    """The inputs, and those that the editor adds."""
    added = []
    required = [entry for entry in inputs if entry.is_required]
    if any(entry.type == COMBO and any(map(entry.options.get, _PICTURE_UPLOADS)) for entry in required):
        added.append(_of_editor("upload", "UPLOAD_BUTTON", "IMAGEUPLOAD"))
    if class_name in AUDIO_PLAYERS:
        added.append(_of_editor("audioUI", "AUDIO_PLAYER", "AUDIO_UI"))
    if any(entry.name == "audio" and entry.options.get("audio_upload") is True for entry in required):
        added.append(_of_editor("upload", "UPLOAD_BUTTON", "AUDIOUPLOAD"))
    if class_name in MODEL_VIEWERS:
        added.append(_of_editor("image", "VIEWER", "PREVIEW_3D"))
    return [*inputs, *added]


def _of_editor(name: str, kind: str, socket_type: str) -> Declared:
    return Declared(name=name, type=socket_type, options={}, choices=[], kind=kind, is_forced=False)


def _socket_type(raw: object, options: Mapping[str, Any]) -> str:
    if raw != MATCH_TYPE:
        return type_name(raw)
    template = options.get("template")
    return type_name(template.get("allowed_types") if isinstance(template, Mapping) else None)


def _output_type(raw: object) -> str:
    return "*" if raw == MATCH_TYPE else type_name(raw)
