"""Finds the inputs of a graph that an address such as `3.seed`, `KSampler.steps`, `My Title.text` or `seed` means.

Pure: reads the graph, changes nothing. `workflow.targets` and `workflow.apply_set` are its public face.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from comfy_serverless.graph.near import Guesses

#: The longest address that is resolved, in characters.
MAX_ADDRESS_LENGTH = 500
#: The most problems a message lists, with near matches; an error's `details` have all of them.
MAX_LISTED = 20
#: The most addresses of the graph that a mistaken one is compared with; bounds the cost of a huge graph.
_MAX_CANDIDATES = 2000
#: The most addresses that are suggested, and the most of which those are chosen.
_MAX_SUGGESTED, _MAX_NEAR = 3, 10
#: The longest title in a list of nodes, in characters.
_SHOWN_TITLE = 40

#: What stands for a problem: its text, or more.
_Problem = TypeVar("_Problem")


class Specificity(IntEnum):
    """The way an address names its nodes; the more specific is the greater, and wins."""

    INPUT = 0
    TITLE = 1
    CLASS = 2
    NODE = 3


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
        #: For each name of an input, the nodes that have it; made when an address is no more than such a name.
        self._alone: dict[str, list[str]] | None = None
        kinds = (Specificity.NODE, Specificity.CLASS, Specificity.TITLE)
        self._names: dict[Specificity, dict[str, list[str]]] = {kind: {} for kind in kinds}
        for node_id, node in graph.items():
            self._names[Specificity.NODE][node_id] = [node_id]
            self._names[Specificity.CLASS].setdefault(node["class_type"], []).append(node_id)
            self._names[Specificity.TITLE].setdefault(title_of(node), []).append(node_id)

    def resolve(self, address: str) -> tuple[Specificity, list[tuple[str, str]]]:
        """The way an address names its nodes, and the `(node id, input name)` pairs it means, one at least.

        Titles and input names may contain dots, so every split is tried, the last dot first. In each, the most
        specific kind of name that any node has is the one meant. The name of an input alone is enough if one node has
        it; a connected input gives way to one that has a value. Raises NothingMeant if nothing, or no one thing, is
        meant.
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
        if nodes := self._nodes_with(address):
            if len(nodes) > 1:
                raise NothingMeant(
                    f"is an input of {len(nodes)} nodes: {self._which(nodes, address)}; name one of them"
                )
            return Specificity.INPUT, [(nodes[0], address)]
        if not splits:
            problem = (
                "no node has an input of this name, and it is not of the form node.input, "
                "where node is an id, a class_type or a title"
            )
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
        if address in self._inputs():
            return ""  # it has been said which nodes have it
        if self._known is None:
            names = ((name, ids[0]) for nodes in self._names.values() for name, ids in nodes.items())
            known = (f"{name}.{input_name}" for name, id_ in names for input_name in self._graph[id_]["inputs"])
            self._known = list(dict.fromkeys(islice(known, _MAX_CANDIDATES)))
        known_here = self._known if "." in address else [*self._known, *islice(self._inputs(), _MAX_CANDIDATES)]
        # Several names of one input are one suggestion: the nearest.
        by_targets: dict[object, str] = {}
        for close in self._guesses.near(address, known_here, at_most=_MAX_NEAR, likeness=0.7):
            try:
                by_targets.setdefault(tuple(self.resolve(close)[1]), close)
            except NothingMeant:  # an input of several nodes, by its name alone
                by_targets.setdefault(close, close)
        shown = list(map(repr, islice(by_targets.values(), _MAX_SUGGESTED)))
        return f" (did you mean {' or '.join(shown)}?)" if shown else ""

    def _inputs(self) -> dict[str, list[str]]:
        if self._alone is None:
            self._alone = {}
            for node_id, node in self._graph.items():
                for input_name in node["inputs"]:
                    self._alone.setdefault(input_name, []).append(node_id)
        return self._alone

    def _nodes_with(self, input_name: str) -> list[str]:
        """The nodes that have an input with a value by this name; if there are none, those where it is connected."""
        nodes = self._inputs().get(input_name, [])
        with_value = [node_id for node_id in nodes if not isinstance(self._graph[node_id]["inputs"][input_name], list)]
        return with_value or nodes

    def _which(self, node_ids: list[str], input_name: str) -> str:
        shown = [f"'{id_}.{input_name}' ({_short(title_of(self._graph[id_]))})" for id_ in node_ids[:MAX_LISTED]]
        return ", ".join(shown) + (", …" if len(node_ids) > MAX_LISTED else "")

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


def listing(
    problems: Mapping[Any, _Problem], *, form: str = "{!r}: {}", reason: Callable[[_Problem], object] = str
) -> str:
    """Problems by address or node in one sentence; where there are very many, the first ones only."""
    first = islice(problems.items(), MAX_LISTED)
    shown = [form.format(str(key)[:MAX_ADDRESS_LENGTH], reason(problem)) for key, problem in first]
    left_out = [f"and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
    return "; ".join(shown + left_out)


def met_several(graph: Mapping[str, Any], addresses: Iterable[str]) -> list[str]:
    """A sentence for each address that means inputs of several nodes: `'KSampler.seed' is set on 2 nodes: 3 …, 7 …`.

    Of very many, the first ones and their number. Addresses that mean nothing are passed over.
    """
    notes = [
        f"{address!r} is set on {len(targets)} nodes: {nodes_in_words(graph, [node_id for node_id, _ in targets])}"
        for address, _, targets in NodeLookup(graph).resolve_all(addresses)[0]
        if len(targets) > 1
    ]
    more = len(notes) - MAX_LISTED
    return [*notes[:MAX_LISTED], f"{more} more addresses mean several nodes each"] if more > 0 else notes


def nodes_in_words(graph: Mapping[str, Any], node_ids: Sequence[str]) -> str:
    """Nodes by id and title, the first ones if there are very many: `6 Prompt, 7 Negative prompt`."""
    shown = [f"{node_id} {_short(title_of(graph[node_id]))}" for node_id in node_ids[:MAX_LISTED]]
    return ", ".join(shown) + (f" and {len(node_ids) - MAX_LISTED} more" if len(node_ids) > MAX_LISTED else "")


def title_of(node: Mapping[str, Any]) -> str:
    """The title the author gave a node in the editor; its class if there is none."""
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title if isinstance(title, str) and title else str(node.get("class_type", ""))


def _short(title: str) -> str:
    return title if len(title) <= _SHOWN_TITLE else f"{title[: _SHOWN_TITLE - 1]}…"


def _splits(address: str) -> Iterator[tuple[str, str]]:
    """Every way to read an address as node and input, the last dot first."""
    for position in range(len(address) - 2, 0, -1):
        if address[position] == ".":
            yield address[:position], address[position + 1 :]
