"""Subgraphs: which inputs of a host are widgets inside, and the value that each host has for them. No IO.

Observed of the official editor 1.49.6. An input of a subgraph is promoted if one of its links leads to a widget inside,
or to a promoted input of a host inside. Each host has its own value: first that of the inner widget, then its own
`widgets_values`, one for each promoted input. null is a value, too.
"""

from __future__ import annotations

from typing import Any

from comfy_serverless.graph.convert.declared import COMBO
from comfy_serverless.graph.convert.load_order import hosts_without_values
from comfy_serverless.graph.convert.model import Definition, Node
from comfy_serverless.graph.convert.scene import Scene
from comfy_serverless.graph.convert.widgets import NOTHING, first_choice


class Hosts:
    """The promoted inputs of all definitions, and the values of all hosts.

    Attributes:
        replaced: the inputs that stand for primitives inside, by the identity of the primitive.
        held_by_primitives: of these primitives those whose value counts for every host.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.replaced: dict[int, int] = {}
        self.held_by_primitives: set[int] = set()
        self._targets: dict[str, list[tuple[Node, int] | None]] = {}
        self._own: dict[int, dict[int, Any]] = {}
        self._placed: dict[int, set[int]] = {}
        self._without_values = hosts_without_values(scene.workflow)
        self._hosts: dict[str, list[Node]] = {}
        self._slots_of_widgets: dict[str, dict[str, int]] = {}
        self._slots_of_ports: dict[str, tuple[int, dict[str, int]]] = {}
        for graph in scene.graphs():
            for node in graph.nodes.values():
                definition = scene.definition(node)
                if definition is not None:
                    own = self._own[id(node)] = self._values(node, definition)
                    self._placed[id(node)] = {*range(len(own))}
                    self._hosts.setdefault(definition.id, []).append(node)

    def is_promoted(self, host: Node, slot: int) -> bool:
        """Whether an input of a host has a value of the host's own."""
        definition = self._scene.definition(host)
        return definition is not None and self.target(definition, slot) is not None

    def value(self, host: Node, slot: int) -> Any:  # noqa: ANN401
        """The value that a host has for a promoted input."""
        own = self._own[id(host)]
        definition = self._scene.definition(host)
        target = None if definition is None else self.target(definition, slot)
        if slot in own:
            return self._first_if_null(own[slot], target)
        return NOTHING if target is None else self.held(*target)

    def _first_if_null(self, value: Any, target: tuple[Node, int] | None) -> Any:  # noqa: ANN401
        """A value, or what a combo offers first if that is null."""
        while value is None and target is not None:
            node, slot = target
            entry, definition = self._scene.filled(node).inputs[slot].of, self._scene.definition(node)
            if definition is None:
                first = NOTHING if entry is None or entry.kind != COMBO else first_choice(entry)
                return value if first is NOTHING else first
            target = self.target(definition, slot)
        return value

    def held(self, node: Node, slot: int) -> Any:  # noqa: ANN401
        """What an input of a node holds without a link."""
        if self._scene.definition(node) is not None:
            return self.value(node, slot)
        filled = self._scene.filled(node)
        widget = filled.widgets.get(filled.inputs[slot].name)
        return NOTHING if widget is None else widget.value

    def held_by_name(self, node: Node, name: str) -> Any:  # noqa: ANN401
        """What a widget of a node holds, or a promoted one of a host; NOTHING if it has none of that name."""
        definition = self._scene.definition(node)
        if definition is None:
            widget = self._scene.filled(node).widgets.get(name)
            return NOTHING if widget is None else widget.value
        slot = self.slot_of_port(definition, name)
        return NOTHING if slot is None or not self.is_promoted(node, slot) else self.value(node, slot)

    def set(self, host: Node, slot: int, value: object) -> None:
        """Give a host its own value."""
        self._own[id(host)][slot] = value

    def place(self, host: Node, number: int) -> None:
        """Note that an input takes value number `number` of a host, or that it is no input's."""
        self._placed[id(host)].add(number)

    def loses_values(self, host: Node) -> bool:
        """Whether the editor, when it loads the file, loses the values that a host has of its own."""
        return id(host) in self._without_values

    def is_placed(self, host: Node, number: int) -> bool:
        """Whether value number `number` of a host goes to an input, or is none of an input's."""
        return number in self._placed[id(host)]

    def target(self, definition: Definition, slot: int) -> tuple[Node, int] | None:
        """The inner node and input that a promoted input stands for; None if the input is not promoted."""
        targets = self._targets.get(definition.id)
        if targets is None:
            self._targets[definition.id] = []  # one that contains itself: nothing is promoted there
            targets = self._targets[definition.id] = [
                self._target(definition, number) for number in range(len(definition.inputs))
            ]
        return targets[slot] if slot < len(targets) else None

    def slot_of_widget(self, definition: Definition, name: str) -> int | None:
        """The first promoted input whose widget inside, at any depth, has a name; None if there is none."""
        slots = self._slots_of_widgets.get(definition.id)
        if slots is None:
            slots = self._slots_of_widgets[definition.id] = {}
            for slot in range(len(definition.inputs)):
                target = self.target(definition, slot)
                if target is not None:
                    slots.setdefault(self._widget_name(*target), slot)
        return slots.get(name)

    def slot_of_port(self, definition: Definition, name: object) -> int | None:
        """The first input of a subgraph that has a name; None if none has."""
        seen, slots = self._slots_of_ports.get(definition.id, (0, {}))
        for slot in range(seen, len(definition.inputs)):  # those that are new since
            slots.setdefault(definition.inputs[slot].name, slot)
        self._slots_of_ports[definition.id] = len(definition.inputs), slots
        return slots.get(name) if isinstance(name, str) else None

    def add_target(self, definition: Definition, node: Node, number: int) -> None:
        """Note what the last input of a definition, which is new and promoted, stands for."""
        slot = len(definition.inputs) - 1
        self.target(definition, 0)
        self._targets[definition.id] = [*self._targets[definition.id][:slot], (node, number)]
        if definition.id in self._slots_of_widgets:
            self._slots_of_widgets[definition.id].setdefault(self._widget_name(node, number), slot)

    def _widget_name(self, node: Node, number: int) -> str:
        """The name of the widget that an inner input stands for in the end."""
        target: tuple[Node, int] | None = (node, number)
        while target is not None:
            node, number = target
            definition = self._scene.definition(node)
            target = None if definition is None else self.target(definition, number)
        return self._scene.filled(node).inputs[number].name

    def of(self, definition: Definition) -> list[Node]:
        """The hosts of a definition."""
        return self._hosts.get(definition.id, [])

    def _target(self, definition: Definition, slot: int) -> tuple[Node, int] | None:
        for link_id in definition.inputs[slot].links:
            link = definition.links.get(link_id)
            node = None if link is None else definition.nodes.get(link.target)
            if node is None:
                continue
            filled = self._scene.filled(node)
            number = filled.slot_of(link_id)
            if number is None:
                continue
            inner = self._scene.definition(node)
            if filled.inputs[number].is_widget if inner is None else self.target(inner, number) is not None:
                return node, number
        return None

    def _values(self, host: Node, definition: Definition) -> dict[int, Any]:
        values = host.values or []
        if self.loses_values(host):
            return {}
        promoted = [slot for slot in range(len(definition.inputs)) if self.target(definition, slot) is not None]
        if isinstance(values, dict):
            names = {slot: definition.inputs[slot].name for slot in promoted}
            return {slot: values[name] for slot, name in names.items() if name in values}
        return dict(zip(promoted, values, strict=False))
