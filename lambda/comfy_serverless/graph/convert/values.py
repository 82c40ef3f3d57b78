"""Fills in a node: its widgets with the values of the file, its inputs with the links of the file. No IO.

Observed of the official editor 1.49.6: widgets are walked in order, and values in order; each place takes the next value.
When the values run out the rest keep their defaults; what is left over is ignored. No value is checked, rounded or cast.
Inputs are matched to the class by name. The file may have more: one without a widget stays, with its link; one that had
a widget goes, with its link.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.graph.convert.declared import AUTOGROW, COMBO, DYNAMIC_COMBO, Declared, NodeClass, each_declared
from comfy_serverless.graph.convert.model import LinkId, Node, Socket
from comfy_serverless.graph.convert.widgets import NOTHING, Place, chosen_option, first_choice, places

_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_OLD_SAMPLER_PREFIX = "sample_"


@dataclass(slots=True)
class Widget:
    """What a widget of a node holds.

    Attributes:
        is_given: whether the file has the value; else it is the default of the class.
    """

    place: Place
    value: Any
    is_given: bool = True


@dataclass(slots=True)
class Input:
    """An input of a node as the class has it, with the link of the file."""

    name: str
    type: str
    link: LinkId | None = None
    of: Declared | None = None


@dataclass(slots=True)
class Filled:
    """A node with its inputs in the order of the editor, and its widgets by name.

    Attributes:
        surplus: the values of the file that no widget takes.
        dropped: the linked inputs of the file that the class does not have.
    """

    inputs: list[Input]
    outputs: list[str]
    widgets: dict[str, Widget] = field(default_factory=dict)
    surplus: list[Any] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def input_named(self, name: str) -> int | None:
        """The number of the first input of a name; None if there is none."""
        return next((index for index, entry in enumerate(self.inputs) if entry.name == name), None)


def as_saved(node: Node) -> Filled:
    """A node of a class that nobody declares: its inputs and outputs are those of the file."""
    return Filled(
        [Input(entry.name, entry.type, entry.link) for entry in node.inputs], [entry.type for entry in node.outputs]
    )


def filled(node: Node, node_class: NodeClass) -> Filled:
    """A node with what the file has for its class."""
    given = node.values
    source: _List | _ByName
    if isinstance(given, dict):
        source = _ByName(given)
    else:
        source = _List(without_dummies(given or [], node_class))
    grown = _grown_names(node, node_class)
    result = Filled([], node_class.outputs)
    saved: dict[str, Socket] = {}
    for entry in node.inputs:
        saved.setdefault(entry.name, entry)
    taken: set[str] = set()

    def add(name: str, kind: str, of: Declared | None) -> None:
        taken.add(name)
        result.inputs.append(Input(name, kind, saved[name].link if name in saved else None, of))

    for entry in _sockets(node_class.inputs, grown):
        add(entry.name, entry.type, None)
    for entry, place in _each_place(node_class, node_class.inputs, grown, source, result):
        if place is None:
            add(entry.name, entry.type, None)
        elif place.of is not None and (not entry.options.get("socketless") or entry.name in saved):
            add(entry.name, entry.type, entry)
    result.surplus = source.rest()
    if isinstance(source, _ByName):
        _take_named(source.values, node_class, result)
    _add_undeclared(node, node_class, taken, result)
    _repair(node.type, result)
    return result


def without_dummies(values: list[Any], node_class: NodeClass) -> list[Any]:
    """The values without those for inputs that have become sockets.

    Editors before 1.16 kept a value for an input that is forced to be a socket. Whether a file does is told by the
    count alone.
    """
    is_dummy: list[bool] = []
    for entry in node_class.as_written:
        if entry.kind is not None or entry.is_forced:
            is_dummy.append(entry.is_forced)
            if entry.options.get("control_after_generate"):
                is_dummy.append(False)
    if len(is_dummy) != len(values) or not any(is_dummy):
        return values
    return [value for value, dummy in zip(values, is_dummy, strict=True) if not dummy]


class _List:
    """Values by position."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values
        self._next = 0

    def take(self, place: Place) -> Widget:
        if not place.takes or self._next >= len(self._values):
            return Widget(place, place.default, is_given=not place.takes)
        self._next += 1
        return Widget(place, self._values[self._next - 1])

    def rest(self) -> list[Any]:
        return self._values[self._next :]


class _ByName:
    """Values by name, as VideoHelperSuite saves them. The official editor loses them; here each goes to its input."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def take(self, place: Place) -> Widget:
        if place.of is not None and place.name in self.values:
            return Widget(place, self.values[place.name])
        return Widget(place, place.default, is_given=False)

    def rest(self) -> list[Any]:
        return []


def _each_place(
    node_class: NodeClass,
    entries: Iterable[Declared],
    grown: Mapping[str, list[Declared]],
    source: _List | _ByName,
    result: Filled,
) -> Iterator[tuple[Declared, Place | None]]:
    """Each widget's places, filled into `result`; and the sockets of chosen options, whose place is None."""
    for declared in entries:
        for entry in grown.get(declared.name, [declared]):
            if entry.kind is None:
                continue
            for place in places(entry, node_class):
                widget = source.take(place)
                if entry.kind == DYNAMIC_COMBO and widget.value is None:
                    widget.value = first_choice(entry)
                result.widgets.setdefault(place.name, widget)
                yield entry, place
                if entry.kind == DYNAMIC_COMBO and place.of is entry:
                    inside = [*each_declared(chosen_option(entry, widget.value), prefix=f"{entry.name}.")]
                    for socket in _sockets(inside, grown):
                        yield socket, None
                    yield from _each_place(node_class, inside, grown, source, result)


def _sockets(entries: Iterable[Declared], grown: Mapping[str, list[Declared]]) -> Iterator[Declared]:
    for declared in entries:
        for entry in grown.get(declared.name, [] if declared.type == AUTOGROW else [declared]):
            if entry.kind is None:
                yield entry


def _grown_names(node: Node, node_class: NodeClass) -> Mapping[str, list[Declared]]:
    """For each input that grows, the inputs that the file has of it, under their own names; gaps stay."""
    growing = {entry.name: entry for entry in _growing(node_class.inputs)}
    grown: dict[str, list[Declared]] = {}
    for saved in node.inputs if growing else ():
        name = next((name for name in growing if saved.name.startswith(f"{name}.")), None)
        if name is not None and saved.name not in {entry.name for entry in grown.get(name, ())}:
            grown.setdefault(name, []).append(_named_like(growing[name], saved))
    return grown


def _growing(entries: Iterable[Declared]) -> Iterator[Declared]:
    for entry in entries:
        if entry.type == AUTOGROW:
            yield entry
        elif entry.kind == DYNAMIC_COMBO:
            for option in entry.choices:
                inputs = option.get("inputs") if isinstance(option, Mapping) else None
                yield from _growing(each_declared(inputs, prefix=f"{entry.name}."))


def _named_like(growing: Declared, saved: Socket) -> Declared:
    template = growing.options.get("template")
    inner = next(each_declared(template.get("input") if isinstance(template, Mapping) else None), None)
    if inner is None:
        return Declared(saved.name, saved.type, {}, [], None, is_forced=False)
    return Declared(saved.name, inner.type, inner.options, inner.choices, inner.kind, inner.is_forced)


def _take_named(values: Mapping[str, Any], node_class: NodeClass, result: Filled) -> None:
    """Take from an object what is declared without being a widget of the editor's own, and what `formats` describe."""
    for entry in node_class.inputs:
        if entry.name in values and entry.name not in result.widgets and not entry.is_forced:
            result.widgets[entry.name] = Widget(Place(entry.name, of=entry), values[entry.name])
        formats = entry.options.get("formats")
        chosen = result.widgets[entry.name].value if entry.name in result.widgets else None
        described = formats.get(chosen) if isinstance(formats, Mapping) and isinstance(chosen, str) else None
        for spec in described if isinstance(described, list) else ():
            if isinstance(spec, list) and len(spec) > 1 and isinstance(spec[0], str) and spec[0] not in result.widgets:
                result.widgets[spec[0]] = _of_format(spec, values)


def _of_format(spec: list[Any], values: Mapping[str, Any]) -> Widget:
    name, kind = spec[0], spec[1]
    if name in values:
        return Widget(Place(name), values[name])
    options = spec[2] if len(spec) > 2 and isinstance(spec[2], Mapping) else {}
    default = options.get("default", kind[0] if isinstance(kind, list) and kind else NOTHING)
    return Widget(Place(name), default, is_given=False)


def _add_undeclared(node: Node, node_class: NodeClass, taken: set[str], result: Filled) -> None:
    """Add the inputs of the file that the class does not declare, unless a widget stood behind them."""
    dynamic = tuple(f"{entry.name}." for entry in node_class.inputs if entry.kind == DYNAMIC_COMBO)
    for saved in node.inputs:
        if saved.name in taken:
            continue
        if saved.of_widget or (dynamic and saved.name.startswith(dynamic)):
            if saved.link is not None:
                result.dropped.append(saved.name)
        else:
            result.inputs.append(Input(saved.name, saved.type, saved.link))


def _repair(class_type: str, result: Filled) -> None:
    """The only three repairs that the official editor makes."""
    for name, widget in result.widgets.items():
        entry = widget.place.of
        if entry is None:
            continue
        if entry.kind == COMBO and widget.value is None and (first := first_choice(entry)) is not NOTHING:
            widget.value, widget.is_given = first, False
        elif entry.kind == "STRING" and widget.value is None and entry.options.get("multiline"):
            widget.value = ""
        elif name == "sampler_name" and class_type in _SAMPLERS and isinstance(widget.value, str):
            widget.value = widget.value.removeprefix(_OLD_SAMPLER_PREFIX)
