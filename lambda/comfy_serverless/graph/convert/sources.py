"""Finds where the value of an input comes from: through reroutes, bypassed nodes, and in and out of subgraphs. No IO.

Observed of the official editor 1.49.6. Every way is one step after the other without branches, so it is a loop; steps
that were made before are remembered, so that long chains cost once what they are long. A circle leads nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from comfy_serverless.graph.convert.findings import named
from comfy_serverless.graph.convert.hosts import Hosts
from comfy_serverless.graph.convert.model import (
    BYPASSED,
    INPUT_SIDE,
    MUTED,
    OUTPUT_SIDE,
    Definition,
    Link,
    LinkId,
    Node,
)
from comfy_serverless.graph.convert.scene import Scene, Scope
from comfy_serverless.graph.convert.virtual import GET, PRIMITIVE, SET, VIRTUAL, first_value

_ANYTHING = ("", "*")
#: The most steps of all ways together: one that is wanted as another type is a way of its own. The most inputs that are
#: looked at for what bypassed nodes hand on.
_MOST_STEPS, _MOST_COMPARISONS = 1_000_000, 200_000
#: A place on a way: prefix and id of the node, slot, type that is wanted, and whether it is an input.
_Key = tuple[str, str, int, str, bool]


@dataclass(frozen=True, slots=True)
class Linked:
    """An output of a node that is in the prompt."""

    node_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class Held:
    """A value that a host of a subgraph has, for one of its inputs.

    Attributes:
        host, slot: where the host would stand in the prompt, and the number of the input.
    """

    value: Any
    host: str
    slot: int


Source = Linked | Held | None


class _At(NamedTuple):
    """A place on the way: an input of a node, or an output, and the type that is wanted there."""

    scope: Scope
    node: Node
    slot: int
    wanted: str
    is_input: bool


class Sources:
    """The sources of inputs, in one workflow."""

    def __init__(self, scene: Scene, hosts: Hosts) -> None:
        self._scene = scene
        self._hosts = hosts
        self._known: dict[_Key, Source] = {}
        self._types_of: dict[int, list[str]] = {}
        self._ends: dict[str, dict[int, Link]] = {}
        self._setters: dict[int, dict[str, Node]] = {}
        self._steps_left, self._comparisons_left = _MOST_STEPS, _MOST_COMPARISONS

    def of(self, scope: Scope, node: Node, slot: int) -> Source:
        """Where the value of an input comes from; None if from nowhere."""
        at: _At | Linked | Held | None = _At(scope, node, slot, self._types(scope, node)[slot], is_input=True)
        way: list[_Key] = []
        seen: set[_Key] = set()
        while isinstance(at, _At):
            key = (at.scope.prefix, at.node.id, at.slot, at.wanted, at.is_input)
            if key in self._known:
                at = self._known[key]
                break
            if key in seen:
                self._scene.findings.warn(f"{_named(at.scope, at.node)} is in a circle of links that leads nowhere")
                at = None
                break
            seen.add(key)
            way.append(key)
            self._steps_left -= 1
            self._check_effort()
            at = self._before(at) if at.is_input else self._behind(at)
        for key in way:
            self._known[key] = at
        return at

    def _check_effort(self) -> None:
        """Raise UiFormatWorkflow if the ways are longer, all together, than those of any workflow of people."""
        if self._steps_left < 0 or self._comparisons_left < 0:
            self._scene.findings.refuse("too_large", "its links, followed from node to node, take too many steps")
            self._scene.findings.raise_if_refused()

    def _before(self, at: _At) -> _At | Held | None:
        """What is linked to an input."""
        entry = self._scene.filled(at.node).inputs[at.slot]
        if entry.link is None:
            return None
        link = at.scope.graph.links.get(entry.link)
        if link is None:
            self._broken(at, entry.name, entry.link, "the file has no such link")
            return None
        if link.origin == INPUT_SIDE:
            return self._outside(at, link.origin_slot, entry.name, entry.link)
        origin = at.scope.graph.nodes.get(link.origin)
        if origin is None:
            self._broken(at, entry.name, entry.link, f"it comes from node {link.origin}, which is not there")
            return None
        return _At(at.scope, origin, link.origin_slot, at.wanted, is_input=False)

    def _outside(self, at: _At, slot: int, name: str, link: LinkId) -> _At | Held | None:
        """What is linked to an input of the host, or the value that the host has for it."""
        host, parent = at.scope.host, at.scope.parent
        if host is None or parent is None:
            self._broken(at, name, link, "it comes from the inputs of a subgraph, and is in none")
            return None
        inputs = self._scene.filled(host).inputs
        if slot >= len(inputs):
            self._broken(at, name, link, f"it comes from input {slot} of the subgraph, which has {len(inputs)}")
            return None
        if inputs[slot].link is not None:
            return _At(parent, host, slot, at.wanted, is_input=True)
        if not self._hosts.is_promoted(host, slot):
            return None
        return Held(self._hosts.value(host, slot), parent.path(host), slot)

    def _behind(self, at: _At) -> _At | Linked | None:
        """What stands behind an output."""
        node = at.node
        if node.mode == MUTED:
            return None
        if node.mode == BYPASSED:
            return self._through(at)
        definition = self._scene.definition(node)
        if definition is not None:
            return self._inside(at)
        if node.type == PRIMITIVE:
            return None
        if node.type == GET:
            return self._set_by_name(at)
        if node.type in VIRTUAL:
            return self._input(at, at.slot, at.wanted)
        return Linked(at.scope.path(node), at.slot)

    def _through(self, at: _At) -> _At | None:
        """The input that a bypassed node hands on."""
        filled = self._scene.filled(at.node)
        self._comparisons_left -= len(filled.inputs)
        self._check_effort()
        types = self._types(at.scope, at.node)
        chosen = passed_input(types, filled.outputs, at.slot, at.wanted)
        return None if chosen is None else self._input(at, chosen, types[chosen])

    def _types(self, scope: Scope, node: Node) -> list[str]:
        """The types that inputs want. Those that match each other are of the type of what is linked to one of them."""
        found = self._types_of.get(id(node))
        if found is None:
            inputs = self._scene.filled(node).inputs
            found = self._types_of[id(node)] = [entry.type for entry in inputs]
            matching = [(slot, entry.of) for slot, entry in enumerate(inputs) if entry.of and entry.of.is_matching]
            linked = {slot: made for slot, _ in matching if (made := self._linked_type(scope, inputs[slot].link))}
            of_group = {of.match_group: linked[slot] for slot, of in matching if slot in linked}
            for slot, of in matching:
                found[slot] = linked.get(slot) or of_group.get(of.match_group, found[slot])
        return found

    def _linked_type(self, scope: Scope, link_id: LinkId | None) -> str | None:
        """The type of the output that a link comes from; None if that says nothing."""
        link = None if link_id is None else scope.graph.links.get(link_id)
        origin = None if link is None else scope.graph.nodes.get(link.origin)
        if link is None or origin is None:
            return None
        made = self._scene.filled(origin).outputs
        if link.origin_slot < len(made) and made[link.origin_slot] not in _ANYTHING:
            return made[link.origin_slot]
        return None

    def _input(self, at: _At, slot: int, wanted: str) -> _At | None:
        inputs = self._scene.filled(at.node).inputs
        return _At(at.scope, at.node, slot, wanted, is_input=True) if slot < len(inputs) else None

    def _inside(self, at: _At) -> _At | None:
        """The output inside a subgraph that is led out. An input that is led straight out is handed on."""
        definition = self._scene.definition(at.node)
        if definition is None:
            return None
        if at.slot >= len(definition.outputs):
            called = f"output {at.slot}"
            self._refuse(at, called, f"an input is linked to its {called}, and the subgraph has no such output now")
            return None
        ends = definition.outputs[at.slot].links
        link = next((found for end in ends if (found := definition.links.get(end))), None)
        if link is None and ends:  # stale ids: the links themselves say where they end
            link = self._led_out(definition, at.slot)
        if link is None:
            return None
        if link.origin == INPUT_SIDE:
            return self._input(at, link.origin_slot, at.wanted)
        origin = definition.nodes.get(link.origin)
        if origin is None:
            why = f"output {at.slot} comes by link {link.id} from node {link.origin}, which is not there"
            self._refuse(at, f"output {at.slot}", why)
            return None
        return _At(at.scope.inside(at.node, definition), origin, link.origin_slot, at.wanted, is_input=False)

    def _led_out(self, definition: Definition, slot: int) -> Link | None:
        """The first link that ends at an output of a subgraph."""
        known = self._ends.get(definition.id)
        if known is None:
            known = self._ends[definition.id] = {}
            for link in definition.links.values():
                if link.target == OUTPUT_SIDE:
                    known.setdefault(link.target_slot, link)
        return known.get(slot)

    def _set_by_name(self, at: _At) -> _At | None:
        """What the SetNode of a GetNode's name has, in its own graph or the nearest around it."""
        name = first_value(at.node)
        scope: Scope | None = at.scope
        while scope is not None:
            setter = self._setters_of(scope).get(name) if isinstance(name, str) else None
            if setter is not None:
                return self._input(at._replace(scope=scope, node=setter), 0, at.wanted)
            scope = scope.parent
        self._scene.findings.warn(f"{_named(at.scope, at.node)} gets {name!r}, which no SetNode sets: it is left out")
        return None

    def _setters_of(self, scope: Scope) -> dict[str, Node]:
        found = self._setters.get(id(scope.graph))
        if found is None:
            found = self._setters[id(scope.graph)] = {}
            for node in scope.graph.nodes.values():
                name = first_value(node) if node.type == SET else None
                if isinstance(name, str) and found.setdefault(name, node) is not node:
                    its = _named(scope, node)
                    self._scene.findings.warn(f"{its} sets {name!r}, which another SetNode sets, too: that one counts")
        return found

    def _broken(self, at: _At, name: str, link: object, why: str) -> None:
        self._refuse(at, name, f"the input {name!r} is linked by {link}, but {why}")

    def _refuse(self, at: _At, name: str, why: str) -> None:
        self._scene.findings.refuse(
            "broken_link",
            f"{_named(at.scope, at.node)}: {why}",
            node_id=at.scope.path(at.node),
            class_type=at.node.type,
            input=name,
        )


def passed_input(inputs: list[str], outputs: list[str], slot: int, wanted: str) -> int | None:
    """The number of the input that a bypassed node hands on for one of its outputs; None if it hands on nothing.

    Args:
        inputs, outputs: the types of those of the node.
    """
    if not inputs:
        return None
    if wanted in _ANYTHING:
        return slot if slot < len(inputs) else 0
    made = outputs[slot] if slot < len(outputs) else "*"
    if slot < len(inputs) and fits(inputs[slot], made) and fits(inputs[slot], wanted):
        return slot
    if wanted in inputs:
        return inputs.index(wanted)
    fitting = (number for number, kind in enumerate(inputs) if fits(kind, made) and fits(kind, wanted))
    return next(fitting, None)


@lru_cache(maxsize=4096)
def fits(one: str, other: str) -> bool:
    """Whether two types go together: equal, either is anything, or their lists share a type; case does not matter."""
    one, other = one.casefold(), other.casefold()
    if one == other or one in _ANYTHING or other in _ANYTHING:
        return True
    if "," not in one and "," not in other:
        return False
    return not {*one.split(",")}.isdisjoint(other.split(","))


def _named(scope: Scope, node: Node) -> str:
    return named(scope.path(node), node.type, node.title)
