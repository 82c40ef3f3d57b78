"""Reads the editor's format as far as `needs` does without declarations: which nodes are active, and their values.

It does not convert: `graph.convert` does, wherever the declarations are known. So a value here belongs to an input only
as far as the file says so, or the class is in `MODEL_INPUTS`. No IO; files of strangers are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.files import MODEL_ENDINGS
from comfy_serverless.graph.convert.limits import MOST_VALUES
from comfy_serverless.graph.convert.virtual import VIRTUAL
from comfy_serverless.graph.editor_nodes import (
    BYPASSED,
    GROUP_PREFIXES,
    MUTED,
    Inside,
    Step,
    all_subgraphs,
    groups_in,
    mapping,
    mappings,
    walk,
)
from comfy_serverless.graph.needs.answer import Pack
from comfy_serverless.graph.nodes import MODEL_INPUTS, NOTES
from comfy_serverless.graph.workflow import MAX_DEPTH, count_values, is_shallow

#: The most nodes, those inside subgraphs counted once for each host.
MAX_NODES = 20_000
#: The most values of their widgets, inputs and properties, counted alike.
_MOST_VALUES = 2_000_000
#: How deep values are looked at: a list of objects of a list.
_VALUE_LEVELS = 4
_LONGEST_ENDING = max(map(len, MODEL_ENDINGS))

#: A value, and the name of its input; "" if that is not known.
Named = tuple[str, str]
#: What a host gives to nodes within it: `{node id: {input name: value}}`.
Given = Mapping[str, Mapping[str, object]]
#: What one node is given: values in the place of its own; of a group's node, all that it has.
_GivenToNode = Mapping[str, object] | tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class EditorNode:
    """An active node that runs.

    Attributes:
        node_id: with the hosts around it: `5:12:3`, as in the graph in API format.
        models: `properties.models`, not checked.
        values: the texts among its values.
        outputs: the types of its outputs, as the editor wrote them down.
    """

    node_id: str
    class_type: str
    pack: Pack | None
    models: tuple[Mapping[str, Any], ...]
    values: tuple[Named, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Definition:
    """A subgraph's definition, with the inner inputs that its own inputs lead to: `{name: [(node id, input name)]}`."""

    nodes: Sequence[Mapping[str, Any]]
    promoted: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def size(self) -> int:
        """What each host costs, beside the nodes: its promoted inputs, with where they lead to."""
        return len(self.promoted) + sum(map(len, self.promoted.values()))


class EditorFile:
    """A workflow as the editor saved it. Raises InvalidWorkflow for one that is nested too deep, or has too many nodes.

    Attributes:
        nodes: those that run, in the order of the file.
        texts: what its notes say.
        models: what it says of models as a whole (`models` of the file), not checked.
    """

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        if not is_shallow(workflow):
            raise InvalidWorkflow(f"The workflow is nested more than {MAX_DEPTH} levels deep.")
        self._definitions = {
            str(definition.get("id")): _definition(definition) for definition in all_subgraphs(workflow)
        }
        self._groups = groups_in(workflow)
        self._count = 0
        #: How many values may be read yet, and how many each node has: those of a subgraph are read for each host.
        self._values_left = _MOST_VALUES
        self._sizes: dict[int, int] = {}
        self.nodes = tuple(self._walk(mappings(workflow.get("nodes"))))
        self.models = tuple(mappings(workflow.get("models")))
        around = [workflow, *(definition for definition in all_subgraphs(workflow))]
        self.texts = tuple(
            text
            for graph in around
            for node in mappings(graph.get("nodes"))
            if node.get("type") in NOTES
            for _, text in texts_in(node.get("widgets_values"), "")
        )

    def _walk(self, nodes: Iterable[Mapping[str, Any]]) -> Iterator[EditorNode]:
        """The active nodes, and those within hosts."""
        for step in walk(_active(nodes, {}), self._inside):
            values = step.given if isinstance(step.given, tuple) else _with_given(_values(step.node), step.given)
            yield _node(step.node, step.path, values)

    def _inside(self, step: Step[_GivenToNode]) -> Inside[_GivenToNode] | None:
        """The nodes within a host, and what it gives to each of them; None of another node."""
        if isinstance(step.given, tuple):
            return None  # of a group: it has been counted, and is no host
        self._note(step.node)
        if (definition := self._definitions.get(step.kind)) is not None:
            if step.kind in step.hosts or len(step.hosts) >= MAX_DEPTH:
                return ()
            self._values_left -= definition.size
            return _active(definition.nodes, _given_by(step.node, definition, step.given))
        if step.kind.startswith(GROUP_PREFIXES):
            return self._grouped(step.node, step.kind[len(GROUP_PREFIXES[0]) :])
        return None

    def _grouped(self, host: Mapping[str, Any], name: str) -> Inside[_GivenToNode]:
        """The nodes of a group. The host has the values of all, in their order: those that are files are told apart."""
        inner = mappings(mapping(self._groups.get(name)).get("nodes"))
        for node in inner:
            self._note(node)
        files = [value for _, value in texts_in(host.get("widgets_values"), "") if is_model_file(value)]
        replaced = iter(files)
        for index, node in enumerate(inner):
            kind = node.get("type")
            if isinstance(kind, str) and kind not in VIRTUAL:
                values = tuple(
                    (slot, next(replaced, value) if is_model_file(value) else value) for slot, value in _values(node)
                )
                yield str(index), node, values

    def _note(self, node: Mapping[str, Any]) -> None:
        """Count a node that is read, and its values. Raises InvalidWorkflow if they are too many."""
        if id(node) not in self._sizes:
            parts = (node.get("widgets_values"), node.get("inputs"), node.get("properties"))
            self._sizes[id(node)] = sum(map(count_values, parts))
        values = node.get("widgets_values")
        if isinstance(values, list | dict) and len(values) > MOST_VALUES:
            raise InvalidWorkflow(f"Node {str(node.get('id'))[:100]} has more than {MOST_VALUES:,} values.")
        self._count += 1
        self._values_left -= self._sizes[id(node)]
        if self._count > MAX_NODES:
            raise InvalidWorkflow(
                f"The workflow has more than {MAX_NODES:,} nodes, those of a subgraph counted once for each host."
            )
        if self._values_left < 0:
            raise InvalidWorkflow(
                f"The nodes of the workflow have more than {_MOST_VALUES:,} values, those of a subgraph counted once "
                "for each host."
            )


def is_model_file(value: str) -> bool:
    """Whether a text ends as the name of a model does."""
    return value[-_LONGEST_ENDING:].lower().endswith(MODEL_ENDINGS)


def texts_in(value: object, name: str, *, levels: int = _VALUE_LEVELS) -> Iterator[Named]:
    """The texts in a value, with the name of the innermost field that each stands in.

    An object that is switched off (`"on": false`, as in rgthree's Power Lora Loader) has none.
    """
    if isinstance(value, str):
        yield name, value
    elif levels == 0:
        return
    elif isinstance(value, Mapping):
        if value.get("on") is not False:
            for key, item in value.items():
                yield from texts_in(item, name if key == "__value__" else str(key), levels=levels - 1)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item, name, levels=levels - 1)


def muted(workflow: Mapping[str, Any], classes: frozenset[str]) -> dict[str, Any]:
    """A copy of the workflow in which the nodes of these classes are muted, those in subgraphs too."""

    def quiet(graph: Mapping[str, Any]) -> dict[str, Any]:
        nodes = graph.get("nodes")
        return within({**graph, "nodes": [mute(node) for node in nodes] if isinstance(nodes, list) else nodes})

    def mute(node: object) -> object:
        kind = node.get("type") if isinstance(node, Mapping) else None
        return {**node, "mode": MUTED} if isinstance(kind, str) and kind in classes else node  # type: ignore[dict-item]

    def within(graph: dict[str, Any]) -> dict[str, Any]:
        definitions = graph.get("definitions")
        if isinstance(definitions, Mapping) and isinstance(definitions.get("subgraphs"), list):
            inner = [quiet(one) if isinstance(one, Mapping) else one for one in definitions["subgraphs"]]
            graph["definitions"] = {**definitions, "subgraphs": inner}
        return graph

    return quiet(workflow)


def _node(node: Mapping[str, Any], node_id: str, values: Iterable[Named]) -> EditorNode:
    properties = mapping(node.get("properties"))
    facts = [properties.get(name) for name in ("cnr_id", "aux_id", "ver")]
    cnr_id, aux_id, ver = (fact[:200] if isinstance(fact, str) else "" for fact in facts)
    return EditorNode(
        node_id,
        str(node["type"]),
        Pack(cnr_id, aux_id, ver) if cnr_id or aux_id else None,
        tuple(mappings(properties.get("models"))),
        tuple(values),
        tuple(str(slot.get("type")) for slot in mappings(node.get("outputs"))),
    )


def _values(node: Mapping[str, Any]) -> list[Named]:
    """The texts among a node's values, with the names of their inputs as far as the file, or the class, tells them."""
    values = node.get("widgets_values")
    if not isinstance(values, list):
        return list(texts_in(values, ""))
    names = [str(mapping(slot["widget"]).get("name")) for slot in mappings(node.get("inputs")) if slot.get("widget")]
    if len(names) == len(values):
        return [named for name, value in zip(names, values, strict=True) for named in texts_in(value, name)]
    known = iter(MODEL_INPUTS.get(str(node.get("type")), {}))
    return [
        (next(known, "") if not name and is_model_file(text) else name, text) for name, text in texts_in(values, "")
    ]


def _with_given(values: list[Named], given: Mapping[str, object]) -> list[Named]:
    """The values of a node, those that its host gives in the place of its own."""
    mine = {name: value for name, value in given.items() if isinstance(value, str)}
    return [*(named for named in values if named[0] not in mine), *mine.items()]


def _given_by(host: Mapping[str, Any], definition: _Definition, around: Mapping[str, object]) -> Given:
    """What a host gives to inputs within it. What is linked from outside it does not.

    Args:
        around: what the host itself is given, by the names of its inputs.
    """
    values = host.get("widgets_values")
    values = values if isinstance(values, list) else []
    entries = mapping(host.get("properties")).get("proxyWidgets")
    given: dict[str, dict[str, object]] = {}
    if isinstance(entries, list):
        for entry, value in zip(entries, values, strict=False):
            if isinstance(entry, list) and len(entry) > 1 and value is not None:
                given.setdefault(str(entry[0]), {})[str(entry[1])] = value
        return given
    linked = {str(slot.get("name")) for slot in mappings(host.get("inputs")) if slot.get("link") is not None}
    for position, (name, targets) in enumerate(definition.promoted.items()):
        value = around.get(name, values[position] if position < len(values) else None)
        if name not in linked and value is not None:
            for node_id, input_name in targets:
                given.setdefault(node_id, {})[input_name] = value
    return given


def _definition(definition: Mapping[str, Any]) -> _Definition:
    """A definition, with its promoted inputs: those that lead to a value of an inner node, or to an input of a host."""
    nodes = mappings(definition.get("nodes"))
    slots = {
        slot.get("link"): (str(node.get("id")), mapping(slot.get("widget")).get("name"))
        for node in nodes
        for slot in mappings(node.get("inputs"))
        if isinstance(slot.get("link"), int | str)
    }
    promoted: dict[str, list[tuple[str, str]]] = {}
    for given in mappings(definition.get("inputs")):
        links = given.get("linkIds")
        found = [slots.get(link) for link in links if isinstance(link, int | str)] if isinstance(links, list) else []
        targets = [(target[0], str(target[1])) for target in found if target is not None and target[1]]
        if targets:
            promoted[str(given.get("name"))] = targets
    return _Definition(nodes, promoted)


def _active(nodes: Iterable[Mapping[str, Any]], given: Given) -> Inside[_GivenToNode]:
    """The nodes of a graph that run, with what the host gives to inputs of each."""
    for node in nodes:
        kind, node_id = node.get("type"), str(node.get("id"))
        if isinstance(kind, str) and node.get("mode") not in (MUTED, BYPASSED) and kind not in VIRTUAL:
            yield node_id, node, given.get(node_id, {})
