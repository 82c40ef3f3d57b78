"""Tells what a file has and no input takes: nothing is left out silently. No IO."""

from __future__ import annotations

from comfy_serverless.graph.convert.findings import Findings, listed, named
from comfy_serverless.graph.convert.hosts import Hosts
from comfy_serverless.graph.convert.scene import Scene
from comfy_serverless.graph.convert.values import Filled, unplaced


def warn_of_lost(findings: Findings, its: str, filled: Filled) -> None:
    """Note the values and the links of a node that have no place; `its` is the node as messages call it."""
    if any(value not in (None, "") for value in filled.surplus):
        findings.warn(f"{its}: the last values ({len(filled.surplus)}) of the file belong to no widget: left out")
    if filled.unplaced:
        findings.warn(f"{its}: the class has no such inputs, so values are left out: {listed(filled.unplaced)}")
    if filled.dropped:
        findings.warn(f"{its}: the class has no such inputs, so links are left out: {listed(filled.dropped)}")


def warn_of_hosts(scene: Scene, hosts: Hosts) -> None:
    """Note what the hosts of subgraphs have for inputs that the subgraphs do not have."""
    for graph in scene.graphs():
        for node in graph.nodes.values():
            definition = scene.definition(node)
            if definition is None or node.is_out:
                continue
            its = named(node.id, node.type, node.title or definition.name)
            dropped = scene.filled(node).dropped
            if dropped:
                scene.findings.warn(f"{its}: the subgraph has no such inputs, so links are left out: {listed(dropped)}")
            values = node.values or []
            if isinstance(values, dict):
                lost = unplaced(values, {port.name for port in definition.inputs})
            else:
                lost = [
                    f"number {number + 1}"
                    for number, value in enumerate(values)
                    if value not in (None, "") and not hosts.is_placed(node, number)
                ]
            if lost and hosts.loses_values(node):
                scene.findings.warn(
                    f"{its}: the editor loses its values when it loads the file, as its subgraph stands after the one "
                    f"that it is in, so those inside are taken: {listed(lost)} are left out"
                )
            elif lost:
                scene.findings.warn(
                    f"{its}: no input of the subgraph takes these of its values, so they are left out: {listed(lost)}"
                )
