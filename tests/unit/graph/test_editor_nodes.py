"""The one walker of the editor's nodes: what stands in a file once runs for each host, and one in itself ends."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.graph.editor_nodes import Inside, Step, all_subgraphs, graphs_of, mapping, mappings, walk

Node = dict[str, Any]


def node(kind: object, node_id: int = 1) -> Node:
    return {"id": node_id, "type": kind}


def walked(top: list[Node], definitions: dict[str, list[Node]]) -> list[tuple[str, int, tuple[str, ...]]]:
    """Path, depth by what each host has given, and the hosts."""

    def nodes_in(nodes: list[Node], depth: int) -> Inside[int]:
        return [(str(one["id"]), one, depth) for one in nodes]

    def inside(step: Step[int]) -> Inside[int] | None:
        if step.kind not in definitions:
            return None
        return () if step.kind in step.hosts else nodes_in(definitions[step.kind], step.given + 1)

    return [(step.path, step.given, step.hosts) for step in walk(nodes_in(top, 0), inside)]


def test_nodes_come_in_the_order_of_the_file_those_of_a_host_in_its_place() -> None:
    definitions = {"outer": [node("A", 7), node("inner", 8)], "inner": [node("B", 9)]}
    assert walked([node("A", 1), node("outer", 2), node("inner", 3), node("C", 4)], definitions) == [
        ("1", 0, ()),
        ("2:7", 1, ("outer",)),
        ("2:8:9", 2, ("outer", "inner")),
        ("3:9", 1, ("inner",)),
        ("4", 0, ()),
    ]


def test_a_host_that_is_in_itself_has_an_end_and_is_no_node() -> None:
    definitions = {"a": [node("b", 1), node("X", 2)], "b": [node("a", 3)]}
    assert [path for path, *_ in walked([node("a", 9)], definitions)] == ["9:2"]


@pytest.mark.parametrize("kind", [None, 5, ["a"], {}])
def test_a_type_that_is_no_text_is_of_no_host(kind: object) -> None:
    assert walked([node(kind)], {"": [node("X")]})[0][0] == "1:1"
    assert Step("1", node(kind), None).kind == ""


def test_a_walk_is_no_recursion() -> None:
    count = 3000
    definitions = {f"h{number}": [node(f"h{number + 1}")] for number in range(count)}
    ((path, depth, _),) = walked([node("h0")], definitions)
    assert (path.count(":"), depth) == (count, count)


def test_all_graphs_of_a_file_are_found_at_any_depth_and_nothing_else_is_taken_for_one() -> None:
    inner = {"id": "i", "nodes": [], "extra": {"groupNodes": {"g": {"nodes": []}, "bad": 5}}}
    outer = {"id": "o", "nodes": [], "definitions": {"subgraphs": [inner, None, "x"]}}
    file = {"nodes": [], "definitions": {"subgraphs": [outer]}, "extra": {"groupNodes": ["no groups"]}}
    assert [graph.get("id") for graph in graphs_of(file)] == [None, "o", "i", None]
    assert [graph["id"] for graph in all_subgraphs(file)] == ["o", "i"]
    assert all_subgraphs({"definitions": []}) == list(graphs_of({"extra": 1}))[1:] == []
    assert (mapping([1]), mappings({"a": 1}), mappings([{}, 1])) == ({}, [], [{}])
