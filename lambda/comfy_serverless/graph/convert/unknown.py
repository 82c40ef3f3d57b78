"""Tells which classes of a workflow are missing, with the pack that the file names for them. No IO."""

from __future__ import annotations

from comfy_serverless.graph.convert.findings import Findings, names_subgraph, shown
from comfy_serverless.graph.convert.model import Node
from comfy_serverless.graph.convert.virtual import group_name
from comfy_serverless.graph.nodes import COMFYUI_ITSELF

_MOST_NODES = 20


class UnknownClasses:
    """The missing classes, with the nodes that are of them."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._nodes: dict[str, list[tuple[str, Node]]] = {}

    def note(self, path: str, node: Node) -> None:
        """Note a node whose class is missing."""
        self._nodes.setdefault(node.type, []).append((path, node))

    def tell(self) -> None:
        """Give one reason for each missing class."""
        for class_type, nodes in self._nodes.items():
            path, _ = nodes[0]
            pack, told = _pack(nodes), pack_in_words(nodes)
            ids = [path for path, _ in nodes]
            more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
            self._findings.refuse(
                "missing_node_type",
                f"{_what(class_type)} (node {shown(path)}{more}{told})",
                node_id=path,
                class_type=class_type,
                node_ids=ids[:_MOST_NODES],
                **pack,
            )


def _what(class_type: str) -> str:
    group = group_name(class_type)
    if group is not None:
        return f"the group {shown(group)!r} is not in the file"
    if names_subgraph(class_type):
        return f"the subgraph {shown(class_type)!r} is not in the file"
    return f"the node class {shown(class_type)!r} is not installed"


def pack_in_words(nodes: list[tuple[str, Node]]) -> str:
    """The pack that the file names for nodes of a class, as the rest of a sentence; "" if it names none."""
    pack = _pack(nodes)
    called = pack["cnr_id"] or pack["aux_id"]
    if called == COMFYUI_ITSELF:
        return f", of ComfyUI {shown(pack['ver'])} itself" if pack["ver"] else ", of ComfyUI itself"
    version = f" {shown(pack['ver'])}" if called and pack["ver"] else ""
    return f", of the pack {shown(called)}{version}" if called else ""


def _pack(nodes: list[tuple[str, Node]]) -> dict[str, str | None]:
    return {name: _first(name, nodes) for name in ("cnr_id", "aux_id", "ver")}


def _first(name: str, nodes: list[tuple[str, Node]]) -> str | None:
    found = (node.properties.get(name) for _, node in nodes)
    return next((value for value in found if isinstance(value, str) and value), None)
