"""The nodes of an editor's workflow that will be in its graph, as far as that is plain without declarations. No IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from comfy_serverless.graph.editor_nodes import (
    BYPASSED,
    GROUP_PREFIXES,
    MUTED,
    Inside,
    Step,
    all_subgraphs,
    groups_in,
    walk,
)
from comfy_serverless.graph.file_inputs import name_in_input_folder
from comfy_serverless.graph.nodes import known

#: The most nodes that are walked: a subgraph in a subgraph can mean very many.
_MOST_NODES = 20_000


class ActiveNode(NamedTuple):
    """A node, and the id that it gets in the graph, unless that is given twice in the file."""

    path: str
    node: Mapping[str, Any]

    @property
    def class_type(self) -> str:
        """Its class; "" if it has none."""
        class_type = self.node.get("type")
        return class_type if isinstance(class_type, str) else ""

    @property
    def file_inputs(self) -> tuple[str, ...]:
        """The inputs that take the name of a file, of a class that we know."""
        return tuple(known(self.class_type).files)

    def file_in(self, name: str) -> str | None:
        """The name of the file that stands in such an input; None if that is not plain."""
        values = self.node.get("widgets_values")
        if isinstance(values, list):  # of such classes the file comes first
            values = {name: next(iter(values), None)}
        found = values.get(name) if isinstance(values, Mapping) else None
        return name_in_input_folder(found) if isinstance(found, str) and found else None

    def is_called(self, name: str) -> bool:
        """Whether an address may mean it by this name: its id, class or title."""
        return name in (self.path, self.class_type, self.node.get("title"))


def active_nodes(workflow: Mapping[str, Any]) -> Iterator[ActiveNode]:
    """The nodes that are neither muted nor bypassed, with those inside of subgraphs and group nodes."""
    inner = _definitions(workflow)
    left = iter(range(_MOST_NODES))

    def inside(step: Step[None]) -> Inside[None] | None:
        if next(left, None) is None:
            raise _Enough
        if step.kind not in inner:
            return None
        return () if step.kind in step.hosts else _nodes(inner[step.kind])  # one that is in itself has an end

    with suppress(_Enough):
        for step in walk(_nodes(workflow), inside):
            yield ActiveNode(step.path, step.node)


class _Enough(Exception):
    """So many nodes are walked, and no more."""


def _nodes(graph: Mapping[str, Any]) -> Inside[None]:
    """Those of one graph that are not out."""
    nodes = graph.get("nodes")
    for place, node in enumerate(nodes if isinstance(nodes, list) else ()):
        if isinstance(node, Mapping) and node.get("mode") not in (MUTED, BYPASSED):
            yield str(node.get("id", place)), node, None


def file_inputs(workflow: Mapping[str, Any]) -> list[str]:
    """The addresses of all inputs that take the name of a file: by class where there is one of it, else by id."""
    found = [node for node in active_nodes(workflow) if node.file_inputs]
    classes = Counter(node.class_type for node in found)
    return [
        f"{node.class_type if classes[node.class_type] == 1 else node.path}.{name}"
        for node in found
        for name in node.file_inputs
    ]


def _definitions(workflow: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What its nodes may stand for: subgraphs by their ids, group nodes by their types."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in all_subgraphs(workflow):
        if isinstance(each.get("id"), str):
            found.setdefault(each["id"], each)
    for name, group in groups_in(workflow).items():
        if isinstance(group, Mapping):
            found |= dict.fromkeys((f"{prefix}{name}" for prefix in GROUP_PREFIXES), group)
    return found
