"""What is done to a workflow in the editor's format beside its conversion (`graph.convert`): what it may bring. No IO.

The editor's workflow goes along into the pictures that ComfyUI saves, so that they can be opened in the editor again.
Nothing may get there that an exported workflow would not have brought there: no data for ComfyUI that may be a key, and
no address of a file, whose name stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from comfy_serverless.graph.editor_nodes import graphs_of
from comfy_serverless.graph.file_inputs import as_address, is_address, scheme_of
from comfy_serverless.graph.nodes import NOTES

#: The property of a host with its values for inputs that the editor did not find: they count all the same.
_UNPLACED = "proxyWidgetErrorQuarantine"


def nodes_of(workflow: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of an editor's workflow: its own, and those of its subgraphs and group nodes, at any depth."""
    for graph in graphs_of(workflow):
        nodes = graph.get("nodes")
        yield from (node for node in nodes if isinstance(node, dict)) if isinstance(nodes, list) else ()


def values_of(node: Mapping[str, Any]) -> Iterator[object]:
    """What stands in the widgets of a node, and all that is in it; also the values that an editor could not place."""
    properties = node.get("properties")
    unplaced = properties.get(_UNPLACED) if isinstance(properties, Mapping) else None
    pending = [node.get("widgets_values"), *([] if unplaced is None else [unplaced])]
    while pending:
        value = pending.pop()
        yield value
        if isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def without_addresses(workflow: Mapping[str, Any], fetched: Collection[str]) -> dict[str, Any]:
    """A copy of an editor's workflow with the names of files in the place of their addresses, in its widgets.

    Args:
        fetched: the addresses that are fetched for it; all others are values of nodes, and stay.
    """

    def shown(value: object) -> object:
        if not isinstance(value, str) or not is_address(address := as_address(value)):
            return value
        return name_of(address) if address in fetched else value

    return _with_values(workflow, shown) if fetched else dict(workflow)


def name_of(address: str) -> str:
    """The name of the file that an address leads to; "" if it has none."""
    match scheme_of(address):
        case "data":
            return ""
        case "s3":
            return PurePosixPath(address.partition("?")[0]).name
        case _:
            return PurePosixPath(unquote(urlsplit(address).path)).name


def _with_values(workflow: Mapping[str, Any], change: Callable[[object], object]) -> dict[str, Any]:
    """A copy in which each single value in the widgets of nodes is what `change` makes of it. Notes stay.

    The workflow has passed `check_editor_format`, so it is not deep.
    """

    def changed(value: object) -> object:
        if isinstance(value, Mapping):
            return {name: changed(part) for name, part in value.items()}
        return [changed(part) for part in value] if isinstance(value, list) else change(value)

    def of_node(node: object) -> object:
        if not isinstance(node, Mapping) or node.get("type") in NOTES:
            return node
        result = dict(node)
        if "widgets_values" in node:
            result["widgets_values"] = changed(node["widgets_values"])
        if isinstance(properties := node.get("properties"), Mapping) and _UNPLACED in properties:
            result["properties"] = {**properties, _UNPLACED: changed(properties[_UNPLACED])}
        return result

    def of_graph(graph: object) -> Any:  # noqa: ANN401
        if not isinstance(graph, Mapping):
            return graph
        result = dict(graph)
        if isinstance(nodes := graph.get("nodes"), list):
            result["nodes"] = [of_node(node) for node in nodes]
        definitions, extra = graph.get("definitions"), graph.get("extra")
        if isinstance(definitions, Mapping) and isinstance(subgraphs := definitions.get("subgraphs"), list):
            result["definitions"] = {**definitions, "subgraphs": [of_graph(inner) for inner in subgraphs]}
        if isinstance(extra, Mapping) and isinstance(groups := extra.get("groupNodes"), Mapping):
            result["extra"] = {**extra, "groupNodes": {name: of_graph(inner) for name, inner in groups.items()}}
        return result

    whole: dict[str, Any] = of_graph(workflow)
    return whole
