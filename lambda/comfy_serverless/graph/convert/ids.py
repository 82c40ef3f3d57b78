"""Makes the ids of nodes unique over all graphs of a workflow. No IO.

Observed of the official editor 1.49.6: definitions are walked in the order of the file; an id that the root or an
earlier definition has is replaced by the next free number after the last one that was given. Definitions within
definitions keep theirs.
"""

from __future__ import annotations

from typing import Any

from comfy_serverless.graph.convert.model import Definition, Node, Workflow


def make_unique(workflow: Workflow) -> None:
    """Give new ids to inner nodes whose ids are used already, and adapt links and `proxyWidgets`."""
    used = {node.number for node in workflow.root.nodes.values() if node.number is not None}
    last = max(workflow.last_node_id, *used, 0) if used else workflow.last_node_id
    hosts: dict[str, list[Node]] = {}
    for graph in (workflow.root, *workflow.definitions.values()):
        for node in graph.nodes.values():
            if node.type in workflow.definitions:
                hosts.setdefault(node.type, []).append(node)
    for definition in workflow.definitions.values():
        if definition.is_nested:
            continue
        renamed: dict[str, str] = {}
        for node in definition.nodes.values():
            if node.number is None:
                continue
            if node.number in used:
                last += 1
                while last in used:
                    last += 1
                renamed[node.id] = str(last)
                node.number = last
            used.add(node.number)
            last = max(last, node.number)
        if renamed:
            _rename(definition, renamed, hosts.get(definition.id, []))


def _rename(definition: Definition, renamed: dict[str, str], hosts: list[Node]) -> None:
    nodes = {renamed.get(node.id, node.id): node for node in definition.nodes.values()}
    for node_id, node in nodes.items():
        node.id = node_id
    definition.nodes = nodes
    for link in definition.links.values():
        link.origin = renamed.get(link.origin, link.origin)
        link.target = renamed.get(link.target, link.target)
    for host in hosts:
        _rename_proxies(host, renamed)


def _rename_proxies(host: Node, renamed: dict[str, str]) -> None:
    entries = host.properties.get("proxyWidgets")
    if isinstance(entries, list):
        host.properties = {**host.properties, "proxyWidgets": [_renamed(entry, renamed) for entry in entries]}


def _renamed(entry: Any, renamed: dict[str, str]) -> Any:  # noqa: ANN401
    if isinstance(entry, list) and entry and isinstance(entry[0], str | int):
        return [renamed.get(str(entry[0]), entry[0]), *entry[1:]]
    return entry
