"""Collects the outputs of a prompt, while it runs and at its end, and reports them to the caller."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_serverless.connector.facts import EventSeen, FrameSeen, Outcome
from comfy_serverless.connector.made_files import Made, MadeFiles, Place
from comfy_serverless.connector.outputs import (
    Output,
    file_output,
    frame_output,
    identify_node,
    outputs_of_node,
)
from comfy_serverless.connector.progress import Progress, ProgressTracker
from comfy_serverless.connector.writers import Writers
from comfy_serverless.graph.nodes import known
from comfy_serverless.json_text import is_finite

#: How long files are waited for that nodes write after their end, and the time between two looks, in seconds.
_LATE_S, _LOOK_S = 1.5, 0.02
#: A class of nodes is not waited for again after so many times.
_TIMES_IN_VAIN = 3
_PLACES_SHOWN = 3
_ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


def frame_nodes_of(graph: Mapping[str, Any]) -> frozenset[str]:
    """The nodes whose binary frames are results instead of previews."""
    return frozenset(node_id for node_id, node in graph.items() if known(node.get("class_type")).sends_frames)


class OutputCollector:
    """The outputs of one attempt at one prompt, in the order of the graph as submitted.

    Args:
        graph: as submitted.
        files: tells what the run has made.
        on_progress: called with every new snapshot.
        on_output: called with each output once, as soon as it exists.
        given: the graph that progress is told of: without nodes of ours. As submitted by default.
    """

    def __init__(
        self,
        graph: Mapping[str, Any],
        files: MadeFiles,
        *,
        on_progress: Callable[[Progress], None] | None,
        on_output: Callable[[Output], None] | None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        self._graph = graph
        self._files = files
        self._on_progress = on_progress
        self._on_output = on_output
        self._tracker = ProgressTracker(graph if given is None else given) if on_progress is not None else None
        self._frame_nodes = frame_nodes_of(graph)
        self._writers = Writers(graph)
        self._cached: frozenset[str] = frozenset()
        self._last_progress: Progress | None = None
        self._announced: set[tuple[str, int]] = set()
        #: What nodes have shown, and whether its files are known; in this order they are taken.
        self._waiting: deque[tuple[Mapping[str, Any], Callable[[], bool]]] = deque()
        #: What was taken while the run went on: it stays as it was.
        self._settled: dict[str, list[Output]] = {}
        self._by_node: dict[str, list[Output]] = {}
        #: The files that no node has named.
        self._rest: list[Made] = []
        #: Whether cached nodes have named files that are gone.
        self.are_files_gone = False
        #: What nodes have named and not made, and which have left nothing.
        self.warnings: tuple[str, ...] = ()

    def see(self, fact: EventSeen | FrameSeen) -> None:
        """Take note of an event."""
        if isinstance(fact, FrameSeen):
            if self._tracker is not None and self._on_progress is not None and not fact.is_result(self._frame_nodes):
                self._on_progress(self._tracker.see_preview(fact.node_id, fact.content))
            return
        if isinstance(time_ms := fact.data.get("timestamp"), (int, float)):
            if fact.kind == "execution_start":
                self._files.begin(time_ms / 1000)
            elif fact.kind in _ENDS:
                self._files.end(time_ms / 1000)
        if fact.kind == "executing" and fact.data.get("node") is not None:
            self._writers.see(str(fact.data["node"]), fact.at_s)
        elif fact.kind == "execution_cached":
            self._cached = frozenset(str(node) for node in fact.data.get("nodes") or ())
        elif fact.kind == "executed" and isinstance(fact.data.get("output"), Mapping):
            # Of all at once, though they are taken one after the other.
            self._waiting.append((fact.data, self._files.ask(fact.data["output"])))
        self._take_known()
        if self._tracker is None or self._on_progress is None:
            return
        progress = self._tracker.see_event(fact.kind, fact.data)
        # Several events can bring the same progress.
        if progress is not None and progress != self._last_progress:
            self._last_progress = progress
            self._on_progress(progress)

    def collect(self, outcome: Outcome) -> tuple[Output, ...]:
        """All outputs of a prompt that has ended, in the order of the graph. Waits a moment for late files."""
        self._cached = frozenset(outcome.cached_nodes)
        self._files.see_number(outcome.number)
        refused = self._gather(outcome)
        if outcome.error is None:
            refused = self._await(outcome, refused)
        self._judge(refused)
        self.warnings += tuple(
            f"Node {node} ({self._class_of(node)}) shows numbers that JSON does not have: texts stand for them."
            for node, shown in outcome.shown.items()
            if not is_finite(shown)
        )
        position = {node: index for index, node in enumerate(self._graph)}
        outputs = [output for made in self._by_node.values() for output in made]
        return tuple(sorted(outputs, key=lambda output: position.get(output.node_id, len(position))))

    @property
    def last_begun(self) -> str | None:
        """The node that began last, by the events; None if none came."""
        return self._writers.last

    def announce_rest(self) -> None:
        """Report the collected outputs that have not been reported yet. For the attempt whose outputs count."""
        for node, outputs in self._by_node.items():
            self._announce(node, outputs)

    def _take_known(self) -> None:
        """Take what nodes have shown, as far as nothing must be waited for; the rest with the next event or the end."""
        while self._waiting and self._waiting[0][1]():
            data, _ = self._waiting.popleft()
            self._see_outputs(str(data["node"]), data)

    def _see_outputs(self, node: str, data: Mapping[str, Any]) -> None:
        """Take the outputs of a node that has run, unless only the end of the run can tell which it has."""
        if node in self._settled:
            return  # the message came twice
        identity = identify_node(self._graph, node, str(data.get("display_node") or node))
        # Nodes made by expansion share their parent's name: they must not share indexes too.
        first = sum(output.node_id == identity.node_id for made in self._settled.values() for output in made)
        cached = node in self._cached
        outputs, refused = outputs_of_node(identity, data["output"], self._files, cached=cached, first_index=first)
        if not refused:
            self._settled[node] = outputs
            self._announce(node, outputs)

    def _gather(self, outcome: Outcome) -> dict[str, list[Place]]:
        """Take the outputs there are; return, by node, the files that it has named and not made."""
        refused: dict[str, list[Place]] = {}
        self._by_node = dict(self._settled)
        count = Counter(output.node_id for outputs in self._settled.values() for output in outputs)
        for node, shown in outcome.shown.items():
            if node not in self._settled:
                identity = identify_node(self._graph, node, outcome.display_nodes.get(node, node))
                first, cached = count[identity.node_id], node in self._cached
                outputs, places = outputs_of_node(identity, shown, self._files, cached=cached, first_index=first)
                self._by_node[node] = outputs
                count[identity.node_id] += len(outputs)
                refused |= {node: places} if places else {}
        for frame in outcome.frames:
            identity = identify_node(self._graph, frame.node_id)
            output = frame_output(identity, count[identity.node_id], frame.content, frame.content_type)
            self._by_node.setdefault(frame.node_id, []).append(output)
            count[identity.node_id] += 1
        self._take_rest(count)
        return refused

    def _take_rest(self, count: Counter[str]) -> None:
        """Take the files that no node has named."""
        self._rest += self._files.unclaimed()
        named = {output.path for outputs in self._by_node.values() for output in outputs}
        silent = self._silent()
        for made in self._rest:
            if made.path is not None and made.path not in named:
                node = self._writers.writer(made.place, written_s=_written_s(made.path), silent=silent)
                identity = identify_node(self._graph, node)
                self._by_node.setdefault(node, []).append(file_output(identity, count[node], "files", made))
                count[node] += 1

    def _silent(self) -> list[str]:
        return self._writers.silent({output.node_id for outputs in self._by_node.values() for output in outputs})

    def _awaited(self, refused: Mapping[str, list[Place]]) -> set[str]:
        """The classes of nodes that may still write: what they have named has not come, or they have left nothing."""
        named = {node for node in refused if node not in self._cached}
        silent = {node for node in self._silent() if node not in refused} if self._files.finds_late else set()
        return {self._class_of(node) for node in named | silent}

    def _await(self, outcome: Outcome, refused: dict[str, list[Place]]) -> dict[str, list[Place]]:
        """Wait for files that nodes write after their end; return what has not come.

        The engine stands still meanwhile: a class whose files have not come a few times is not waited for again.
        """
        vain = self._files.remembered.vain
        awaited = {name for name in self._awaited(refused) if vain[name] < _TIMES_IN_VAIN}
        give_up_at = time.monotonic() + _LATE_S
        while awaited and time.monotonic() < give_up_at:
            time.sleep(_LOOK_S)
            refused = self._gather(outcome)
            for name in awaited - self._awaited(refused):
                vain[name] = 0
                awaited.remove(name)
        for name in awaited:
            vain[name] += 1
        return refused

    def _judge(self, refused: Mapping[str, list[Place]]) -> None:
        """Say what was named and not made, and what has left nothing."""
        remembered = self._files.remembered
        warnings = [_not_made(node, self._class_of(node), places) for node, places in refused.items()]
        for node, places in refused.items():
            if node not in self._cached:
                remembered.refuse(places)
            elif not remembered.refused.issuperset(places):
                self.are_files_gone = True
        silent = (node for node in self._silent() if node not in refused)
        warnings += [
            f"Node {node} ({self._class_of(node)}) has run and left nothing: {self._files.nothing}." for node in silent
        ]
        self.warnings = tuple(warnings)

    def _class_of(self, node: str) -> str:
        return identify_node(self._graph, node).class_type

    def _announce(self, node: str, outputs: list[Output]) -> None:
        if self._on_output is None:
            return
        for output in outputs:
            if (node, output.index) not in self._announced:
                self._announced.add((node, output.index))
                self._on_output(output)


def _not_made(node: str, class_type: str, places: Sequence[Place]) -> str:
    listed = ", ".join(map(str, places[:_PLACES_SHOWN]))
    more = f" and {len(places) - _PLACES_SHOWN} more" if len(places) > _PLACES_SHOWN else ""
    return (
        f"Node {node} ({class_type}) names {listed}{more}, which this run has not made in ComfyUI's output or temp "
        "folder: not delivered. What a node stores elsewhere stays there."
    )


def _written_s(path: Path) -> float:
    """When a file was written, in seconds since the epoch."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
