"""Keeps the results of the last prompt's nodes. The key is what a node computes, never its id.

A node's signature covers its class, its constants, its fingerprint and the signatures of everything it depends on.
Two nodes with the same signature are one computation: the second gets the first one's result, even within a prompt.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_lite.graph import Prompt, links_of
from comfy_lite.node import Directories, NodeType

logger = logging.getLogger("comfy_lite")


@dataclass(frozen=True, slots=True)
class CachedNode:
    """The results of a node, and the id it had when it ran (the history names that id, whichever node reuses them)."""

    outputs: tuple[Any, ...]
    ui: Mapping[str, Any] | None
    ran_as: str


class Cache:
    """Holds the results of the current prompt's nodes, and of earlier ones what was not dropped since."""

    def __init__(self) -> None:
        self._results: dict[str, CachedNode] = {}
        self._signatures: Mapping[str, str] = {}

    def begin(self, signatures: Mapping[str, str]) -> None:
        """Switch to a new prompt, given the signature of each of its nodes."""
        self._signatures = signatures

    def drop_others(self) -> None:
        """Drop the results that the current prompt does not need."""
        wanted = set(self._signatures.values())
        self._results = {key: kept for key, kept in self._results.items() if key in wanted}

    def get(self, node_id: str) -> CachedNode | None:
        return self._results.get(self._signatures.get(node_id, ""))

    def put(self, node_id: str, result: CachedNode) -> None:
        self._results[self._signatures[node_id]] = result

    def clear(self) -> None:
        self._results.clear()


def signatures_of(prompt: Prompt, *, nodes: Mapping[str, NodeType], directories: Directories) -> dict[str, str]:
    """The signature of each node of a prompt."""
    signatures: dict[str, str] = {}
    for node_id in prompt:
        stack = [node_id]
        open_nodes: set[str] = set()
        while stack:
            current = stack[-1]
            missing = [
                source
                for _, source, _ in links_of(prompt[current])
                if source in prompt and source not in signatures and source not in open_nodes
            ]
            if current in signatures or not missing:
                stack.pop()
                if current not in signatures:
                    signatures[current] = _signature(prompt, current, nodes, directories, signatures)
                continue
            open_nodes.add(current)
            stack.extend(missing)
    return signatures


def constants_of(node: Mapping[str, Any], node_type: NodeType, directories: Directories) -> dict[str, Any]:
    """The declared inputs of a node that hold values, not links."""
    linked = {name for name, _, _ in links_of(node)}
    declared = declared_inputs(node_type, directories)
    return {name: value for name, value in node["inputs"].items() if name in declared and name not in linked}


def declared_inputs(node_type: NodeType, directories: Directories) -> dict[str, tuple[Any, ...]]:
    """Required and optional inputs together, as declared at this moment."""
    inputs: dict[str, tuple[Any, ...]] = {}
    for group in (node_type.required, node_type.optional):
        inputs.update(group(directories) if callable(group) else group)
    return inputs


def _signature(
    prompt: Prompt,
    node_id: str,
    nodes: Mapping[str, NodeType],
    directories: Directories,
    signatures: Mapping[str, str],
) -> str:
    node = prompt[node_id]
    linked = {name: [signatures.get(source, source), slot] for name, source, slot in links_of(node)}
    described = {
        "class": node["class_type"],
        "fingerprint": _fingerprint(node, nodes[node["class_type"]], directories),
        "links": linked,
        "constants": {name: value for name, value in node["inputs"].items() if name not in linked},
    }
    text = json.dumps(described, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint(node: Mapping[str, Any], node_type: NodeType, directories: Directories) -> Any:  # noqa: ANN401
    """The value that changes when a node must run again. One that fails, or differs from itself, never matches."""
    if node_type.fingerprint is None:
        return None
    try:
        value = node_type.fingerprint(directories, **constants_of(node, node_type, directories))
    except Exception:
        logger.exception("fingerprint of %s failed: the node will run again", node_type.class_type)
        return uuid.uuid4().hex
    return repr(value) if value == value else uuid.uuid4().hex
