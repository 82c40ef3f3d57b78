"""Finds the inputs of a graph that an address such as `3.seed`, `KSampler.steps` or `My Title.text` means.

Pure: reads the graph, changes nothing. `workflow.targets` and `workflow.apply_set` are its public face.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from itertools import islice
from typing import Any, NamedTuple

#: The longest address that is resolved, in characters.
MAX_ADDRESS_LENGTH = 500
#: The most problems a message lists, with near matches; an error's `details` have all of them.
MAX_LISTED = 20
#: The most addresses of the graph that a mistaken one is compared with; bounds the cost of a huge graph.
_MAX_CANDIDATES = 2000


class Specificity(IntEnum):
    """The way an address names its nodes; the more specific is the greater, and wins."""

    TITLE = 0
    CLASS = 1
    NODE = 2


class NothingMeant(Exception):
    """An address means no input of the graph. The text says why and which addresses come near."""


class Meaning(NamedTuple):
    """An address, the way it names its nodes, and the `(node id, input name)` pairs it means."""

    address: str
    specificity: Specificity
    targets: list[tuple[str, str]]


class NodeLookup:
    """The nodes of a graph by id, class and title."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        self._names: dict[Specificity, dict[str, list[str]]] = {kind: {} for kind in reversed(Specificity)}
        for node_id, node in graph.items():
            self._names[Specificity.NODE][node_id] = [node_id]
            self._names[Specificity.CLASS].setdefault(node["class_type"], []).append(node_id)
            self._names[Specificity.TITLE].setdefault(title_of(node), []).append(node_id)

    def resolve(self, address: str) -> tuple[Specificity, list[tuple[str, str]]]:
        """The way an address names its nodes, and the `(node id, input name)` pairs it means, one at least.

        Titles and input names may contain dots, so every split is tried, the last dot first. In each, the most
        specific kind of name that any node has is the one meant. Raises NothingMeant if no split leads to a node that
        has such an input.
        """
        if len(address) > MAX_ADDRESS_LENGTH:
            raise NothingMeant(f"is longer than {MAX_ADDRESS_LENGTH} characters")
        problem = ""
        splits = list(_splits(address))
        for name, input_name in splits:
            kind, node_ids = self._nodes(name)
            inputs = [(node_id, input_name) for node_id in node_ids if input_name in self._graph[node_id]["inputs"]]
            if inputs:
                return kind, inputs
            if node_ids and not problem:
                problem = self._missing_input(node_ids[0], input_name)
        if not splits:
            problem = "is not of the form node.input, where node is an id, a class_type or a title"
        elif not problem:
            problem = f"no node has the id, class_type or title {splits[0][0]!r}"
        raise NothingMeant(problem)

    def resolve_all(self, addresses: Iterable[str]) -> tuple[list[Meaning], dict[str, str]]:
        """The meanings of all addresses, the least specific first and else in order, and the problems of the rest.

        A caller that applies the meanings in this order lets the more specific ones win.
        """
        meanings: list[Meaning] = []
        problems: dict[str, str] = {}
        for address in addresses:
            try:
                meanings.append(Meaning(address, *self.resolve(address)))
            except NothingMeant as problem:
                hint = self.suggestion(address) if len(problems) < MAX_LISTED else ""
                problems[address] = f"{problem}{hint}"
        return sorted(meanings, key=lambda meaning: meaning.specificity), problems

    def suggestion(self, address: str) -> str:
        """The addresses of this graph near a mistaken one, as ` (did you mean …?)`; "" if there are none."""
        names = ((name, ids[0]) for nodes in self._names.values() for name, ids in nodes.items())
        known = {f"{name}.{input_name}": None for name, id_ in names for input_name in self._graph[id_]["inputs"]}
        close = difflib.get_close_matches(address[:MAX_ADDRESS_LENGTH], list(known)[:_MAX_CANDIDATES], n=3, cutoff=0.7)
        return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""

    def _nodes(self, name: str) -> tuple[Specificity, list[str]]:
        for kind, nodes in self._names.items():
            if name in nodes:
                return kind, nodes[name]
        return Specificity.TITLE, []

    def _missing_input(self, node_id: str, input_name: str) -> str:
        node = self._graph[node_id]
        names = sorted(node["inputs"])
        has = ", ".join(names[:MAX_LISTED]) + (", …" if len(names) > MAX_LISTED else "") if names else "none"
        return f"node {node_id} ({node['class_type']}) has no input {input_name!r}, it has: {has}"


def listing(problems: Mapping[Any, str], *, form: str = "{!r}: {}") -> str:
    """Problems by address or node in one sentence; where there are very many, the first ones only."""
    shown = [form.format(str(key)[:MAX_ADDRESS_LENGTH], reason) for key, reason in islice(problems.items(), MAX_LISTED)]
    left_out = [f"and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
    return "; ".join(shown + left_out)


def title_of(node: Mapping[str, Any]) -> str:
    """The title the author gave a node in the editor; its class if there is none."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title if isinstance(title, str) and title else str(node.get("class_type", ""))


def _splits(address: str) -> Iterator[tuple[str, str]]:
    """Every way to read an address as node and input, the last dot first."""
    for position in range(len(address) - 2, 0, -1):
        if address[position] == ".":
            yield address[:position], address[position + 1 :]
