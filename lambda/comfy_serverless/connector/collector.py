"""Collects the outputs of a prompt, while it runs and at its end, and reports them to the caller."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from comfy_serverless.connector.facts import EventSeen, FrameSeen, Outcome
from comfy_serverless.connector.outputs import FileLocator, Output, frame_output, identify_node, outputs_of_node
from comfy_serverless.connector.progress import Progress, ProgressTracker
from comfy_serverless.connector.unreported import unreported_files
from comfy_serverless.graph.nodes import known

_ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


def frame_nodes_of(graph: Mapping[str, Any]) -> frozenset[str]:
    """The nodes whose binary frames are results instead of previews."""
    return frozenset(node_id for node_id, node in graph.items() if known(node.get("class_type")).sends_frames)


class OutputCollector:
    """The outputs of one attempt at one prompt, in the order of the graph as submitted.

    `on_output` is called with each output once, as soon as it exists.
    """

    def __init__(
        self,
        graph: Mapping[str, Any],
        locator: FileLocator,
        *,
        on_progress: Callable[[Progress], None] | None,
        on_output: Callable[[Output], None] | None,
    ) -> None:
        self._graph = graph
        self._locator = locator
        self._on_progress = on_progress
        self._on_output = on_output
        self._tracker = ProgressTracker(graph)
        self._frame_nodes = frame_nodes_of(graph)
        self._cached: frozenset[str] = frozenset()
        self._announced: set[tuple[str, int]] = set()
        self._last_progress: Progress | None = None
        self._by_node: dict[str, list[Output]] = {}
        self._first_index: dict[str, int] = {}
        self._indexes: Counter[str] = Counter()
        #: When the prompt ran, in seconds since the epoch, as far as ComfyUI has said so, by its clock.
        self._ran = (time.time(), math.inf)

    def see(self, fact: EventSeen | FrameSeen) -> None:
        """Take note of an event."""
        if isinstance(fact, FrameSeen):
            if not fact.is_result(self._frame_nodes) and self._on_progress is not None:
                self._on_progress(self._tracker.see_preview(fact.node_id, fact.content))
            return
        self._see_time(fact.kind, fact.data.get("timestamp"))
        if fact.kind == "execution_cached":
            self._cached = frozenset(str(node) for node in fact.data.get("nodes") or ())
        elif fact.kind == "executed" and self._on_output is not None and isinstance(fact.data.get("output"), Mapping):
            node = str(fact.data["node"])
            outputs = self._outputs(node, str(fact.data.get("display_node") or node), fact.data["output"])
            if not any(output.cached and output.content is None and output.path is None for output in outputs):
                # A cached node may name files that are gone: the end of the run shows it.
                self._announce(node, outputs)
        if self._on_progress is None:
            return
        progress = self._tracker.see_event(fact.kind, fact.data)
        # Several events can bring the same progress.
        if progress is not None and progress != self._last_progress:
            self._last_progress = progress
            self._on_progress(progress)

    def collect(self, outcome: Outcome) -> tuple[Output, ...]:
        """All outputs of a prompt that has ended, in the order of the graph."""
        self._cached = frozenset(outcome.cached_nodes)
        by_node = self._by_node = {
            node: self._outputs(node, outcome.display_nodes.get(node, node), shown)
            for node, shown in outcome.shown.items()
        }
        for frame in outcome.frames:
            identity = identify_node(self._graph, frame.node_id)
            index = self._indexes[identity.node_id]
            self._indexes[identity.node_id] += 1
            frames = by_node.setdefault(frame.node_id, [])
            frames.append(frame_output(identity, index, frame.content, frame.content_type))
        for node, files in self._unreported(by_node).items():
            by_node.setdefault(node, []).extend(self._outputs(node, node, {"files": files}))
        position = {node: index for index, node in enumerate(self._graph)}
        outputs = [output for made in by_node.values() for output in made]
        return tuple(sorted(outputs, key=lambda output: position.get(output.node_id, len(position))))

    def _see_time(self, kind: str, timestamp_ms: object) -> None:
        if isinstance(timestamp_ms, int | float):
            time_s, (began, ended) = timestamp_ms / 1000, self._ran
            self._ran = (
                (time_s, ended) if kind == "execution_start" else (began, time_s) if kind in _ENDS else self._ran
            )

    def _unreported(self, by_node: Mapping[str, list[Output]]) -> dict[str, list[dict[str, str]]]:
        reporting = {output.node_id for outputs in by_node.values() for output in outputs}
        silent = [node for node in self._graph if node not in reporting]
        known = {output.path for outputs in by_node.values() for output in outputs if output.path is not None}
        return unreported_files(
            self._graph, self._locator.folders("output"), silent=silent, known=known, between=self._ran
        )

    def announce_rest(self) -> None:
        """Report the collected outputs that have not been reported yet. For the attempt whose outputs count."""
        for node, outputs in self._by_node.items():
            self._announce(node, outputs)

    def _outputs(self, node: str, display_node: str, shown: Mapping[str, Any]) -> list[Output]:
        identity = identify_node(self._graph, node, display_node)
        # Nodes made by expansion share their parent's name: they must not share indexes too.
        first = self._first_index.get(node, self._indexes[identity.node_id])
        outputs = outputs_of_node(identity, shown, self._locator, cached=node in self._cached, first_index=first)
        if node not in self._first_index:
            self._first_index[node] = first
            self._indexes[identity.node_id] += len(outputs)
        return outputs

    def _announce(self, node: str, outputs: list[Output]) -> None:
        if self._on_output is None:
            return
        for output in outputs:
            if (node, output.index) not in self._announced:
                self._announced.add((node, output.index))
                self._on_output(output)
