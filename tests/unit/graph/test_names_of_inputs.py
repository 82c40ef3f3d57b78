"""An input's own name is enough where one node has it, and which nodes an address has met is told."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.lookup import MAX_LISTED, NodeLookup, Specificity, met_several
from comfy_serverless.graph.workflow import apply_set, targets
from tests.unit.workflow_samples import text_to_image


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title or class_type}}


def test_an_input_that_one_node_has_needs_no_node() -> None:
    assert targets(text_to_image(), "seed") == [("3", "seed")]
    assert apply_set(text_to_image(), {"steps": 5})["3"]["inputs"]["steps"] == 5


def test_where_several_nodes_have_it_all_are_named() -> None:
    with pytest.raises(InvalidWorkflow, match=r"2 nodes: '6.text' \(Positive v1.5\), '7.text' \(Negative\); name one"):
        targets(text_to_image(), "text")


def test_a_connected_input_gives_way_to_one_with_a_value() -> None:
    graph = {"1": node("LoadImage", image="a.png"), "2": node("ImageScale", image=["1", 0]), "3": node("X", y=["1", 0])}
    assert targets(graph, "image") == [("1", "image")]
    assert targets(graph, "y") == [("3", "y")]


def test_a_name_with_dots_is_an_input_only_if_it_is_no_address() -> None:
    graph = {"1": node("Save", **{"format.codec": "h264"}), "format": node("Other", codec="x")}
    assert targets(graph, "format.codec") == [("format", "codec")]
    del graph["format"]
    assert targets(graph, "format.codec") == [("1", "format.codec")]


def test_anything_more_specific_wins_over_a_name_alone() -> None:
    graph = {"3": node("KSampler", "Mine", seed=0)}
    for more in ("3.seed", "KSampler.seed", "Mine.seed"):
        for order in ([more, "seed"], ["seed", more]):
            values = {"seed": 1, more: 2}
            assert apply_set(graph, {address: values[address] for address in order})["3"]["inputs"]["seed"] == 2
    assert NodeLookup(graph).resolve("seed")[0] is Specificity.INPUT


def test_each_input_is_suggested_once_by_its_nearest_name() -> None:
    graph = {"3": node("KSampler", "Sampler", seed=0, steps=20)}
    assert NodeLookup(graph).suggestion("KSampler.sed") == " (did you mean 'KSampler.seed' or 'KSampler.steps'?)"
    assert NodeLookup(graph).suggestion("sede") == " (did you mean 'seed'?)"


def test_every_suggestion_is_another_input() -> None:
    graph = {f"{number}": node("KSampler", "KSamplers", seed=0, seeds=1, sed=2) for number in range(5)}
    shown = (
        NodeLookup(graph).suggestion("KSampler.see").removeprefix(" (did you mean ").removesuffix("?)").split(" or ")
    )
    meant = [tuple(targets(graph, address.strip("'"))) for address in shown]
    assert len(set(meant)) == len(meant) > 1


def test_an_address_that_means_several_nodes_is_told_with_them() -> None:
    graph = text_to_image()
    assert met_several(graph, ["CLIPTextEncode.text", "3.seed", "nothing", "seed"]) == [
        "'CLIPTextEncode.text' is set on 2 nodes: 6 Positive v1.5, 7 Negative"
    ]


def test_of_very_many_nodes_and_addresses_the_first_ones_are_told() -> None:
    graph = {str(number): node("X", "t" * 100, a=1) for number in range(MAX_LISTED + 5)}
    [note] = met_several(graph, ["X.a"])
    assert note.endswith(" and 5 more")
    assert len(note) < 50 * (MAX_LISTED + 2)
    many = {f"{kind}{number}": node(f"C{kind}", v=1) for kind in range(MAX_LISTED + 3) for number in range(2)}
    notes = met_several(many, [f"C{kind}.v" for kind in range(MAX_LISTED + 3)])
    assert (len(notes), notes[-1]) == (MAX_LISTED + 1, "3 more addresses mean several nodes each")
