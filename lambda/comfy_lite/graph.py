"""The order in which the nodes of a prompt run. Knows nothing but links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: An API-format graph: node id -> {"class_type": ..., "inputs": {...}}.
Prompt = Mapping[str, Mapping[str, Any]]

_LINK_LENGTH = 2
_FARTHEST = 3


class DependencyCycle(Exception):
    """Nodes wait for each other. `node_id` is the one to blame."""

    def __init__(self, node_id: str) -> None:
        super().__init__("Dependency cycle detected")
        self.node_id = node_id


def is_link(value: object) -> bool:
    """Whether an input's value is ``[node id, slot]``."""
    return (
        isinstance(value, list)
        and len(value) == _LINK_LENGTH
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def links_of(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Every link into a node, declared or not, as (input name, source node, source slot)."""
    for name, value in node["inputs"].items():
        if is_link(value):
            yield name, value[0], value[1]


class Schedule:
    """The nodes still to run. Hands out the ready node that is nearest to showing the user something.

    The order of arrival breaks ties: a graph always runs in the same order.
    """

    def __init__(self, prompt: Prompt, *, is_cached: Callable[[str], bool], is_output: Callable[[str], bool]) -> None:
        self._prompt = prompt
        self._is_cached = is_cached
        self._is_output = is_output
        self._waits_for: dict[str, set[str]] = {}  # also the order of arrival
        self._needed_by: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._waits_for)

    def add(self, node_id: str) -> None:
        """Put a node on the list, with everything it needs that is not cached.

        Raises:
            KeyError: a link leads to a node that does not exist.
        """
        stack = [node_id]
        while stack:
            current = stack.pop()
            if current in self._waits_for:
                continue
            sources = [source for _, source, _ in links_of(self._prompt[current])]
            needed = [source for source in sources if not self._is_cached(source)]
            self._waits_for[current] = set(needed)
            for source in needed:
                self._needed_by.setdefault(source, set()).add(current)
            stack.extend(needed)

    def take(self) -> str:
        """The node to run next; it stays on the list until it is `done`.

        Raises:
            DependencyCycle: nodes are left, but none is ready.
        """
        ready = [node_id for node_id, needed in self._waits_for.items() if not needed]
        if not ready:
            raise DependencyCycle(next(iter(self._waits_for)))
        return min(ready, key=self._steps_to_an_output)

    def done(self, node_id: str) -> None:
        del self._waits_for[node_id]
        for waiting in self._needed_by.pop(node_id, ()):
            self._waits_for[waiting].discard(node_id)

    def _steps_to_an_output(self, node_id: str) -> int:
        """How many nodes away the next output is: 0 (it is one), 1, 2, or `_FARTHEST` for anything beyond."""
        front = {node_id}
        for steps in range(_FARTHEST):
            if any(self._is_output(member) for member in front):
                return steps
            front = {user for member in front for user in self._needed_by.get(member, ())}
        return _FARTHEST
