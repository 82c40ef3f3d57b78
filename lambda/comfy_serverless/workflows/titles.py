"""Whether somebody has given a node its title. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.graph.lookup import title_of
from comfy_serverless.workflows.naming import words_of


def is_given(node: Mapping[str, Any], object_info: Mapping[str, Any] | None) -> bool:
    """Whether its title is neither its class nor what the editor calls that class."""
    title, usual = title_of(node), (str(node.get("class_type")), usual_title(node, object_info))
    if title in usual:
        return False
    words = words_of(title)
    return not words or all(words != words_of(name) for name in usual)


def usual_title(node: Mapping[str, Any], object_info: Mapping[str, Any] | None) -> str:
    """What the editor calls nodes of its class; the class if that is not known."""
    class_type = str(node.get("class_type"))
    declared = (object_info or {}).get(class_type)
    shown = declared.get("display_name") if isinstance(declared, Mapping) else None
    return shown if isinstance(shown, str) and shown else class_type
