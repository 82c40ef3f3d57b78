"""Refuses what would grow without bound: subgraphs that contain themselves, and hosts of hosts of hosts. No IO."""

from __future__ import annotations

from collections.abc import Iterator

from comfy_serverless.graph.convert.findings import shown
from comfy_serverless.graph.convert.model import Definition, Graph
from comfy_serverless.graph.convert.scene import Scene

#: The most nodes of a prompt, and the deepest subgraph.
MOST_EXPANDED, MOST_LEVELS = 50_000, 30
#: The most inputs of all hosts together.
MOST_HOST_INPUTS = 200_000
#: The most values of the widgets of one node: of some classes, each becomes an input.
MOST_VALUES = 20_000


def check_expansion(scene: Scene) -> None:
    """Note in the findings if the workflow is too large when every host is expanded, or would never end."""
    sizes: dict[str, tuple[int, int]] = {}
    open_ids: set[str] = set()

    def measured(graph: Graph, depth: int) -> tuple[int, int]:
        """The number of nodes when all hosts in a graph are expanded, and how deep that goes."""
        size = levels = 0
        for node in graph.nodes.values():
            definition = scene.definition(node)
            size += 1
            if definition is not None:
                inner = of_definition(definition, depth + 1)
                size, levels = size + inner[0], max(levels, inner[1] + 1)
        return size, levels

    def of_definition(definition: Definition, depth: int) -> tuple[int, int]:
        if definition.id in open_ids:
            scene.findings.refuse("contains_itself", f"the subgraph {shown(definition.name)!r} contains itself")
            return 0, 0
        if depth > MOST_LEVELS:
            scene.findings.refuse("too_deep", f"subgraphs stand within each other more than {MOST_LEVELS} deep")
            return 0, 0
        if definition.id not in sizes:
            open_ids.add(definition.id)
            sizes[definition.id] = measured(definition, depth)
            open_ids.discard(definition.id)
        return sizes[definition.id]

    if sum(len(definition.inputs) for definition in _of_hosts(scene)) > MOST_HOST_INPUTS:
        scene.findings.refuse(
            "too_large", f"its subgraphs have more than {MOST_HOST_INPUTS:,} inputs, all hosts together"
        )
    size, levels = measured(scene.workflow.root, 0)
    if levels > MOST_LEVELS:
        scene.findings.refuse("too_deep", f"subgraphs stand within each other more than {MOST_LEVELS} deep")
    if size > MOST_EXPANDED:
        scene.findings.refuse("too_large", f"with every subgraph expanded it has more than {MOST_EXPANDED:,} nodes")
    for (
        definition
    ) in scene.workflow.definitions.values():  # one that no host at the root reaches may be in a circle, too
        of_definition(definition, 0)


def check_values(scene: Scene) -> None:
    """Note in the findings the nodes that have more values than any has."""
    for graph in scene.graphs():
        for node in graph.nodes.values():
            if node.values is not None and len(node.values) > MOST_VALUES:
                scene.findings.refuse(
                    "too_large",
                    f"node {shown(node.id)} ({shown(node.type)}) has more than {MOST_VALUES:,} values",
                    node_id=node.id,
                    class_type=node.type,
                )


def _of_hosts(scene: Scene) -> Iterator[Definition]:
    """The definition of each host of the file."""
    for graph in scene.graphs():
        for node in graph.nodes.values():
            definition = scene.definition(node)
            if definition is not None:
                yield definition
