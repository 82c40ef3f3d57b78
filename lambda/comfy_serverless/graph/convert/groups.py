"""Group nodes: the older way to put nodes together. Each is expanded in its place. No IO.

A node of type `workflow>NAME` (older: `workflow/NAME`) stands for the nodes of `extra.groupNodes[NAME]`; node number k
of instance 37 gets the id `37:k`. The official editor 1.49.6 puts the values into the wrong widgets here: the rules are
those that give the prompts which older editors wrote into the same pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_serverless.graph.convert.findings import Findings, named, shown
from comfy_serverless.graph.convert.limits import MOST_EXPANDED
from comfy_serverless.graph.convert.model import Graph, Link, LinkId, Node, Socket
from comfy_serverless.graph.convert.reading import MOST_LINKS, MOST_PORTS, read_node
from comfy_serverless.graph.convert.scene import Scene
from comfy_serverless.graph.convert.values import filled
from comfy_serverless.graph.convert.virtual import PRIMITIVE, VIRTUAL, group_name
from comfy_serverless.graph.nodes import NOTE
from comfy_serverless.graph.workflow import count_values

#: Groups within groups, and the parts of all groups together, once for each instance.
_MOST_LEVELS, _MOST_PARTS = 10, 1_000_000
_WITH_CONTROL = ("INT", "FLOAT", "COMBO")


def expand_groups(scene: Scene) -> None:
    """Replace each active group node by the nodes of its definition. One that is muted or bypassed stays as it is."""
    if not scene.workflow.groups:
        return
    left, sizes = _MOST_PARTS, _Sizes()
    for graph in scene.graphs():
        pending = [(node, _MOST_LEVELS) for node in graph.nodes.values()]
        ways = _Ways(graph)
        while pending:
            node, levels = pending.pop()
            name = group_name(node.type)
            raw = None if name is None or node.is_out else scene.workflow.groups.get(name)
            if not isinstance(raw, Mapping):
                continue
            left -= sizes.of(str(name), raw)
            if not levels or left < 0 or len(graph.nodes) > MOST_EXPANDED or len(graph.links) > MOST_LINKS:
                its = named(node.id, node.type)
                scene.findings.refuse("too_large", f"{its}: the groups hold too much, all instances together")
                return
            group = _Group(node, raw, scene.findings)
            _Expansion(scene, ways, node, group).expand()
            pending += [(inner, levels - 1) for inner in group.nodes]


class _Sizes:
    """How many parts groups have: each instance of one goes through all of them."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, name: str, raw: object) -> int:
        """The number of values in a definition, at any depth."""
        if name not in self._known:
            self._known[name] = count_values(raw)
        return self._known[name]


class _Ways:
    """A graph, and its links by the nodes that they come from."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._leaving: dict[str, list[Link]] = {}
        for link in graph.links.values():
            self._leaving.setdefault(link.origin, []).append(link)

    def add(self, link: Link) -> None:
        """Add a link to the graph."""
        self.graph.links[link.id] = link
        self._leaving.setdefault(link.origin, []).append(link)

    def lead_out(self, node_id: str, outputs: list[tuple[str, int]]) -> None:
        """Let the links from the outputs of a node, by number, come from these nodes and outputs."""
        for link in self._leaving.pop(node_id, []):
            if link.origin_slot < len(outputs):
                link.origin, link.origin_slot = outputs[link.origin_slot]
                self._leaving.setdefault(link.origin, []).append(link)


@dataclass(frozen=True, slots=True)
class _InnerLink:
    origin: int | None
    origin_slot: int
    target: int
    target_slot: int


class _Group:
    """A group's definition, for one instance: its nodes with their ids, and the links among them."""

    def __init__(self, instance: Node, raw: Mapping[str, Any], findings: Findings) -> None:
        self.nodes: list[Node] = []
        for at, entry in enumerate(_list(raw.get("nodes"))):
            node = read_node(entry, f"{instance.id}:{at}", findings)
            self.nodes.append(node or Node(f"{instance.id}:{at}", NOTE))
        self.links = [link for entry in _list(raw.get("links")) if (link := self._link(entry)) is not None]
        self.external = {
            (number, entry[1])
            for entry in _list(raw.get("external"))
            if isinstance(entry, list)
            and len(entry) > 1
            and isinstance(number := _number_of(entry[0]), int)
            and isinstance(entry[1], int)
        }
        self._config = raw.get("config")

    def linked_inside(self) -> set[tuple[int, int]]:
        """The inputs that get a link from inside, by node and slot."""
        return {(link.target, link.target_slot) for link in self.links if link.origin is not None}

    def is_visible(self, number: int, side: str, name: object) -> bool | None:
        """What the configuration says of an input or an output; None if nothing."""
        of_node = self._config.get(str(number)) if isinstance(self._config, Mapping) else None
        of_side = of_node.get(side) if isinstance(of_node, Mapping) else None
        entry = of_side.get(str(name)) if isinstance(of_side, Mapping) else None
        visible = entry.get("visible") if isinstance(entry, Mapping) else None
        return visible if isinstance(visible, bool) else None

    def _link(self, entry: object) -> _InnerLink | None:
        if not isinstance(entry, list) or len(entry) < 4 or not isinstance(entry[2], int):
            return None
        origin, origin_slot, target, target_slot = entry[:4]
        slots_fit = all(isinstance(slot, int) and 0 <= slot <= MOST_PORTS for slot in (origin_slot, target_slot))
        if not slots_fit or not 0 <= target < len(self.nodes):
            return None
        inside = isinstance(origin, int) and 0 <= origin < len(self.nodes)
        return _InnerLink(origin if inside else None, origin_slot, target, target_slot)


class _Expansion:
    """The expansion of one instance in its graph."""

    def __init__(self, scene: Scene, ways: _Ways, instance: Node, group: _Group) -> None:
        self._scene = scene
        self._ways = ways
        self._graph = ways.graph
        self._instance = instance
        self._group = group
        self._linked = {(number, self._saved_name(number, slot)) for number, slot in group.linked_inside()}
        self._fed = {number for number, _ in group.linked_inside()}
        self._feeding = {link.origin for link in group.links}

    def expand(self) -> None:
        """Put the nodes of the group into the graph, and take the instance out."""
        inputs = self._offered()
        converted = {(number, name) for number, name, socket in inputs if not socket.of_widget}
        self._hand_out_values(self._linked | converted)
        for node in self._group.nodes:
            for socket in node.inputs:
                socket.link = None
            for outlet in node.outputs:
                outlet.links = []
        for number, name, socket in inputs:
            self._connect(number, name, socket.link)
        for at, inner in enumerate(self._group.links):
            if inner.origin is not None:
                self._link_inside(f"{self._instance.id}: {at}", inner, inner.origin)
        self._lead_out()
        del self._graph.nodes[self._instance.id]
        for node in self._group.nodes:
            self._graph.nodes[node.id] = node

    def _offered(self) -> list[tuple[int, str, Socket]]:
        """The inputs of the instance, each with the inner node and input that it stands for."""
        sockets = [*self._inner_inputs(of_widgets=False)]
        given = self._instance.inputs
        found = [(number, name, socket) for (number, name), socket in zip(sockets, given, strict=False)]
        rest: dict[str, list[tuple[int, str]]] = {}
        for each in reversed([*self._inner_inputs(of_widgets=True)]):
            rest.setdefault(each[1], []).append(each)
        for socket in given[len(sockets) :]:
            match = next((name for name in _meanings(socket.name) if rest.get(name)), None)
            if match is not None:
                found.append((*rest[match].pop(), socket))
            elif socket.link is not None:
                its = named(self._instance.id, self._instance.type)
                self._scene.findings.refuse(
                    "broken_link",
                    f"{its}: its input {shown(socket.name)!r} is linked, but the group has no such input",
                    node_id=self._instance.id,
                    class_type=self._instance.type,
                    input=socket.name,
                )
        return found

    def _inner_inputs(self, *, of_widgets: bool) -> Iterator[tuple[int, str]]:
        """The inner inputs that nothing inside is linked to, in order: sockets, or widgets."""
        for number, node in enumerate(self._group.nodes):
            node_class = None if node.type in VIRTUAL else self._scene.classes.get(node.type)
            if node_class is None:
                names = [socket.name for socket in node.inputs if socket.of_widget is of_widgets]
                if node.type in VIRTUAL and number in self._fed:
                    names = []
            else:
                entries = filled(node, node_class).inputs
                names = [entry.name for entry in entries if entry.is_widget is of_widgets]
            for name in names:
                is_hidden = self._group.is_visible(number, "input", name) is False
                if (number, name) not in self._linked and not is_hidden:
                    yield number, name

    def _hand_out_values(self, converted: set[tuple[int, str]]) -> None:
        """Give the instance's values to the inner nodes: each widget takes the next one, except what is converted."""
        its = named(self._instance.id, self._instance.type)
        if isinstance(self._instance.values, dict):
            self._scene.findings.warn(f"{its}: its values have names, where a group's are a list: they are left out")
        values = self._instance.values if isinstance(self._instance.values, list) else []
        pending = iter(values)
        wanted = 0
        for number, node in enumerate(self._group.nodes):
            own = node.values if isinstance(node.values, list) else []
            slots = [*self._slots(number, own, converted)]
            wanted += sum(not is_converted for _, is_converted in slots)
            node.values = [held if is_converted else next(pending, held) for held, is_converted in slots]
        if len(values) < wanted:
            self._scene.findings.warn(
                f"{its}: it has {len(values)} of {wanted} values; the others are those of the group's definition"
            )
        surplus = len([*pending])
        if surplus:
            self._scene.findings.warn(f"{its}: the last values ({surplus}) of the file belong to no widget: left out")

    def _slots(self, number: int, own: list[Any], converted: set[tuple[int, str]]) -> Iterator[tuple[Any, bool]]:
        """What each place for a value of an inner node holds, and whether the instance has no value for it."""
        node = self._group.nodes[number]
        if node.type == PRIMITIVE:
            if number in self._feeding:
                kind = node.outputs[0].type if node.outputs else "*"
                for at in range(2 if kind in _WITH_CONTROL else 1):
                    yield own[at] if at < len(own) else None, False
            return
        node_class = None if node.type in VIRTUAL else self._scene.classes.get(node.type)
        if node_class is None:
            is_group = group_name(node.type) is not None
            yield from ((value, not is_group) for value in own)
            return
        is_converted = False
        for widget in filled(node, node_class).widgets.values():
            if widget.place.of is not None:
                is_converted = (number, widget.place.name) in converted
            if widget.place.takes:
                yield widget.value, is_converted

    def _connect(self, number: int, name: str, link_id: LinkId | None) -> None:
        node = self._group.nodes[number]
        socket = next((socket for socket in node.inputs if socket.name == name), None)
        if socket is None:
            socket = Socket(name, "*")
            node.inputs.append(socket)
        socket.link = link_id
        if link_id is not None and link_id in self._graph.links:
            self._graph.links[link_id].target = node.id

    def _link_inside(self, link_id: str, inner: _InnerLink, origin: int) -> None:
        target = self._group.nodes[inner.target]
        if inner.target_slot >= len(target.inputs):
            its = named(target.id, target.type)
            self._scene.findings.warn(
                f"{its}: a link of its group ends at input {inner.target_slot}, which it does not have: it is left out"
            )
            return
        socket = target.inputs[inner.target_slot]
        socket.link = link_id
        source = self._group.nodes[origin]
        self._ways.add(Link(link_id, source.id, inner.origin_slot, target.id, inner.target_slot, socket.type))
        if inner.origin_slot < len(source.outputs):
            source.outputs[inner.origin_slot].links.append(link_id)

    def _lead_out(self) -> None:
        """Let links from the instance's outputs come from the inner nodes."""
        outputs = [(self._group.nodes[number].id, slot) for number, slot in self._outputs()]
        self._ways.lead_out(self._instance.id, outputs)

    def _outputs(self) -> Iterator[tuple[int, int]]:
        """The inner outputs that the instance has, in order: those that lead nowhere inside, or that are led out."""
        used = {(link.origin, link.origin_slot) for link in self._group.links}
        for number, node in enumerate(self._group.nodes):
            node_class = None if node.type in VIRTUAL else self._scene.classes.get(node.type)
            count = len(node.outputs) if node_class is None else len(node_class.outputs)
            for slot in range(count):
                visible = self._group.is_visible(number, "output", slot)
                is_out = (number, slot) not in used or (number, slot) in self._group.external
                if is_out if visible is None else visible:
                    yield number, slot

    def _saved_name(self, number: int, slot: int) -> str:
        inputs = self._group.nodes[number].inputs
        return inputs[slot].name if 0 <= slot < len(inputs) else ""


def _meanings(shown_name: str) -> Iterator[str]:
    """The names of inner inputs that one of an instance may be called after: its own, or without a title before it."""
    yield shown_name
    for at, character in enumerate(shown_name):
        if character == " ":
            yield shown_name[at + 1 :]


def _number_of(entry: object) -> int | None:
    index = entry.get("index") if isinstance(entry, Mapping) else entry
    return index if isinstance(index, int) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
