"""How far a prompt is, from the events seen so far. No IO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.connector.outputs import identify_node


@dataclass(frozen=True, slots=True)
class Progress:
    """One complete snapshot, with the fields of the Comfy API v2's Progress.

    Attributes:
        value: overall fraction, 0 to 1; never decreases.
        nodes_done: finished nodes, including cached ones.
        nodes_total: nodes of the graph.
        current_node: node id of the submitted graph.
        current_node_class: its class.
        step: finished steps of the current node, if it counts them.
        steps: all steps of the current node.
        message: for people, e.g. "KSampler 21/50".
        preview: JPEG of the emerging picture, only in the snapshot that brings a new one.
    """

    value: float
    nodes_done: int
    nodes_total: int
    current_node: str | None = None
    current_node_class: str | None = None
    step: int | None = None
    steps: int | None = None
    message: str | None = None
    preview: bytes | None = field(default=None, repr=False)


class ProgressTracker:
    """Folds the events of one prompt into snapshots."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        self._done: set[str] = set()
        self._running: dict[str, float] = {}
        self._current: str | None = None
        self._step: tuple[int, int] | None = None
        self._value = 0.0

    def see_event(self, kind: str, data: Mapping[str, Any]) -> Progress | None:
        """A new snapshot, or None if the event has nothing to do with progress."""
        if kind == "execution_cached":
            self._done.update(node for node in data.get("nodes") or () if node in self._graph)
        elif kind == "progress_state":
            self._see_states(data.get("nodes") or {})
        elif kind == "executing":
            if data.get("node") is None:
                return None
            self._current, self._step = str(data["node"]), None
        elif kind == "progress":
            self._current = str(data.get("node") or self._current or "") or None
            self._step = (round(_number(data.get("value"))), round(_number(data.get("max"))))
        elif kind == "execution_success":
            self._done.update(self._graph)
        else:
            return None
        return self.snapshot()

    def see_preview(self, node_id: str, content: bytes) -> Progress:
        """A snapshot that carries the preview."""
        self._current = node_id
        return self.snapshot(preview=content)

    def snapshot(self, *, preview: bytes | None = None) -> Progress:
        """Where the prompt stands now."""
        total = len(self._graph)
        partial = sum(fraction for node, fraction in self._running.items() if node not in self._done)
        self._value = max(self._value, min(1.0, (len(self._done) + partial) / total if total else 1.0))
        node = identify_node(self._graph, self._current) if self._current else None
        step, steps = self._step or (None, None)
        return Progress(
            value=round(self._value, 4),
            nodes_done=len(self._done),
            nodes_total=total,
            current_node=node.node_id if node else None,
            current_node_class=node.class_type if node else None,
            step=step,
            steps=steps,
            message=_message(node.title if node else None, step, steps),
            preview=preview,
        )

    def _see_states(self, nodes: Mapping[str, Any]) -> None:
        for node_id, state in nodes.items():
            if node_id not in self._graph:
                continue
            if state.get("state") == "finished":
                self._done.add(node_id)
            else:
                self._running[node_id] = min(1.0, _number(state.get("value")) / (_number(state.get("max")) or 1))


def _number(value: object) -> float:
    """The value if it is a number, else 0: custom nodes report anything they like."""
    return max(0.0, float(value)) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _message(title: str | None, step: int | None, steps: int | None) -> str | None:
    if title is None:
        return None
    return f"{title} {step}/{steps}" if steps and steps > 1 else title
