"""Finds the inputs of a graph that an address such as `3.seed`, `KSampler.steps` or `My Title.text` means.

Pure: reads the graph, changes nothing. `workflow.targets` and `workflow.apply_set` are its public face.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from itertools import islice
from typing import Any, NamedTuple

from comfy_serverless.graph.near import Guesses

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
        self._guesses = Guesses()
        self._known: list[str] | None = None
        #: For each name that was asked for, the nodes with each input; for each node, its inputs in words. A request
        #: may have a thousand addresses, and a node as many inputs as fit into a request: each is looked at once.
        self._having: dict[tuple[Specificity, str], dict[str, list[str]]] = {}
        self._inputs_in_words: dict[str, str] = {}
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
            having = self._nodes_by_input(kind, name, node_ids)
            if input_name in having:
                return kind, [(node_id, input_name) for node_id in having[input_name]]
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
        if self._known is None:
            names = ((name, ids[0]) for nodes in self._names.values() for name, ids in nodes.items())
            known = (f"{name}.{input_name}" for name, id_ in names for input_name in self._graph[id_]["inputs"])
            self._known = list(dict.fromkeys(islice(known, _MAX_CANDIDATES)))
        close = self._guesses.near(address, self._known, at_most=3, likeness=0.7)
        return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""

    def _nodes(self, name: str) -> tuple[Specificity, list[str]]:
        for kind, nodes in self._names.items():
            if name in nodes:
                return kind, nodes[name]
        return Specificity.TITLE, []

    def _nodes_by_input(self, kind: Specificity, name: str, node_ids: list[str]) -> dict[str, list[str]]:
        having = self._having.get((kind, name))
        if having is None:
            having = self._having[kind, name] = {}
            for node_id in node_ids:
                for input_name in self._graph[node_id]["inputs"]:
                    having.setdefault(input_name, []).append(node_id)
        return having

    def _missing_input(self, node_id: str, input_name: str) -> str:
        node = self._graph[node_id]
        has = self._inputs_in_words.get(node_id)
        if has is None:
            names = heapq.nsmallest(MAX_LISTED, node["inputs"])
            rest = ", …" if len(node["inputs"]) > MAX_LISTED else ""
            shown = ", ".join(name[:MAX_ADDRESS_LENGTH] for name in names)
            has = self._inputs_in_words[node_id] = f"{shown}{rest}" if names else "none"
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
