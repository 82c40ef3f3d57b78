"""Which classes of nodes have shown nothing so far, in all that one engine has run for us. No IO.

ComfyUI 0.3.64 puts what a cached node once showed into the history, and sends no event of it where it has not visited
the node again. So a run with cached nodes is whole without its history only if those have nothing to show: their
class has been seen to run without showing anything, and has never shown anything. Loaders, which are cached in nearly
every job, are such classes; a class that shows something only at times is not, from the first time on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comfy_serverless.connector.facts import Outcome
from comfy_serverless.connector.outputs import identify_node


class SilentClasses:
    """What the runs of one process of an engine have shown of classes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent: set[str] = set()
        self._speaking: set[str] = set()
        self._running = self._begun = 0

    @contextmanager
    def run(self, graph: Mapping[str, Any]) -> Iterator[Callable[[], frozenset[str]]]:
        """Follow a run; what it has shown is learned before the end of the block.

        Yields:
            Returns, at the run's end, the nodes that have nothing to show if they are cached: none if another run was
            in the engine, because what that has shown may not be learned yet.
        """
        with self._lock:
            self._running += 1
            self._begun += 1
            is_alone, begun = self._running == 1, self._begun

        def silent() -> frozenset[str]:
            with self._lock:
                if not is_alone or self._begun != begun:
                    return frozenset()
                return frozenset(node_id for node_id, node in graph.items() if node["class_type"] in self._silent)

        try:
            yield silent
        except BaseException:  # it may run on, and nobody hears what it shows
            self.doubt(graph)
            raise
        finally:
            with self._lock:
                self._running -= 1

    def learn(self, graph: Mapping[str, Any], outcome: Outcome) -> None:
        """Take in what a run has shown."""
        if outcome.error is not None and outcome.events_missed:
            self.doubt(graph)
            return
        shown = outcome.shown.keys()
        speaking = {identify_node(graph, node, outcome.display_nodes.get(node)).class_type for node in shown}
        # A node that nothing needed has not run.
        ran = () if outcome.error is not None else (*outcome.timings.node_ms, *outcome.cached_nodes)
        with self._lock:
            self._speaking |= speaking
            self._silent |= {str(graph[node]["class_type"]) for node in ran if node in graph}
            self._silent -= self._speaking

    def doubt(self, graph: Mapping[str, Any]) -> None:
        """Note that a graph may run, or has run, and that nobody hears what it shows."""
        with self._lock:
            self._speaking |= {str(node.get("class_type")) for node in graph.values() if isinstance(node, Mapping)}
            self._silent -= self._speaking
