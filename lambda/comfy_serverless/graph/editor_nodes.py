"""The nodes of a workflow as the editor saved it: all that stand in the file, or those that run. No IO.

A host is a node that stands for a graph: of a subgraph, or of a group (the older form). What stands in the file once
runs once for each host of it. The file may be anybody's: whoever walks says how far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

MUTED, BYPASSED = 2, 4
#: What the type of a group's host begins with: "workflow>NAME", and "workflow/NAME" before that.
GROUP_PREFIXES = ("workflow>", "workflow/")

#: What a walker hands to the nodes within a host.
_Given = TypeVar("_Given")


@dataclass(frozen=True, slots=True)
class Step(Generic[_Given]):
    """A node on the way.

    Attributes:
        path: its id in the graph that is made: those of its hosts before it, `5:12:3`.
        given: what its host gives to it.
        hosts: the types of the hosts around it, the outermost first.
    """

    path: str
    node: Mapping[str, Any]
    given: _Given
    hosts: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Its type; "" if it has none."""
        kind = self.node.get("type")
        return kind if isinstance(kind, str) else ""


#: The nodes within a host, each with its id there and what it is given.
Inside = Iterable[tuple[str, Mapping[str, Any], _Given]]


def walk(nodes: Inside[_Given], inside: Callable[[Step[_Given]], Inside[_Given] | None]) -> Iterator[Step[_Given]]:
    """The nodes that are no hosts, in the order of the file, those within a host in its place.

    Args:
        inside: called with each node; returns what is within it, or None if it is no host. It decides how often a host
            may be in itself, and raises if there are too many.
    """
    pending = _steps(nodes, None)
    while pending:
        step = pending.pop()
        within = inside(step)
        if within is None:
            yield step
        else:
            pending += _steps(within, step)


def _steps(nodes: Inside[_Given], host: Step[_Given] | None) -> list[Step[_Given]]:
    """The last one first."""
    above = "" if host is None else f"{host.path}:"
    hosts = () if host is None else (*host.hosts, host.kind)
    return [Step(f"{above}{node_id}", node, given, hosts) for node_id, node, given in nodes][::-1]


def graphs_of(workflow: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The workflow itself, and the definitions in it of subgraphs and groups, at any depth."""
    pending: list[object] = [workflow]
    while pending:
        graph = pending.pop()
        if isinstance(graph, Mapping):
            yield graph
            pending += subgraphs_in(graph)
            pending += groups_in(graph).values()


def all_subgraphs(workflow: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The definitions of subgraphs, those within definitions too."""
    found: list[Mapping[str, Any]] = []
    pending: list[Mapping[str, Any]] = [workflow]
    while pending:
        inner = subgraphs_in(pending.pop())
        found += inner
        pending += inner
    return found


def subgraphs_in(graph: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The definitions of subgraphs that stand in one graph itself."""
    return mappings(mapping(graph.get("definitions")).get("subgraphs"))


def groups_in(graph: Mapping[str, Any]) -> Mapping[str, Any]:
    """The definitions of groups that stand in one graph itself, by their names; not checked."""
    return mapping(mapping(graph.get("extra")).get("groupNodes"))


def mapping(value: object) -> Mapping[str, Any]:
    """An object; an empty one in the place of anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(values: object) -> list[Mapping[str, Any]]:
    """The objects in a list; none in anything else."""
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []
