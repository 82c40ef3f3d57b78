"""`properties.proxyWidgets`: how hosts promoted widgets before subgraphs had inputs for them. No IO.

A list of `[inner node, widget, …]`, read after a host's own values; entry number i has the host's value number i, if
there is one that is not null. Observed of the official editor 1.49.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from comfy_serverless.graph.convert.findings import named, shown
from comfy_serverless.graph.convert.hosts import Hosts
from comfy_serverless.graph.convert.limits import MOST_HOST_INPUTS
from comfy_serverless.graph.convert.model import INPUT_SIDE, Definition, Graph, Link, LinkId, Node, Port
from comfy_serverless.graph.convert.reading import MOST_PORTS
from comfy_serverless.graph.convert.scene import Scene
from comfy_serverless.graph.convert.values import Input
from comfy_serverless.graph.convert.virtual import PRIMITIVE, first_value

_OLDEST_PREFIX = re.compile(r"\d+: ")
_NO_WIDGET = ("$$", "control_after_generate", "control_filter_list")
_OF_HOST = "-1"
_MOST_ENTRIES = 1000


def promote_proxies(scene: Scene, hosts: Hosts) -> None:
    """Give each host the promoted inputs and the values that its `proxyWidgets` tell, inner hosts first."""
    for graph in _inner_first(scene):
        for host in graph.nodes.values():
            definition = scene.definition(host)
            if definition is not None:
                _promote(scene, hosts, host, definition)


def _inner_first(scene: Scene) -> Iterator[Graph]:
    """Every graph, those of the hosts in it before it."""
    seen: set[str] = set()
    pending: list[tuple[Graph, bool]] = [(graph, False) for graph in reversed([*scene.graphs()])]
    while pending:
        graph, is_ready = pending.pop()
        if is_ready:
            yield graph
            continue
        key = graph.id if isinstance(graph, Definition) else ""
        if key in seen:
            continue
        seen.add(key)
        pending.append((graph, True))
        inner = [scene.definition(node) for node in graph.nodes.values()]
        pending += [(definition, False) for definition in inner if definition is not None]


def _promote(scene: Scene, hosts: Hosts, host: Node, definition: Definition) -> None:
    entries = [] if hosts.loses_values(host) else _entries(scene, host)
    values = host.values if isinstance(host.values, list) else []
    for number, (node_id, name) in enumerate(entries):
        if name.startswith(_NO_WIDGET):
            hosts.place(host, number)
            continue
        node = definition.nodes.get(node_id)
        if node is not None and node.type == PRIMITIVE:
            slot = _slot_of_primitive(scene, hosts, definition, node)
        else:
            slot = _slot_for(scene, hosts, definition, node_id, name)
        value = values[number] if number < len(values) else None
        if slot is not None and value is not None:
            hosts.set(host, slot, value)
            hosts.place(host, number)
    _quarantined(hosts, host, definition)


def _entries(scene: Scene, host: Node) -> list[tuple[str, str]]:
    """The entries of a host, each a node and a widget. If one is none, none counts."""
    raw = host.properties.get("proxyWidgets")
    entries = raw[:_MOST_ENTRIES] if isinstance(raw, list) else []
    if all(map(_is_entry, entries)):
        return [(entry[0], entry[1]) for entry in entries]
    its = named(host.id, host.type, host.title)
    scene.findings.warn(f"{its}: its `proxyWidgets` are not all of two or three texts: left out, as in the editor")
    return []


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and 2 <= len(entry) <= 3 and all(isinstance(part, str) for part in entry)


def _quarantined(hosts: Hosts, host: Node, definition: Definition) -> None:
    """Values that an editor could not place: those of an input of the host itself count."""
    entries = host.properties.get("proxyWidgetErrorQuarantine")
    for entry in entries[:_MOST_ENTRIES] if isinstance(entries, list) else ():
        original = entry.get("originalEntry") if isinstance(entry, dict) else None
        if not isinstance(original, list) or len(original) < 2 or "hostValue" not in entry:
            continue
        slot = hosts.slot_of_port(definition, original[1]) if _text(original[0]) == _OF_HOST else None
        if slot is not None and hosts.is_promoted(host, slot):
            hosts.set(host, slot, entry["hostValue"])


def _slot_for(scene: Scene, hosts: Hosts, definition: Definition, node_id: str, name: str) -> int | None:
    """The input of a subgraph that an entry means, made if there is none yet; None if the entry means nothing."""
    if node_id == _OF_HOST:
        slot = hosts.slot_of_port(definition, name)
        return slot if slot is not None and hosts.target(definition, slot) is not None else None
    node = definition.nodes.get(node_id)
    if node is None:
        return None
    number = _widget_named(scene, hosts, node, name)
    if number is None:
        return None
    entry = scene.filled(node).inputs[number]
    link = None if entry.link is None else definition.links.get(entry.link)
    if link is not None and link.origin == INPUT_SIDE:
        return link.origin_slot
    return _new_port(scene, hosts, definition, entry.name, [(node, number)])


def _widget_named(scene: Scene, hosts: Hosts, node: Node, name: str) -> int | None:
    """The number of the input whose widget has a name, also in the oldest form, `12: name`.

    A host's is called as its input, or as the widget inside.
    """
    filled, inner = scene.filled(node), scene.definition(node)
    while True:
        number = filled.slot_named(name)
        if inner is not None and (number is None or not hosts.is_promoted(node, number)):
            number = hosts.slot_of_widget(inner, name)
        if number is not None:
            return number if inner is not None or filled.inputs[number].is_widget else None
        stripped = _OLDEST_PREFIX.sub("", name, count=1)
        if stripped == name:
            return None
        name = stripped


def _slot_of_primitive(scene: Scene, hosts: Hosts, definition: Definition, primitive: Node) -> int | None:
    """The input of a subgraph that stands for a primitive inside; None if a host's value does not count.

    The targets get a promoted input instead of the primitive, and keep their own values but for those of hosts. If a
    link of the file ends at another input than it says, the primitive's value counts for all hosts.
    """
    targets = [*linked_targets(scene, definition, primitive)]
    if not targets:
        return None if id(primitive) in hosts.held_by_primitives else hosts.replaced.get(id(primitive))
    ends = [link.target_slot for each in primitive.outputs[0].links if (link := definition.links.get(each))]
    name = scene.filled(targets[0][0]).inputs[targets[0][1]].name
    slot = _new_port(scene, hosts, definition, name, targets)
    for outlet in primitive.outputs:
        outlet.links = []
    if slot is None:
        return None
    hosts.replaced[id(primitive)] = slot
    value = first_value(primitive)
    if ends == [number for _, number in targets]:
        return slot
    hosts.held_by_primitives.add(id(primitive))
    for host in hosts.of(definition):
        if value is not None:
            hosts.set(host, slot, value)
    return None


def linked_targets(scene: Scene, graph: Graph, node: Node) -> Iterator[tuple[Node, int]]:
    """The nodes and inputs that the first output of a node is linked to, in the order of the output's links."""
    for link_id in node.outputs[0].links if node.outputs else ():
        link = graph.links.get(link_id)
        target = None if link is None else graph.nodes.get(link.target)
        if target is not None:
            number = scene.filled(target).slot_of(link_id)
            if number is not None:
                yield target, number


def _new_port(
    scene: Scene, hosts: Hosts, definition: Definition, name: str, targets: list[tuple[Node, int]]
) -> int | None:
    slot = len(definition.inputs)
    if slot >= MOST_PORTS or slot * len(hosts.of(definition)) > MOST_HOST_INPUTS:
        scene.findings.refuse("too_large", f"the subgraph {shown(definition.name)!r} promotes too many widgets")
        return None
    taken = {port.name for port in definition.inputs}
    unique = next(each for each in _numbered(name) if each not in taken)
    links: list[LinkId] = []
    kind = "*"
    for node, number in targets:
        kind = scene.filled(node).inputs[number].type
        link = Link(f"promoted {slot} {node.id} {number}", INPUT_SIDE, slot, node.id, number, kind)
        definition.links[link.id] = link
        scene.filled(node).connect(number, link.id)
        links.append(link.id)
    definition.inputs.append(Port(unique, kind, links))
    hosts.add_target(definition, *targets[0])
    for host in hosts.of(definition):
        scene.filled(host).add(Input(unique, kind))
    return slot


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 0
    while True:
        number += 1
        yield f"{name}_{number}"


def _text(value: object) -> str:
    return str(value) if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**53) else ""
