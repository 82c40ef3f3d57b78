"""Where what people see in the editor stands in the graph: widgets of nodes, of subgraphs and of primitives. No IO.

One widget of the editor can be many inputs of the graph: a primitive's value goes to all that it is linked to, and that
of a subgraph to all that its input leads to inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from comfy_serverless.graph.convert.conversion import each_active, understood
from comfy_serverless.graph.convert.model import Definition, Node
from comfy_serverless.graph.convert.proxies import linked_targets
from comfy_serverless.graph.convert.scene import Scope
from comfy_serverless.graph.convert.sources import Held, Sources
from comfy_serverless.graph.convert.virtual import PRIMITIVE, VIRTUAL

_CONTROL, _RANDOM = "control_after_generate", "randomize"
#: The most inputs that a primitive is followed to.
_MOST_SEEN: Final = 2_000
_NUMBERED = re.compile(r"_\d+$")

#: The id of a node in the graph, and the name of its input.
Target = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A widget as people see it.

    Attributes:
        label: what it is called, if that is not the name of the input.
        title: what the node that shows it is called by its author; "" if by nobody.
        is_alone: whether that node has nothing else to show: a primitive.
    """

    targets: tuple[Target, ...]
    label: str = ""
    title: str = ""
    is_alone: bool = False


class Places:
    """The widgets of one workflow of the editor.

    Attributes:
        random: the inputs for which the editor draws a new value after each run.
    """

    def __init__(self, workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> None:
        """Read it. Raises UiFormatWorkflow if it cannot be converted."""
        self._scene, hosts = understood(workflow, object_info)
        self._sources = Sources(self._scene, hosts)
        self._slot_of_widget = hosts.slot_of_widget
        self._replaced = hosts.replaced
        self._workflow_id = workflow.get("id")
        self._root = Scope(self._scene.workflow.root)
        self._scopes: dict[str, Scope] = {"": self._root}
        self._active: dict[str, tuple[Scope, Node]] = {}
        self._by_id: dict[str, list[tuple[Scope, Node]]] = {}
        #: By the host of a subgraph and the number of its input: what gets the value inside, and what that is called.
        self._fed: dict[tuple[str, int], list[Target]] = {}
        self._labels: dict[tuple[str, int], str] = {}
        self._primitives: dict[str, tuple[Target, ...]] = {}
        self.random: set[Target] = set()
        for scope, node in each_active(self._scene):
            self._scopes.setdefault(scope.prefix, scope)
            self._active[scope.path(node)] = scope, node
            self._by_id.setdefault(node.id, []).append((scope, node))
            self._note(scope, node)

    def widget(self, node_id: str, name: str) -> Seen | None:
        """The widget that App mode names by a node and a name; None if there is none, or it has no value of its own.

        The id is that of a node, also of one within a subgraph; the way to it may stand before it, and before that the
        id of the whole workflow: `12`, `12:5`, `e1c0…:12:prompt`.
        """
        seen = [one for scope, node in self._nodes(node_id, name) if (one := self._seen(scope, node, name)).targets]
        if not seen:
            return None
        targets = dict.fromkeys(target for one in seen for target in one.targets)
        return replace(seen[0], targets=tuple(targets))

    def node_ids(self, node_id: str) -> list[str]:
        """The ids in the graph of the nodes that an id of the editor means; those within, for a subgraph."""
        found: list[str] = []
        for scope, node in self._nodes(node_id, ""):
            path = scope.path(node)
            if self._scene.definition(node) is None:
                found.append(path)
            else:
                found += [inner for inner in self._active if inner.startswith(f"{path}:")]
        return found

    def is_inside(self, path: str) -> bool:
        """Whether a node of the graph stands within a subgraph."""
        return path in self._active and self._active[path][0].host is not None

    def promoted(self) -> Iterator[Seen]:
        """The widgets that the subgraphs of the root show, in order."""
        for node in self._scene.workflow.root.nodes.values():
            definition = self._scene.definition(node)
            for slot in range(0 if definition is None or node.is_out else len(definition.inputs)):
                if targets := self._fed.get((node.id, slot)):
                    yield Seen(tuple(targets), self._labels[node.id, slot], node.title or "")

    def primitives(self) -> Iterator[Seen]:
        """The primitives that give their value to a widget."""
        for scope in self._scopes.values():
            for node in scope.graph.nodes.values():
                if node.type == PRIMITIVE and (seen := self._of_primitive(scope, node)).targets:
                    yield seen

    def _note(self, scope: Scope, node: Node) -> None:
        """Note what of a node has its value from a subgraph, and what is drawn."""
        path, filled = scope.path(node), self._scene.filled(node)
        for slot, entry in enumerate(filled.inputs):
            held = None if entry.link is None else self._sources.of(scope, node, slot)
            if isinstance(held, Held):
                key = held.host, held.slot
                self._fed.setdefault(key, []).append((path, entry.name))
                if key not in self._labels:
                    self._labels[key] = self._label(scope, held, entry.name)
        control = filled.widgets.get(_CONTROL)
        if control is not None and control.value == _RANDOM:
            drawn = (entry.name for entry in filled.inputs if entry.of is not None and entry.of.has_control)
            self.random.update((path, name) for name in drawn)

    def _label(self, scope: Scope, held: Held, name: str) -> str:
        """What the input of a subgraph is called; "" if as the input inside."""
        at: Scope | None = scope
        while at is not None and at.host is not None and at.parent is not None:
            definition = self._scene.definition(at.host)
            if definition is not None and at.parent.path(at.host) == held.host and held.slot < len(definition.inputs):
                port = definition.inputs[held.slot]
                own = next((socket.label for socket in at.host.inputs if socket.name == port.name), "")
                called = own or port.label or port.name
                return "" if _NUMBERED.sub("", called) == name else called
            at = at.parent
        return ""

    def _nodes(self, node_id: str, name: str) -> list[tuple[Scope, Node]]:
        if node_id in self._active:
            return [self._active[node_id]]
        way = node_id.split(":")
        if len(way) > 1 and way[0] == self._workflow_id:
            way = way[1:]
        for steps in (way, way[:-1] if way[-1] == name else []):
            path = ":".join(steps)
            if path in self._active:
                return [self._active[path]]
            scope = self._scopes.get("".join(f"{step}:" for step in steps[:-1]))
            node = scope.graph.nodes.get(steps[-1]) if scope is not None and steps else None
            if scope is not None and node is not None:
                return [(scope, node)]
        if node_id in self._by_id:
            return self._by_id[node_id]
        inside = ((scope, scope.graph.nodes.get(node_id)) for scope in self._scopes.values())
        return [(scope, node) for scope, node in inside if node is not None]

    def _seen(self, scope: Scope, node: Node, name: str) -> Seen:
        definition = self._scene.definition(node)
        if definition is not None:
            return self._of_host(scope, node, definition, name)
        if node.type == PRIMITIVE:
            return self._of_primitive(scope, node)
        filled, title = self._scene.filled(node), node.title or ""
        label = next((socket.label for socket in node.inputs if socket.name == name), "")
        slot = filled.slot_named(name)
        if slot is None:
            return Seen(((scope.path(node), name),) if name in filled.widgets else (), label, title)
        held = None if filled.inputs[slot].link is None else self._sources.of(scope, node, slot)
        if isinstance(held, Held):
            key = held.host, held.slot
            return Seen(tuple(self._fed.get(key, ())), label or self._labels.get(key, ""), title)
        return Seen(((scope.path(node), name),), label, title)

    def _of_host(self, scope: Scope, node: Node, definition: Definition, name: str) -> Seen:
        filled, path = self._scene.filled(node), scope.path(node)
        slot = filled.slot_named(name)
        if slot is None:
            slot = self._slot_of_widget(definition, name)
        if slot is None:
            return Seen(())
        held = None if filled.inputs[slot].link is None else self._sources.of(scope, node, slot)
        key = (held.host, held.slot) if isinstance(held, Held) else (path, slot)
        return Seen(tuple(self._fed.get(key, ())), self._labels.get(key, ""), node.title or "")

    def _of_primitive(self, scope: Scope, node: Node) -> Seen:
        """What a primitive is linked to. One that leads into a subgraph or through a Reroute means what is behind it,
        though the editor does not write its value there.
        """
        slot = self._replaced.get(id(node))
        if slot is not None and scope.host is not None and scope.parent is not None:
            fed = tuple(self._fed.get((scope.parent.path(scope.host), slot), ()))
            return Seen(fed, title=node.title or "", is_alone=True)
        known = self._primitives.get(scope.path(node))
        if known is None:
            known = self._primitives[scope.path(node)] = self._behind(scope, node)
        if isinstance(node.values, list) and _RANDOM in node.values[1:2]:
            self.random.update(known)
        return Seen(known, title=node.title or "", is_alone=True)

    def _behind(self, scope: Scope, node: Node) -> tuple[Target, ...]:
        targets: list[Target] = []
        pending = [(scope, *linked) for linked in self._linked(scope, node)]
        passed: set[tuple[str, int]] = set()
        while pending and len(targets) < _MOST_SEEN:
            where, target, slot = pending.pop()
            if (where.path(target), slot) in passed:
                continue
            passed.add((where.path(target), slot))
            definition = self._scene.definition(target)
            if definition is not None and slot < len(definition.inputs):
                inside = where.inside(target, definition)
                pending += [(inside, *end) for end in self._ends(definition, slot)]
            elif target.type in VIRTUAL:
                pending += [(where, *linked) for linked in self._linked(where, target)]
            elif where.path(target) in self._active:
                targets.append((where.path(target), self._scene.filled(target).inputs[slot].name))
        return tuple(reversed(targets))

    def _linked(self, scope: Scope, node: Node) -> Iterator[tuple[Node, int]]:
        return islice(linked_targets(self._scene, scope.graph, node), _MOST_SEEN)

    def _ends(self, definition: Definition, slot: int) -> Iterator[tuple[Node, int]]:
        """The inner nodes and inputs that an input of a subgraph leads to."""
        for link_id in definition.inputs[slot].links:
            link = definition.links.get(link_id)
            node = None if link is None else definition.nodes.get(link.target)
            number = None if node is None else self._scene.filled(node).slot_of(link_id)
            if node is not None and number is not None:
                yield node, number
