"""How far a run is and how long it will still take, by what each node took the last time. No IO but `Memory`.

Without a last time, steps of samplers are what counts (`connector.progress`), and the end is as far away as the rate so
far says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_serverless.cli.paths import cache_folder
from comfy_serverless.connector.progress import Progress, weights_of
from comfy_serverless.graph.workflow import is_link

logger = logging.getLogger(__name__)

#: An estimate from the rate alone needs this much of a run, as a fraction and in seconds.
_TELLING_PART, _TELLING_S = 0.02, 1.0
#: The most graphs that are remembered; the oldest are forgotten.
_MOST_REMEMBERED = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """Where a run stands.

    Attributes:
        fraction: from 0 to 1; never less than before.
        left_s: seconds to the end; None while nothing tells.
    """

    fraction: float
    left_s: float | None


@dataclass(slots=True)
class Pace:
    """Follows one run by its snapshots.

    Attributes:
        graph: what runs.
        learned: the seconds that one unit of a node's weight took the last time, by node.
    """

    graph: Mapping[str, Any]
    learned: Mapping[str, float] = field(default_factory=dict)
    _weights: dict[str, float] = field(init=False)
    _took: dict[str, float] = field(default_factory=dict)
    _cached: frozenset[str] | None = None
    _current: str | None = None
    _since: float = 0.0
    _begun: float | None = None
    _fraction: float = 0.0

    def __post_init__(self) -> None:
        self._weights = weights_of(self.graph)

    def see(self, snapshot: Progress, now: float) -> Estimate:
        """Take a snapshot. `now` is on the monotonic clock."""
        self._pass(now)
        if snapshot.current_node is not None:
            self._current = snapshot.current_node if snapshot.current_node in self._weights else self._current
            self._begun = now if self._begun is None else self._begun
        if self._cached is None and self._begun is not None:
            self._cached = snapshot.done
        left = {node for node in self._weights if node not in snapshot.done}
        if self.learned and left <= set(self.learned):
            left_s, all_s = self._by_memory(snapshot, left)
            fraction = 1 - left_s / all_s if all_s else snapshot.value
            return self._estimate(fraction, left_s if self._begun is not None else None)
        return self._estimate(snapshot.value, self._by_rate(snapshot.value, now))

    def end(self, now: float) -> dict[str, float]:
        """What has been learned, of nodes that did not run too, when all have ended."""
        self._pass(now)
        self._current = None
        took = {node: seconds / self._weights[node] for node, seconds in self._took.items()}
        # Some nodes run without being seen: they take no time that counts.
        seen = {node: 0.0 for node in self._weights if node not in (self._cached or ())}
        return {**self.learned, **seen, **took}

    def _pass(self, now: float) -> None:
        """The time since the last snapshot was the current node's."""
        if self._current is not None:
            self._took[self._current] = self._took.get(self._current, 0.0) + now - self._since
        self._since = now

    def _by_memory(self, snapshot: Progress, left: set[str]) -> tuple[float, float]:
        """The seconds to the end, and those of the whole run."""
        costs = {node: self.learned[node] * self._weights[node] for node in left}
        took = sum(self._took.values())
        left_s = math.fsum(costs.values())
        if self._current in costs:
            whole, so_far = costs[self._current], self._took.get(self._current, 0.0)
            if snapshot.step and snapshot.steps and snapshot.steps > 1:
                rest = so_far / snapshot.step * (snapshot.steps - snapshot.step)
            else:
                rest = max(0.0, whole - so_far)
            left_s += rest - whole
        return max(0.0, left_s), max(0.0, left_s) + took

    def _by_rate(self, value: float, now: float) -> float | None:
        if self._begun is None or value < _TELLING_PART or now - self._begun < _TELLING_S:
            return None
        return (now - self._begun) * (1 - value) / value

    def _estimate(self, fraction: float, left_s: float | None) -> Estimate:
        self._fraction = max(self._fraction, min(1.0, fraction))
        return Estimate(self._fraction, left_s)


class Memory:
    """What runs of a graph took, in the user's cache folder (`XDG_CACHE_HOME`). Its classes and links make a graph.

    A folder that cannot be read or written costs the estimate, and no run.
    """

    def __init__(self, graph: Mapping[str, Any], *, engine: str, folder: Path | None = None) -> None:
        shape = {node_id: [node["class_type"], _links(node)] for node_id, node in graph.items()}
        digest = hashlib.sha256(json.dumps([engine, shape], sort_keys=True, default=str).encode()).hexdigest()
        self._folder = folder or cache_folder() / "times"
        self._path = self._folder / f"{digest[:32]}.json"
        self._nodes = frozenset(graph)

    def read(self) -> dict[str, float]:
        """Seconds for each unit of weight, by node; nothing of a graph that has not run."""
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.debug("no times of earlier runs: %s", error)
            return {}
        entries = document.items() if isinstance(document, dict) else ()
        return {
            node: float(seconds)
            for node, seconds in entries
            if node in self._nodes and isinstance(seconds, int | float) and math.isfinite(seconds) and seconds >= 0
        }

    def write(self, learned: Mapping[str, float]) -> None:
        """Remember the run."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, suffix=".tmp", delete=False) as file:
                json.dump({node: round(seconds, 6) for node, seconds in learned.items()}, file)
            Path(file.name).replace(self._path)
            self._forget_oldest()
        except OSError as error:
            logger.debug("the times of this run are not remembered: %s", error)

    def _forget_oldest(self) -> None:
        files = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[_MOST_REMEMBERED:]:
            with contextlib.suppress(FileNotFoundError):  # another run has done so
                path.unlink()


def _links(node: Mapping[str, Any]) -> list[object]:
    return sorted(([name, value] for name, value in node["inputs"].items() if is_link(value)), key=str)
