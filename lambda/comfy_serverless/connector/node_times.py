"""How long each node of a prompt ran, from the events seen so far. No IO.

A node runs from the `executing` that names it to the `progress_state` that has it as finished, its `executed`, or the
end of the prompt, by the times at which the messages came. Nodes made by expansion count to the node of the submitted
graph that they are shown as, once for a moment, however many of them run then. A node that waited for others in
between (lazy inputs) is named again when it goes on: the wait is not its own. Asynchronous nodes run beside others, so
the times of all nodes may be more than that of the prompt. A cached node does not run and is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.connector.facts import NodeSpan, Timings
from comfy_serverless.connector.outputs import identify_node

#: Of a graph whose loops run nodes a hundred thousand times, so many are kept.
MOST_SPANS = 1000
_ENDS = frozenset({"execution_success", "execution_interrupted"})


class NodeTimes:
    """Folds the events of one prompt into times, with a look-up or two for each; repeated events do no harm."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        #: What runs, and which node of the graph it is shown as.
        self._open: dict[str, str] = {}
        #: Of nodes of the graph: since when each runs, and since when another one has.
        self._since: dict[str, float] = {}
        self._left: dict[str, float] = {}
        self._took_s: dict[str, float] = {}
        self._spans: list[NodeSpan] = []
        self._has_states = False

    def see(self, kind: str, data: Mapping[str, Any], at_s: float) -> None:
        """Take in one event, and when it came, in seconds on any clock."""
        if kind == "executing":
            if data.get("node") is not None:
                self._begin(str(data["node"]), str(data.get("display_node") or ""), at_s)
        elif kind == "progress_state":
            self._has_states = True
            states = data.get("nodes") or {}
            for node in [node for node in self._open if (states.get(node) or {}).get("state") == "finished"]:
                self._end(node, at_s)
        elif kind == "executed":
            self._end(str(data.get("node")), at_s)
        elif kind == "execution_error" and data.get("exception_type") == "ExecutionBlocked":
            self._end(str(data.get("node_id")), at_s)  # the prompt goes on without this node
        elif kind in _ENDS or kind == "execution_error":
            self.end_all(at_s)

    def end_all(self, at_s: float) -> None:
        """Whatever runs has ended now."""
        for node in list(self._open):
            self._end(node, at_s)

    def in_ms(self) -> dict[str, int]:
        """Whole milliseconds by node of the graph, of those whose beginning and end were seen."""
        return {node: round(took_s * 1000) for node, took_s in self._took_s.items()}

    def timings(self, *, executing_ms: int, total_ms: int) -> Timings:
        """The times of the prompt with those of its nodes: when they ran, of the first `MOST_SPANS`."""
        queued_ms = max(0, total_ms - executing_ms)
        return Timings(queued_ms, executing_ms, total_ms, node_ms=self.in_ms(), node_spans=tuple(self._spans))

    def _begin(self, node: str, display_node: str, at_s: float) -> None:
        if not self._has_states:  # nothing else tells the end of a node
            self.end_all(at_s)
        shown = node if node in self._graph else identify_node(self._graph, node, display_node).node_id
        for other in self._since.keys() - self._left.keys() - {shown}:
            self._left[other] = at_s
        if shown in self._since and (left := self._left.pop(shown, None)) is not None:
            self._add(shown, left)
            self._since[shown] = at_s
        self._since.setdefault(shown, at_s)
        self._open[node] = shown

    def _end(self, node: str, at_s: float) -> None:
        shown = self._open.pop(node, None)
        if shown is not None and shown not in self._open.values():
            self._add(shown, at_s)
            del self._since[shown]
            self._left.pop(shown, None)

    def _add(self, shown: str, until_s: float) -> None:
        begun_s = self._since[shown]
        self._took_s[shown] = self._took_s.get(shown, 0.0) + max(0.0, until_s - begun_s)
        if len(self._spans) < MOST_SPANS:
            self._spans.append(NodeSpan(shown, begun_s, max(begun_s, until_s)))
