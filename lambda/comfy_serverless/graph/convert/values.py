"""Fills in a node: its widgets with the values of the file, its inputs with the links of the file. No IO.

Observed of the official editor 1.49.6: widgets are walked in order, and values in order; each place takes the next
value. When the values run out the rest keep their defaults; what is left over is ignored. No value is checked, rounded
or cast. Inputs are matched to the class by name. The file may have more: one without a widget stays, with its link; one
that had a widget goes, with its link.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfy_serverless.graph.convert.declared import COMBO, DYNAMIC_COMBO, Declared, NodeClass, each_declared
from comfy_serverless.graph.convert.growing import grown_inputs, sockets
from comfy_serverless.graph.convert.model import LinkId, Node, Socket
from comfy_serverless.graph.convert.numbers import as_javascript
from comfy_serverless.graph.convert.told import CONTROL, is_editors_own, told_control, told_values
from comfy_serverless.graph.convert.widgets import NOTHING, Place, chosen_option, first_choice, left_of_first, places
from comfy_serverless.graph.nodes import SAMPLERS

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


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a node as the class has it, with the link of the file.

    Attributes:
        of: its declaration; None if it is one of the file only, or of a host.
    """

    name: str
    type: str
    link: LinkId | None = None
    of: Declared | None = None

    @property
    def is_widget(self) -> bool:
        """Whether it has a value without a link."""
        return self.of is not None and self.of.kind is not None


@dataclass(slots=True)
class Filled:
    """A node with its inputs in the order of the editor, and its widgets by name.

    Attributes:
        surplus: the values of the file that no widget takes.
        unplaced: the names of values of the file that no widget takes, where the file names them.
        dropped: the linked inputs of the file that the class does not have.
        is_shifted: whether the file names its values otherwise: it was saved with another version of the class.
    """

    inputs: list[Input]
    outputs: list[str]
    widgets: dict[str, Widget] = field(default_factory=dict)
    surplus: list[Any] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    is_shifted: bool = False

    _by_link: dict[LinkId, int] | None = None
    _by_name: dict[str, int] | None = None

    def slot_named(self, name: str) -> int | None:
        """The number of the first input of a name; None if there is none."""
        if self._by_name is None:
            self._by_name = {entry.name: slot for slot, entry in reversed([*enumerate(self.inputs)])}
        return self._by_name.get(name)

    def slot_of(self, link: LinkId) -> int | None:
        """The number of the first input that names a link; None if none does."""
        if self._by_link is None:
            slots = reversed([*enumerate(self.inputs)])
            self._by_link = {entry.link: slot for slot, entry in slots if entry.link is not None}
        return self._by_link.get(link)

    def connect(self, slot: int, link: LinkId) -> None:
        """Connect an input."""
        self.inputs[slot] = replace(self.inputs[slot], link=link)
        self._by_link = None

    def add(self, entry: Input) -> None:
        """Add an input after the others."""
        self.inputs.append(entry)
        self._by_link = self._by_name = None


def as_saved(node: Node) -> Filled:
    """A node of a class that nobody declares: its inputs and outputs are those of the file."""
    return Filled(
        [Input(entry.name, entry.type, entry.link) for entry in node.inputs], [entry.type for entry in node.outputs]
    )


def filled(node: Node, node_class: NodeClass) -> Filled:
    """A node with what the file has for its class.

    Position decides which value is whose, as in the editor, which reads no names by default: a file that names its
    values otherwise was saved with another version of the class, and means something else there, too.
    """
    if node_class.is_stand_in:
        return _filled(node, node_class, _ByName(told_values(node) or {}))
    if isinstance(node.values, dict):
        return _filled(node, node_class, _ByName(node.values))
    source = _List(without_dummies(node.values or [], node_class), node.names)
    result = _filled(node, node_class, source)
    result.is_shifted = source.is_shifted
    return result


def _filled(node: Node, node_class: NodeClass, source: _List | _ByName) -> Filled:
    grown = grown_inputs(node.inputs, node_class)
    result = Filled([], node_class.outputs)
    saved: dict[str, Socket] = {}
    for socket in node.inputs:
        saved[socket.name] = socket  # of two with one name the last counts
    taken: set[str] = set()

    def add(entry: Declared) -> None:
        taken.add(entry.name)
        link = saved[entry.name].link if entry.name in saved else None
        if link is not None:
            result.inputs.append(Input(entry.name, entry.type, link, entry))
            return
        free = node_class.free.get(entry)  # most inputs are: thousands of nodes share one
        if free is None:
            free = node_class.free[entry] = Input(entry.name, entry.type, None, entry)
        result.inputs.append(free)

    for entry in sockets(node_class.inputs, grown):
        add(entry)
    for entry, place in _each_place(node_class, node_class.inputs, grown, source, result):
        if place is None or (place.of is not None and (not entry.options.get("socketless") or entry.name in saved)):
            add(entry)
    result.surplus = source.rest()
    if isinstance(source, _ByName):
        if (control := told_control(node)) is not None:
            result.widgets[CONTROL] = Widget(Place(CONTROL, is_sent=False), control)
        _take_named(source.values, node_class, result)
        declared = {entry.name for entry in node_class.inputs}
        result.unplaced = unplaced(source.values, result.widgets.keys() | declared)
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
    """Values by position.

    Attributes:
        is_shifted: whether a value that was taken has the name of another input.
    """

    def __init__(self, values: list[Any], names: tuple[str, ...] | None = None) -> None:
        self._values = values
        self._names = names if names is not None and len(names) == len(values) else None
        self._next = 0
        self.is_shifted = False

    def take(self, place: Place) -> Widget:
        if not place.takes or self._next >= len(self._values):
            return Widget(place, place.default, is_given=not place.takes)
        if self._names is not None and place.of is not None and place.is_sent:
            # One that has another name only was renamed since, and stands where it stood.
            self.is_shifted |= self._names[self._next] != place.name and place.name in self._names
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
                result.widgets.setdefault(place.name, widget)
                yield entry, place
                if entry.kind == DYNAMIC_COMBO and place.of is entry:
                    yield from _each_of_option(node_class, entry, widget, grown, source, result)
                    for left in left_of_first(entry, node_class):
                        source.take(left)


def _each_of_option(
    node_class: NodeClass,
    entry: Declared,
    widget: Widget,
    grown: Mapping[str, list[Declared]],
    source: _List | _ByName,
    result: Filled,
) -> Iterator[tuple[Declared, Place | None]]:
    """The places and sockets of the option that a dynamic combo has chosen.

    null chooses the first one, but too late: its inputs take neither values nor links.
    """
    is_null = widget.value is None
    if is_null:
        widget.value = first_choice(entry)
    inside = [*each_declared(chosen_option(entry, widget.value), prefix=f"{entry.name}.")]
    if is_null:
        for _ in _each_place(node_class, inside, {}, _List([]), result):
            pass
        return
    for socket in sockets(inside, grown):
        yield socket, None
    yield from _each_place(node_class, inside, grown, source, result)


def unplaced(values: Mapping[str, Any], placed: Container[str]) -> list[str]:
    """The names of values that are somebody's, and have no place."""
    return [
        name
        for name, value in values.items()
        if value not in (None, "") and name not in placed and not is_editors_own(name)
    ]


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
    """Add the inputs of the file that the class does not declare, unless a widget stood behind them.

    What stands under the name of a dynamic combo belongs to its options: with a value in the file, only inputs of the
    chosen option stay.
    """
    dynamic = tuple(
        f"{entry.name}."
        for entry in node_class.inputs
        if entry.kind == DYNAMIC_COMBO and result.widgets[entry.name].is_given
    )
    for saved in node.inputs:
        if saved.name in taken:
            continue
        if saved.of_widget or (dynamic and saved.name.startswith(dynamic)):
            if saved.link is not None:
                result.dropped.append(saved.name)
        else:
            result.inputs.append(Input(saved.name, saved.type, saved.link))


def _repair(class_type: str, result: Filled) -> None:
    """The only repairs that the official editor makes."""
    for name, widget in result.widgets.items():
        entry = widget.place.of
        if entry is None:
            continue
        if entry.kind == COMBO and widget.value is None and entry.options.get("multi_select"):
            widget.value = ""
        elif entry.kind == COMBO and widget.value is None and (first := first_choice(entry)) is not NOTHING:
            widget.value, widget.is_given = first, False
        elif entry.kind == "MARKDOWN" and widget.is_given:
            widget.value = as_javascript(widget.value)
        elif entry.kind == "STRING" and widget.value is None and entry.options.get("multiline"):
            widget.value = ""
        elif name == "sampler_name" and class_type in SAMPLERS and isinstance(widget.value, str):
            widget.value = widget.value.removeprefix(_OLD_SAMPLER_PREFIX)
