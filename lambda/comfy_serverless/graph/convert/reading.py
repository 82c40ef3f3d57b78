"""Reads a file of the editor into `model`. Every value of the wrong kind becomes a reason. No IO.

Observed of the official editor 1.49.6: links are lists `[id, origin, slot, target, slot, type]` or objects, each by its
own shape, whatever `version` says; ids are numbers or texts and mean the same as texts; `groups`, `config`, `reroutes`,
`floatingLinks`, `order`, `flags`, positions and colours do not matter for the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from comfy_serverless.graph.convert.findings import Findings, in_words, shown
from comfy_serverless.graph.convert.model import (
    Definition,
    Graph,
    Link,
    LinkId,
    Node,
    Outlet,
    Port,
    Socket,
    Workflow,
)
from comfy_serverless.json_text import finite

#: The most nodes and the most links of a file, all graphs together.
MOST_NODES, MOST_LINKS = 50_000, 200_000
#: Definitions within definitions.
_MOST_LEVELS = 20
#: The most containers inside containers a value of a widget may have.
_MOST_VALUE_LEVELS = 50
#: Greater numbers are no ids.
_GREATEST_ID = 2**53
_LONGEST_NAME = 1000
_LONGEST_ID = 64
#: The most inputs of a node or a subgraph, and the most outputs.
MOST_PORTS = 1000


def is_editor_format(document: object) -> bool:
    """Whether it is a workflow as the editor saves it: it has a list of nodes."""
    return isinstance(document, Mapping) and isinstance(document.get("nodes"), list)


def read(workflow: Mapping[str, Any], findings: Findings) -> Workflow:
    """The workflow in a file. What is wrong with it is noted in `findings`, and left out."""
    return _Reader(findings).workflow(workflow)


class _Reader:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._nodes = self._links = 0

    def workflow(self, document: Mapping[str, Any]) -> Workflow:
        root = Graph()
        self._fill(root, document, "the workflow")
        definitions: dict[str, Definition] = {}
        self._definitions(document, definitions, levels=_MOST_LEVELS)
        extra = self._object(document.get("extra"), "`extra`")
        groups = self._object(extra.get("groupNodes"), "`extra.groupNodes`")
        state = document.get("state")
        last = document.get("last_node_id")
        if last is None and isinstance(state, Mapping):
            last = state.get("lastNodeId")
        return Workflow(root, definitions, groups, last if _is_id_number(last) else 0)

    def _definitions(self, holder: Mapping[str, Any], found: dict[str, Definition], *, levels: int) -> None:
        outer = self._object(holder.get("definitions"), "`definitions`")
        subgraphs = self._list(outer.get("subgraphs"), "`definitions.subgraphs`")
        if subgraphs and not levels:
            self._findings.refuse("too_deep", f"subgraphs are defined within each other more than {_MOST_LEVELS} deep")
            return
        for raw in self._objects(subgraphs, "a subgraph"):
            identity = raw.get("id")
            if not isinstance(identity, str) or not identity:
                self._malformed("the id of a subgraph", identity, "a text")
                continue
            if identity in found:
                self._findings.refuse("duplicate_id", f"the subgraph {shown(identity)} is defined twice")
                continue
            place = f"the subgraph {shown(raw.get('name') or identity)!r}"
            definition = Definition(id=identity, name=str(raw.get("name") or identity)[:_LONGEST_NAME])
            definition.is_nested = levels < _MOST_LEVELS
            found[identity] = definition
            definition.inputs = [*self._ports(raw.get("inputs"), f"the inputs of {place}")]
            definition.outputs = [*self._ports(raw.get("outputs"), f"the outputs of {place}")]
            self._fill(definition, raw, place)
            self._definitions(raw, found, levels=levels - 1)

    def _fill(self, graph: Graph, raw: Mapping[str, Any], place: str) -> None:
        for entry in self._objects(raw.get("nodes"), f"the nodes of {place}"):
            self._nodes += 1
            if self._nodes > MOST_NODES:
                self._findings.refuse("too_large", f"the file has more than {MOST_NODES:,} nodes")
                return
            node = self.node(entry, place)
            if node is None:
                continue
            if node.id in graph.nodes:
                self._findings.warn(f"{place} has two nodes {node.id}: the last one counts, as in the editor")
            graph.nodes[node.id] = node
        for link in self._each_link(raw.get("links"), place):
            self._links += 1
            if self._links > MOST_LINKS:
                self._findings.refuse("too_large", f"the file has more than {MOST_LINKS:,} links")
                return
            if link.id in graph.links and graph.links[link.id] != link:
                self._findings.warn(
                    f"{place} has two links of the id {shown(link.id)}: the last one counts, as in the editor"
                )
            graph.links[link.id] = link

    def node(self, raw: Mapping[str, Any], place: str, *, without_id: str | None = None) -> Node | None:
        """A node; `without_id` is the id of one that has none in the file."""
        node_id = without_id if without_id is not None else _id_text(raw.get("id"))
        if node_id is None:
            self._malformed(f"the id of a node of {place}", raw.get("id"), "a number or a text")
            return None
        its = f"of node {shown(node_id)} in {place}"
        kind, mode = raw.get("type"), raw.get("mode")
        if not isinstance(kind, str) or not kind:
            self._malformed(f"the type {its}", kind, "a text")
            return None
        if mode is not None and not _is_integral(mode):
            self._malformed(f"the mode {its}", mode, "a number")
            mode = 0
        number, title = raw.get("id"), raw.get("title")
        values = self._values(raw.get("widgets_values"), f"`widgets_values` {its}")
        return Node(
            id=node_id,
            type=kind,
            number=int(number) if without_id is None and _is_id_number(number) else None,
            title=title if isinstance(title, str) else None,
            mode=int(mode or 0),
            inputs=[*self._sockets(raw.get("inputs"), f"the inputs {its}")],
            outputs=[*self._outlets(raw.get("outputs"), f"the outputs {its}")],
            values=values,
            names=_names(raw.get("widgets_values_named"), values),
            properties=self._object(raw.get("properties"), f"the properties {its}", loosely=True),
        )

    def _sockets(self, raw: object, place: str) -> Iterator[Socket]:
        for entry in self._objects(raw, place, most=MOST_PORTS):
            link = entry.get("link")
            identity = None if link is None else link_id(link)
            if link is not None and identity is None:
                self._malformed(f"a link in {place}", link, "a number")
            is_of_widget = entry.get("widget") is not None
            yield Socket(self._name(entry, place), type_name(entry.get("type")), identity, is_of_widget, _label(entry))

    def _outlets(self, raw: object, place: str) -> Iterator[Outlet]:
        for entry in self._objects(raw, place, most=MOST_PORTS):
            yield Outlet(self._name(entry, place), type_name(entry.get("type")), self._ids(entry.get("links"), place))

    def _ports(self, raw: object, place: str) -> Iterator[Port]:
        for entry in self._objects(raw, place, most=MOST_PORTS):
            links = self._ids(entry.get("linkIds"), place)
            yield Port(self._name(entry, place), type_name(entry.get("type")), links, _label(entry))

    def _ids(self, raw: object, place: str) -> list[LinkId]:
        found: dict[LinkId, None] = {}  # each once: what is linked is looked for by each
        for entry in self._list(raw, f"the links of {place}"):
            identity = link_id(entry)
            if identity is None:
                self._malformed(f"a link of {place}", entry, "a number")
            else:
                found[identity] = None
        return [*found]

    def _name(self, entry: Mapping[str, Any], place: str) -> str:
        name = entry.get("name")
        if isinstance(name, str) and len(name) <= _LONGEST_NAME:
            return name
        if name is not None:
            self._malformed(f"a name in {place}", name, "a text")
        return ""

    def _each_link(self, raw: object, place: str) -> Iterator[Link]:
        for entry in self._list(raw, f"the links of {place}"):
            if entry is None:
                continue  # what old editors left where a link was taken away
            if isinstance(entry, list):
                parts = [*entry, *[None] * (6 - len(entry))][:6]
            elif isinstance(entry, Mapping):
                names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
                parts = [entry.get(name) for name in names]
            else:
                self._malformed(f"a link of {place}", entry, "a list or an object")
                continue
            identity, origin, target = link_id(parts[0]), _id_text(parts[1]), _id_text(parts[3])
            slot = _slot(parts[2])
            if identity is None or origin is None or target is None or slot is None:
                wrong = next(
                    part for part, good in zip(parts, (identity, origin, slot, target), strict=False) if good is None
                )
                self._malformed(f"an id or a slot of a link of {place}", wrong, "a number")
                continue
            yield Link(identity, origin, slot, target, _slot(parts[4]) or 0, type_name(parts[5]))

    def _values(self, raw: object, place: str) -> list[Any] | dict[str, Any] | None:
        if raw is None:
            return None
        if not isinstance(raw, list | dict):
            self._malformed(place, raw, "a list or an object")
            return None
        if not is_shallow(raw):
            self._findings.refuse("too_deep", f"{place} is nested more than {_MOST_VALUE_LEVELS} levels deep")
            return None
        read: list[Any] | dict[str, Any] = finite(raw)
        return read

    def _objects(self, raw: object, place: str, *, most: int | None = None) -> Iterator[Mapping[str, Any]]:
        entries = self._list(raw, place)
        if most is not None and len(entries) > most:
            self._findings.refuse("too_large", f"{place} are more than {most:,}")
        for entry in entries[:most]:
            if isinstance(entry, Mapping):
                yield entry
            else:
                self._malformed(f"an entry of {place}", entry, "an object")

    def _list(self, raw: object, place: str) -> list[Any]:
        if isinstance(raw, list):
            return raw
        if raw is not None:
            self._malformed(place, raw, "a list")
        return []

    def _object(self, raw: object, place: str, *, loosely: bool = False) -> dict[str, Any]:
        if isinstance(raw, dict):
            return raw
        if raw is not None and not loosely:
            self._malformed(place, raw, "an object")
        return {}

    def _malformed(self, place: str, value: object, wanted: str) -> None:
        self._findings.refuse("malformed", f"{place} should be {wanted} and is {in_words(value)}")


def _names(raw: object, values: object) -> tuple[str, ...] | None:
    """The names of the values in a list; None if they do not go with it. An editor that writes them needs none."""
    if not isinstance(raw, Mapping) or not isinstance(values, list) or len(raw) != len(values):
        return None
    return tuple(raw) if all(isinstance(name, str) and len(name) <= _LONGEST_NAME for name in raw) else None


def _label(entry: Mapping[str, Any]) -> str:
    label = entry.get("label")
    return label[:_LONGEST_NAME] if isinstance(label, str) else ""


def read_node(raw: object, node_id: str, findings: Findings) -> Node | None:
    """A node that has no id of its own, such as one of a group's definition."""
    if isinstance(raw, Mapping):
        return _Reader(findings).node(raw, "a group", without_id=node_id)
    findings.refuse("malformed", f"a node of a group should be an object and is {in_words(raw)}")
    return None


def link_id(raw: object) -> LinkId | None:
    """The id of a link; `7`, `7.0` and `"7"` are the same. None if it is none."""
    if type(raw) is int and -_GREATEST_ID < raw < _GREATEST_ID:
        return raw
    text = _id_text(raw)
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else text


def type_name(raw: object) -> str:
    """A type as files have it: a list of choices is "COMBO", and what is no text fits anything."""
    if isinstance(raw, str):
        return raw[:_LONGEST_NAME] or "*"
    return "COMBO" if isinstance(raw, list) else "*"


def is_shallow(value: object) -> bool:
    """Whether a value's containers are nested no deeper than is allowed."""
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > _MOST_VALUE_LEVELS:
            return False
        if isinstance(item, dict):
            pending += [(inner, depth + 1) for inner in item.values() if isinstance(inner, list | dict)]
        elif isinstance(item, list):
            pending += [(inner, depth + 1) for inner in item if isinstance(inner, list | dict)]
    return True


def _is_integral(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_GREATEST_ID < value < _GREATEST_ID and int(value) == value


def _is_id_number(value: object) -> TypeGuard[int]:
    return _is_integral(value) and isinstance(value, int)


def _id_text(value: object) -> str | None:
    if type(value) is int and -_GREATEST_ID < value < _GREATEST_ID:
        return str(value)
    if isinstance(value, str):
        return value if 0 < len(value) <= _LONGEST_ID else None
    return str(int(value)) if _is_integral(value) else None


def _slot(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 7:
        value = int(value)
    return int(value) if _is_integral(value) and 0 <= value < 1_000_000 else None
