"""All that is known while a workflow is converted: its graphs, its classes, each node filled in once. No IO."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from comfy_serverless.graph.convert.declared import Declarations
from comfy_serverless.graph.convert.findings import Findings
from comfy_serverless.graph.convert.model import Definition, Graph, Node, Socket, Workflow
from comfy_serverless.graph.convert.packs import with_editor_code
from comfy_serverless.graph.convert.values import Filled, Input, as_saved, filled
from comfy_serverless.graph.convert.virtual import VIRTUAL


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """A graph at one place of the workflow: a definition is there once for each of its hosts.

    Attributes:
        prefix: what stands before the ids of its nodes: the ids of the hosts on the way, each with a colon.
        host: the node that it is the inside of, which stands in `parent`; None at the root.
    """

    graph: Graph
    prefix: str = ""
    host: Node | None = None
    parent: Scope | None = None
    _within: dict[str, Scope] = field(default_factory=dict, repr=False)

    def path(self, node: Node) -> str:
        """The id of a node in the prompt."""
        return self.prefix + node.id

    def inside(self, host: Node, definition: Definition) -> Scope:
        """The scope within a host; the same each time, because its prefix may be long."""
        found = self._within.get(host.id)
        if found is None:
            found = self._within[host.id] = Scope(definition, f"{self.prefix}{host.id}:", host, self)
        return found


class Scene:
    """A workflow together with the classes of an engine."""

    def __init__(self, workflow: Workflow, classes: Declarations, findings: Findings) -> None:
        self.workflow = workflow
        self.classes = classes
        self.findings = findings
        self._filled: dict[int, Filled] = {}

    def definition(self, node: Node) -> Definition | None:
        """The subgraph that a node is a host of."""
        return self.workflow.definitions.get(node.type)

    def graphs(self) -> Iterator[Graph]:
        """The root, and every definition in the order of the file."""
        yield self.workflow.root
        yield from self.workflow.definitions.values()

    def nodes_as_seen(self) -> Iterator[Node]:
        """All nodes, the inside of a host just after the host; each definition once."""
        seen: set[str] = set()
        pending = [*reversed(self.workflow.root.nodes.values())]
        while pending:
            node = pending.pop()
            yield node
            definition = self.definition(node)
            if definition is not None and definition.id not in seen:
                seen.add(definition.id)
                pending += reversed(definition.nodes.values())

    def filled(self, node: Node) -> Filled:
        """A node with its inputs and widgets; the same each time, so that what is written to it stays."""
        found = self._filled.get(id(node))
        if found is None:
            found = self._filled[id(node)] = self._fill(node)
        return found

    def _fill(self, node: Node) -> Filled:
        definition = self.definition(node)
        if definition is not None:
            return _as_host(node, definition)
        node_class = None if node.type in VIRTUAL else self.classes.get(node.type)
        if node_class is None:
            return as_saved(node)
        return with_editor_code(node, filled(node, node_class))


def _as_host(node: Node, definition: Definition) -> Filled:
    """A host: its inputs are those of the definition, matched by name, and by type where that tells more."""
    rest = list(node.inputs)

    def link_of(name: str, kind: str) -> Socket | None:
        same = [entry for entry in rest if entry.name == name]
        found = next((entry for entry in same if entry.type == kind), same[0] if same else None)
        if found is not None:
            rest.remove(found)
        return found

    inputs = []
    for port in definition.inputs:
        saved = link_of(port.name, port.type)
        inputs.append(Input(port.name, port.type, None if saved is None else saved.link))
    dropped = [entry.name for entry in rest if entry.link is not None]
    return Filled(inputs, [port.type for port in definition.outputs], dropped=dropped)
