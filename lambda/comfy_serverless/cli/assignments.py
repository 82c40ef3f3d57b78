"""`--set ADDRESS=VALUE`, `--set-json` and `--input`: which inputs of a graph are meant, and what they get. No IO.

Where the address ends is told by the graph: titles can have `=` in them, and so can values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.lookup import MAX_ADDRESS_LENGTH, NodeLookup, NothingMeant, Specificity, listing
from comfy_serverless.graph.node_errors import raise_node_errors
from comfy_serverless.graph.typed import Untyped, declared_input, from_json, typed
from comfy_serverless.graph.workflow import copy_graph

Declarations = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Assignment:
    """One option, as it was written.

    Attributes:
        option: `--set`, `--set-json` or `--input`.
        text: `ADDRESS=VALUE`.
    """

    option: str
    text: str


@dataclass(frozen=True, slots=True)
class Meant:
    """An option whose address has been found in the graph."""

    option: str
    address: str
    value: str
    specificity: Specificity
    targets: Sequence[tuple[str, str]]


def find(graph: Mapping[str, Any], assignments: Sequence[Assignment]) -> list[Meant]:
    """What each option means, in order. Raises InvalidWorkflow for all that mean nothing, with near names."""
    lookup = NodeLookup(graph)
    found: list[Meant] = []
    problems: dict[str, str] = {}
    for assignment in assignments:
        try:
            found.append(_find(lookup, assignment))
        except NothingMeant as problem:
            address = assignment.text.partition("=")[0]
            problems[f"{assignment.option} {address}"] = f"{problem}{lookup.suggestion(address)}"
    if problems:
        details = {name.partition(" ")[2]: problem for name, problem in problems.items()}
        raise InvalidWorkflow(
            f"This does not fit the workflow: {listing(problems, form='{}: {}')}.", details={"set": details}
        )
    return found


def put(graph: Mapping[str, Any], meant: Sequence[Meant], declarations: Declarations) -> dict[str, Any]:
    """A copy of the graph with these values: the more specific address wins, among equals the later one.

    Raises:
        InvalidWorkflow: values that the inputs do not take; each node is named.
    """
    result = copy_graph(graph)
    problems: dict[object, tuple[str, object]] = {}
    for one in sorted(meant, key=lambda one: one.specificity):
        for node_id, name in one.targets:
            node = graph[node_id]
            try:
                result[node_id]["inputs"][name] = _value(one, node, name, declarations.get(node["class_type"]))
            except Untyped as problem:
                problems[node_id] = (f"({node['class_type']}): {name} {problem}", node)
    raise_node_errors("What was set does not fit the workflow", problems, error_type="invalid_input_type")
    return result


def put_texts(graph: Mapping[str, Any], meant: Sequence[Meant]) -> dict[str, Any]:
    """A copy of the graph with these values where they are texts for sure: so that files can be looked for early."""
    result = copy_graph(graph)
    for one in sorted(meant, key=lambda one: one.specificity):
        for node_id, name in one.targets:
            if isinstance(graph[node_id]["inputs"][name], str):
                result[node_id]["inputs"][name] = one.value
    return result


def classes_of(graph: Mapping[str, Any], meant: Sequence[Meant]) -> list[str]:
    """The classes whose declarations say what these inputs take."""
    return list(dict.fromkeys(graph[node_id]["class_type"] for one in meant for node_id, _ in one.targets))


def _find(lookup: NodeLookup, assignment: Assignment) -> Meant:
    """What an option means: the shortest address before a `=` that means something."""
    first: NothingMeant | None = None
    for address, value in _splits(assignment.text):
        try:
            specificity, targets = lookup.resolve(address)
        except NothingMeant as problem:
            first = first or problem
        else:
            return Meant(assignment.option, address, value, specificity, targets)
    raise first or NothingMeant("is not of the form NODE.INPUT=VALUE")


def _splits(text: str) -> Iterator[tuple[str, str]]:
    for position, letter in enumerate(text[: MAX_ADDRESS_LENGTH + 1]):
        if letter == "=":
            yield text[:position], text[position + 1 :]


def _value(one: Meant, node: Mapping[str, Any], name: str, declaration: Mapping[str, Any] | None) -> object:
    if one.option == "--set-json":
        return from_json(one.value)
    return typed(one.value, standing=node["inputs"][name], takes=declared_input(declaration, name))
