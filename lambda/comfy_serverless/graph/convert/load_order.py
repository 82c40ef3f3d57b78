"""Which hosts of subgraphs lose their values while the editor loads a file. No IO.

Observed of the official editor 1.49.6: it puts the definitions into an order in which each stands after those that it
needs. That fails if one has two hosts of the same other one. Then the order of the file stays, and a host whose
definition stands after the one that it is in has the values of the inner widgets in place of its own.
"""

from __future__ import annotations

from comfy_serverless.graph.convert.model import Node, Workflow


def hosts_without_values(workflow: Workflow) -> set[int]:
    """The identities of the host nodes whose own values do not count."""
    places = {identity: place for place, identity in enumerate(workflow.definitions)}
    hosts: list[tuple[int, Node]] = []
    is_kept = False
    for place, definition in enumerate(workflow.definitions.values()):
        inner = [node for node in definition.nodes.values() if node.type in places]
        is_kept = is_kept or len({node.type for node in inner}) < len(inner)
        hosts += [(place, node) for node in inner]
    return {id(node) for place, node in hosts if is_kept and places[node.type] > place}
