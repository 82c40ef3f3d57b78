"""Which node has left something, and which has left nothing: told by what ran when, and by the names. No IO."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from comfy_serverless.connector.made_files import Place
from comfy_serverless.connector.outputs import identify_node
from comfy_serverless.graph.workflow import is_link

#: Events come a little later than what they tell, and short nodes end before the next event is read. In seconds.
_SLACK_S = 0.02
#: Shorter texts are part of any name.
_MIN_NAME = 2


class Writers:
    """The nodes of one run, and when each ran."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        links = (value for node in graph.values() for value in node["inputs"].values() if is_link(value))
        #: No other node takes anything of these, so ComfyUI runs them only for what they leave.
        self._ends = frozenset(graph) - {link[0] for link in links}
        self._began: list[tuple[float, str]] = []

    def see(self, node_id: str, at_s: float) -> None:
        """Note that a node has begun, in seconds since the epoch."""
        self._began.append((at_s, identify_node(self._graph, node_id).node_id))

    @property
    def last(self) -> str | None:
        """The node that began last; None if none was seen."""
        return self._began[-1][1] if self._began else None

    def silent(self, speaking: Collection[str]) -> list[str]:
        """The nodes that ran for what they leave, and are not among those that have left something."""
        ran = {node for _, node in self._began}
        return [node for node in self._graph if node in self._ends and node in ran and node not in speaking]

    def writer(self, place: Place, *, written_s: float, silent: Collection[str]) -> str:
        """The node that most likely has written a file: the names it was given count most, then when it ran."""
        at_work = set(self._at_work(written_s))

        def evidence(node_id: str) -> int:
            is_named = any(_names(value, place) for value in self._graph[node_id]["inputs"].values())
            return 8 * is_named + 4 * (node_id in at_work) + 2 * (node_id in silent) + (node_id in self._ends)

        ran = dict.fromkeys(node for _, node in self._began if node in self._graph)
        # Without events, each may have run. Of equals the later one has written last.
        return max(reversed(list(ran or self._graph)), key=evidence)

    def _at_work(self, at_s: float) -> Iterator[str]:
        for (began, node), (end, _) in pairwise([*self._began, (math.inf, "")]):
            if began - _SLACK_S <= at_s <= end + _SLACK_S:
                yield node


def _names(value: object, place: Place) -> bool:
    """Whether the value of an input is a beginning of a file's name, or a part of its folder."""
    if not isinstance(value, str) or len(value) < _MIN_NAME:
        return False
    named = PurePosixPath(value.replace("\\", "/"))
    parts = PurePosixPath(place.subfolder).parts
    return place.name.startswith(named.name.partition("%")[0] or "/") or (bool(named.parts) and named.name in parts)
