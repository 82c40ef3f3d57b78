"""A workflow of the editor as values: graphs of nodes and links, and the definitions of its subgraphs. No IO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: What stands for the ends of a subgraph in its links: its own inputs and outputs.
INPUT_SIDE, OUTPUT_SIDE = "-10", "-20"
#: Modes of a node; every other one is active (observed: 0, 1 and 3).
MUTED, BYPASSED = 2, 4

LinkId = int | str


@dataclass(slots=True)
class Socket:
    """An input of a node.

    Attributes:
        type: its type; "COMBO" for a list of choices, "*" for anything.
        link: the link that it names; None if it is not connected.
        of_widget: whether the file says that a widget stands behind it.
        label: what somebody has called it; "" if nothing.
    """

    name: str
    type: str
    link: LinkId | None = None
    of_widget: bool = False
    label: str = ""


@dataclass(slots=True)
class Outlet:
    """An output of a node, with the links that it names."""

    name: str
    type: str
    links: list[LinkId] = field(default_factory=list)


@dataclass(slots=True)
class Node:
    """A node as the file has it.

    Attributes:
        number: its id, if that is a number; only those are counted when ids are made unique.
        values: `widgets_values`: a list, an object by name, or None.
        names: `widgets_values_named`: the names of the values in the list, one for each; None if the file has none.
        where: the graph that it stands in, for messages.
    """

    id: str
    type: str
    number: int | None = None
    title: str | None = None
    mode: int = 0
    inputs: list[Socket] = field(default_factory=list)
    outputs: list[Outlet] = field(default_factory=list)
    values: list[Any] | dict[str, Any] | None = None
    names: tuple[str, ...] | None = None
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def is_out(self) -> bool:
        """Whether it is muted or bypassed."""
        return self.mode in (MUTED, BYPASSED)


@dataclass(slots=True)
class Link:
    """A connection; the input that names it decides where it ends."""

    id: LinkId
    origin: str
    origin_slot: int
    target: str
    target_slot: int
    type: str


@dataclass(slots=True)
class Graph:
    """Nodes and the links between them."""

    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[LinkId, Link] = field(default_factory=dict)


@dataclass(slots=True)
class Port:
    """An input or an output of a subgraph, with the links inside that it names, and what somebody has called it."""

    name: str
    type: str
    links: list[LinkId] = field(default_factory=list)
    label: str = ""


@dataclass(slots=True)
class Definition(Graph):
    """A subgraph; a node whose type is its id is a host of it.

    Attributes:
        is_nested: whether it is defined within another one.
    """

    id: str = ""
    name: str = ""
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    is_nested: bool = False


@dataclass(slots=True)
class Workflow:
    """A whole file.

    Attributes:
        root: the graph that one sees first.
        definitions: all subgraphs by id, nested ones too, in the order of the file.
        groups: `extra.groupNodes`, the older way to put nodes together; each is read when a node needs it.
        last_node_id: the greatest id that the editor has given.
    """

    root: Graph
    definitions: dict[str, Definition]
    groups: dict[str, Any]
    last_node_id: int
