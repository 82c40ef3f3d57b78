"""Partner nodes ("API nodes") call paid services of others, with the caller's own key: without one they are off. Pure.

ComfyUI finds out only once it comes to such a node, when all before it has run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.lookup import listing
from comfy_serverless.graph.node_errors import node_errors_of
from comfy_serverless.graph.nodes import Declared
from comfy_serverless.graph.workflow import is_link

#: Where ComfyUI looks for the caller's key in `extra_data`.
KEYS = ("api_key_comfy_org", "auth_token_comfy_org")
_TYPE = "partner_node_without_key"


def check_partner_nodes(
    graph: Mapping[str, Any], declarations: Mapping[str, Declared], extra_data: Mapping[str, Any] | None
) -> None:
    """Raise InvalidWorkflow if a checked graph would run partner nodes, and there is no key for them."""
    if any((extra_data or {}).get(name) for name in KEYS):
        return
    partners = {
        node_id: f"is a partner node ({graph[node_id]['class_type']})"
        for node_id in _that_run(graph, declarations)
        if (said := declarations.get(graph[node_id]["class_type"])) is not None and said.is_partner
    }
    if partners:
        raise InvalidWorkflow(
            f"{listing(partners, form='Node {} {}')}: it calls a paid service, and this job has no key for it. Send "
            f"one of your own as extra_data.{KEYS[0]} (https://platform.comfy.org), or take the node out.",
            details=node_errors_of(
                partners, lambda node_id, problem: (graph[node_id]["class_type"], problem), error_type=_TYPE
            ),
        )


def _that_run(graph: Mapping[str, Any], declarations: Mapping[str, Declared]) -> list[str]:
    """The nodes that outputs need, in the order of the graph. A class of which nothing was said may be an output."""
    waiting = [
        node_id
        for node_id, node in graph.items()
        if (said := declarations.get(node["class_type"])) is None or said.is_output
    ]
    needed: set[str] = set()
    while waiting:
        node_id = waiting.pop()
        if node_id in needed or node_id not in graph:
            continue
        needed.add(node_id)
        waiting += [value[0] for value in graph[node_id]["inputs"].values() if is_link(value)]
    return [node_id for node_id in graph if node_id in needed]
