"""Nodes that exist in the editor only, and never are in a prompt. No IO.

Those of packs are known by what their editor code does; they are in no `/object_info`. A virtual node hands on what
comes into the input with the number of the output that is asked for: so a Reroute does, and KJNodes' SetNode.
"""

from __future__ import annotations

from typing import Any

from comfy_serverless.graph.convert.model import Node
from comfy_serverless.graph.nodes import NOTES

PRIMITIVE, GET, SET = "PrimitiveNode", "GetNode", "SetNode"
_OF_EDITOR = frozenset({PRIMITIVE, "Reroute", *NOTES})
_OF_KJNODES = frozenset({GET, SET})
#: The effect of the switches among them is in the modes that the file has of other nodes.
_OF_RGTHREE = frozenset(
    f"{name} (rgthree)"
    for name in (
        "Reroute",
        "Fast Muter",
        "Fast Bypasser",
        "Fast Groups Muter",
        "Fast Groups Bypasser",
        "Mute / Bypass Relay",
        "Mute / Bypass Repeater",
        "Random Unmuter",
        "Fast Actions Button",
        "Label",
        "Bookmark",
        "Node Collector",
    )
)
VIRTUAL = _OF_EDITOR | _OF_KJNODES | _OF_RGTHREE
#: What stands before the name of a group in the type of a node that stands for one; the second is the older.
_OF_GROUPS = ("workflow>", "workflow/")
#: cg-use-everywhere links nodes in its editor code only: with one of these a file does not say what is linked.
_EVERYWHERE = ("Anything Everywhere", "Prompts Everywhere", "Seed Everywhere")


def group_name(class_type: str) -> str | None:
    """The name of the group that nodes of a type stand for; None if it is no such type."""
    return next((class_type[len(prefix) :] for prefix in _OF_GROUPS if class_type.startswith(prefix)), None)


def is_everywhere(class_type: str) -> bool:
    """Whether nodes of a class have links that are in no file."""
    return class_type.startswith(_EVERYWHERE)


def first_value(node: Node) -> Any:  # noqa: ANN401
    """The first value of a node; None if it has none."""
    values = node.values
    if isinstance(values, dict):
        values = list(values.values())
    return values[0] if values else None
