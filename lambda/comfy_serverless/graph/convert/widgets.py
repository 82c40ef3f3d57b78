"""The widgets of a class: which places they take among the values of a file, and what they hold without one. No IO.

The values of a file are a plain list. Position alone decides what a value is for: so each widget has one or more
`Place`s, in order. Observed of the official editor 1.49.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from comfy_serverless.graph.convert.declared import COMBO, DYNAMIC_COMBO, Declared, NodeClass, each_declared


class Nothing(Enum):
    """The value of a widget that has none; such an input is left out of the prompt."""

    NOTHING = "nothing"


NOTHING = Nothing.NOTHING

#: The buttons of a viewer of models, with what each holds.
_MODEL_BUTTONS = (
    ("upload 3d model", "upload3dmodel"),
    ("upload extra resources", "uploadExtraResources"),
    ("clear", "clear"),
)
_STRAIGHT_LINE: Mapping[str, Any] = {"points": [[0, 0], [1, 1]], "interpolation": "monotone_cubic"}
_FRAME: Mapping[str, Any] = {"x": 0, "y": 0, "width": 512, "height": 512}


@dataclass(frozen=True, slots=True)
class Place:
    """One value of a widget, or of what the editor sets beside it.

    Attributes:
        default: what it holds if the file has no value for it.
        takes: whether it takes a value of the file.
        is_sent: whether it is in the prompt.
        of: the input that it is the value of; None for controls, buttons and the like.
    """

    name: str
    default: Any = None
    takes: bool = True
    is_sent: bool = True
    of: Declared | None = None


def places(entry: Declared, node_class: NodeClass) -> tuple[Place, ...]:
    """The places of an input's widget, its own first unless buttons stand before it."""
    found = node_class.places.get(entry)
    if found is None:
        found = node_class.places[entry] = (*_places(entry, node_class),)
    return found


def _places(entry: Declared, node_class: NodeClass) -> Iterator[Place]:
    name = entry.name
    match entry.kind:
        case "UPLOAD_BUTTON":
            yield Place(name, "image", is_sent=False, of=entry)
        case "AUDIO_PLAYER":
            yield Place(name, "", takes=False, is_sent=False, of=entry)
        case "IMAGECOMPARE":
            yield Place(name, ["", ""], takes=False, of=entry)
        case "BOUNDING_BOX":
            yield Place(name, _default(entry), of=entry)
            for side in ("x", "y", "width", "height"):
                yield Place(side, is_sent=False)
        case "LOAD_3D":
            for button, held in _MODEL_BUTTONS if node_class.has_model_file else ():
                yield Place(button, held)
            yield Place(name, _default(entry), of=entry)
        case _:
            yield Place(name, _default(entry), of=entry)
            yield from _beside(entry)


def _beside(entry: Declared) -> Iterator[Place]:
    """What stands after a widget: its control, the filter of a combo, the button of a remote one."""
    if entry.kind in ("INT", "FLOAT", COMBO) and entry.has_control:
        yield Place("control_after_generate", is_sent=False)
        if entry.kind == COMBO and not entry.options.get("multi_select"):
            yield Place("control_filter_list", is_sent=False)
    remote = entry.options.get("remote")
    if entry.kind == COMBO and isinstance(remote, Mapping):
        yield Place("refresh by itself", is_sent=False)
        if remote.get("refresh_button"):
            yield Place("refresh", "refresh")


def chosen_option(entry: Declared, value: object) -> Mapping[str, Any] | None:
    """The inputs of the option of a dynamic combo that a value chooses; None if it offers no such option."""
    for option in entry.choices:
        if isinstance(option, Mapping) and option.get("key") == value:
            inputs = option.get("inputs")
            return inputs if isinstance(inputs, Mapping) else {}
    return None


def left_of_first(entry: Declared, node_class: NodeClass) -> Iterator[Place]:
    """The places of the controls of a dynamic combo's first option, which the editor never takes away.

    A new node has that option. When another one is chosen, or the same again, its inputs are made anew, and the
    controls that stood beside them stay, after all inputs of the option.
    """
    first = first_choice(entry)
    for inner in each_declared(chosen_option(entry, first), prefix=f"{entry.name}."):
        if inner.kind in ("INT", "FLOAT", COMBO):
            yield from (place for place in places(inner, node_class) if place.of is None and not place.is_sent)


def first_choice(entry: Declared) -> Any:  # noqa: ANN401
    """What a combo offers first, or NOTHING."""
    if not entry.choices:
        return NOTHING
    first = entry.choices[0]
    return first.get("key", NOTHING) if entry.kind == DYNAMIC_COMBO and isinstance(first, Mapping) else first


def _default(entry: Declared) -> Any:  # noqa: ANN401
    return _DEFAULTS.get(entry.kind or "", _given_or(NOTHING))(entry)


def _given_or(otherwise: object) -> Callable[[Declared], Any]:
    def value(entry: Declared) -> object:
        given = entry.options.get("default")
        return otherwise if given is None else given

    return value


def _of_combo(entry: Declared) -> object:
    if entry.options.get("multi_select"):
        return _given_or([])(entry)
    if entry.options.get("remote"):
        return "Loading..."
    return entry.options.get("default") or first_choice(entry)


_DEFAULTS: Mapping[str, Callable[[Declared], Any]] = {
    "INT": _given_or(0),
    "FLOAT": _given_or(0),
    "BOOLEAN": _given_or(otherwise=False),
    "STRING": _given_or(""),
    COMBO: _of_combo,
    DYNAMIC_COMBO: first_choice,
    "COLOR": _given_or("#000000"),
    "BOUNDING_BOX": _given_or(_FRAME),
    "CURVE": _given_or(_STRAIGHT_LINE),
    "COLORS": _given_or([]),
    "BOUNDING_BOXES": _given_or([]),
    "PAINTER": lambda _: "",
    "COMPOSITOR": _given_or({"version": 1, "layers": []}),
    "MARKDOWN": _given_or(""),
    "TEXTAREA": _given_or(""),
    "LOAD_3D": lambda _: "",
    "VIEWER": lambda _: "",
}
