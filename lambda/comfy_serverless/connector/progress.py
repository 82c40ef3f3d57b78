"""How far a prompt is, from the events seen so far. No IO.

A node counts once, and a sampler once for each of its steps: beside twenty steps everything else is soon done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_serverless.connector.outputs import identify_node
from comfy_serverless.graph.workflow import is_link

#: The inputs of ComfyUI's samplers, and of what gives them their steps.
_DENOISED, _STEPS, _SCHEDULE = "latent_image", "steps", "sigmas"
#: From a sampler to its schedule lie a few nodes that cut or join it.
_LONGEST_WAY = 8
_MOST_STEPS = 10_000


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
        done: the ids of the finished nodes, including cached ones.
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
    done: frozenset[str] = field(default=frozenset(), repr=False)


class ProgressTracker:
    """Folds the events of one prompt into snapshots."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        self._weights = weights_of(graph)
        self._all = sum(self._weights.values())
        self._done: frozenset[str] = frozenset()
        self._weight_done = 0.0
        self._running: dict[str, float] = {}
        self._current: str | None = None
        self._step: tuple[int, int] | None = None
        self._value = 0.0

    def see_event(self, kind: str, data: Mapping[str, Any]) -> Progress | None:
        """A new snapshot, or None if the event has nothing to do with progress."""
        if kind == "execution_cached":
            self._finish(node for node in data.get("nodes") or () if node in self._graph)
        elif kind == "progress_state":
            self._see_states(data.get("nodes") or {})
        elif kind == "executing":
            if data.get("node") is None:
                return None
            self._current, self._step = str(data["node"]), None
        elif kind == "progress":
            self._current = str(data.get("node") or self._current or "") or None
            self._step = (round(_number(data.get("value"))), round(_number(data.get("max"))))
            if self._current is not None and self._current in self._graph:
                self._see_part(self._current, data)
        elif kind == "execution_success":
            self._finish(self._graph)
        else:
            return None
        return self.snapshot()

    def see_preview(self, node_id: str, content: bytes) -> Progress:
        """A snapshot that carries the preview."""
        self._current = node_id
        return self.snapshot(preview=content)

    def snapshot(self, *, preview: bytes | None = None) -> Progress:
        """Where the prompt stands now."""
        reached = self._weight_done + sum(part * self._weights[node] for node, part in self._running.items())
        self._value = max(self._value, min(1.0, reached / self._all if self._all else 1.0))
        node = identify_node(self._graph, self._current) if self._current else None
        step, steps = self._step or (None, None)
        return Progress(
            value=round(self._value, 4),
            nodes_done=len(self._done),
            nodes_total=len(self._graph),
            current_node=node.node_id if node else None,
            current_node_class=node.class_type if node else None,
            step=step,
            steps=steps,
            message=_message(node.title if node else None, step, steps),
            preview=preview,
            done=self._done,
        )

    def _see_states(self, nodes: Mapping[str, Any]) -> None:
        finished = []
        for node_id, state in nodes.items():
            if node_id in self._done or node_id not in self._graph:
                continue
            if state.get("state") == "finished":
                finished.append(node_id)
            else:
                self._see_part(node_id, state)
        self._finish(finished)

    def _finish(self, nodes: Iterable[str]) -> None:
        """These nodes are done; they may have been before."""
        new = frozenset(nodes) - self._done
        if new:
            self._done |= new
            self._weight_done += sum(self._weights[node] for node in new)
            for node in new:
                self._running.pop(node, None)

    def _see_part(self, node_id: str, state: Mapping[str, Any]) -> None:
        """A node says how far it is."""
        if node_id in self._done:
            return
        self._running[node_id] = min(1.0, _number(state.get("value")) / (_number(state.get("max")) or 1))


def weights_of(graph: Mapping[str, Any]) -> dict[str, float]:
    """What each node counts: a sampler as much as it has steps, every other node 1."""
    return {node_id: float(_steps_of(graph, node_id)) for node_id in graph}


def _steps_of(graph: Mapping[str, Any], node_id: str) -> int:
    """The steps of a node that denoises: its own, or those of the schedule that it is connected to; else 1."""
    inputs = graph[node_id]["inputs"]
    if _DENOISED not in inputs:
        return 1
    for _ in range(_LONGEST_WAY):
        steps = inputs.get(_STEPS)
        if isinstance(steps, int) and not isinstance(steps, bool):
            return min(max(steps, 1), _MOST_STEPS)
        source = inputs.get(_STEPS if is_link(steps) else _SCHEDULE)
        if not is_link(source) or source[0] not in graph:
            break
        inputs = graph[source[0]]["inputs"]
        if is_link(steps):  # a constant: whatever its input is called
            inputs = {_STEPS: next((value for value in inputs.values() if isinstance(value, int)), None)}
    return 1


def _number(value: object) -> float:
    """The value if it is a number, else 0: custom nodes report anything they like."""
    return max(0.0, float(value)) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _message(title: str | None, step: int | None, steps: int | None) -> str | None:
    if title is None:
        return None
    return f"{title} {step}/{steps}" if steps and steps > 1 else title
