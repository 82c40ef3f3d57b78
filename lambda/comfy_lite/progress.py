"""The progress of each node of the running prompt, in the form of the `progress_state` message."""

from __future__ import annotations

from typing import Any


class ProgressBoard:
    """The nodes that have started, in that order. Every snapshot shows all of them."""

    def __init__(self, prompt_id: str) -> None:
        self._prompt_id = prompt_id
        self._nodes: dict[str, dict[str, Any]] = {}

    def start(self, node_id: str) -> None:
        self._set(node_id, 0.0, 1.0, state="running")

    def update(self, node_id: str, value: float, maximum: float) -> None:
        self._set(node_id, value, maximum, state="running")

    def finish(self, node_id: str) -> None:
        maximum = self._nodes[node_id]["max"] if node_id in self._nodes else 1
        self._set(node_id, maximum, maximum, state="finished")

    def snapshot(self) -> dict[str, Any]:
        return {"prompt_id": self._prompt_id, "nodes": {node_id: dict(node) for node_id, node in self._nodes.items()}}

    def _set(self, node_id: str, value: float, maximum: float, *, state: str) -> None:
        self._nodes[node_id] = {"value": value, "max": maximum, "state": state, "prompt_id": self._prompt_id} | {
            "node_id": node_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
