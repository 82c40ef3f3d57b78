"""Where in a graph the value of a named input goes: `6.text`, or `313.model.resolution`. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The id of a node in the graph, and the name of its input.
Target = tuple[str, str]


def place_of(graph: Mapping[str, Any], target: str) -> Target | None:
    """The id of the node and the name of the input; None if the graph has no such node.

    Both may contain dots: of several ways to read it, one where the node has that input is meant.
    """
    found: Target | None = None
    for position, letter in enumerate(target):
        node = graph.get(target[:position]) if letter == "." else None
        if node is None:
            continue
        place = target[:position], target[position + 1 :]
        if place[1] in node["inputs"]:
            return place
        found = found or place
    return found
