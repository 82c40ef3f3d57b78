"""Reading a file of the editor, and which of its links and inputs count."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from comfy_serverless.graph.convert import convert, is_editor_format, to_prompt
from tests.unit.graph.convert.editor_files import CLASSES, node, prompt, reasons, subgraph, warnings, workflow


def two(**more: Any) -> dict[str, Any]:
    return workflow(node(1, "EmptyImage", [64, 32, 1, 0]), node(2, "PreviewImage", image=None, images=(1, 0)), **more)


@pytest.mark.parametrize(
    ("document", "is_one"), [({"nodes": []}, True), ({"nodes": {}}, False), ({}, False), ([], False), (None, False)]
)
def test_a_list_of_nodes_tells_the_format(document: Any, is_one: bool) -> None:
    assert is_editor_format(document) is is_one


def test_a_graph_is_a_whole_api_prompt() -> None:
    assert to_prompt(workflow(node(7, "ImageInvert", title="mine")), CLASSES) == {
        "7": {"class_type": "ImageInvert", "inputs": {}, "_meta": {"title": "mine"}}
    }
    assert to_prompt(workflow(node(7, "ImageInvert")), CLASSES)["7"]["_meta"] == {"title": "Invert Image"}


@pytest.mark.parametrize("version", [0.4, 1])
def test_links_are_lists_or_objects(version: float) -> None:
    assert prompt(two(version=version))["2"] == {"images": ["1", 0]}


def test_links_of_both_forms_may_stand_in_one_file() -> None:
    document = two()
    document["links"] = [None, *two(version=1)["links"]]
    assert prompt(document)["2"] == {"images": ["1", 0]}


def test_ids_may_be_texts() -> None:
    document = workflow(node("abc", "EmptyImage", [8, 8, 1, 0]), node(2, "PreviewImage", images=("abc", 0)))
    assert prompt(document)["2"] == {"images": ["abc", 0]}


def test_the_input_decides_where_a_link_ends() -> None:
    document = two()
    document["links"][0][4] = 7
    assert prompt(document)["2"] == {"images": ["1", 0]}


def test_inputs_are_matched_by_name() -> None:
    document = workflow(
        node(1, "CheckpointLoaderSimple", ["a"]),
        node(2, "KSampler", [1, "fixed", 2, 3, "euler", "simple", 1], latent_image=(3, 0), model=(1, 0)),
        node(3, "EmptyLatentImage", [8, 8, 1]),
    )
    found = prompt(document)["2"]
    assert (found["model"], found["latent_image"]) == (["1", 0], ["3", 0])


def test_an_unknown_input_stays_unless_it_was_a_widget() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "PreviewImage", images=(1, 0), gone=(1, 0)),
        node(3, "PreviewImage", types={"gone": "INT"}, gone=(1, 0)),
    )
    assert prompt(document)["2"] == {"images": ["1", 0], "gone": ["1", 0]}
    assert prompt(document)["3"] == {}
    assert "node 3" in warnings(document)
    assert "gone" in warnings(document)


def test_of_two_inputs_with_one_name_the_last_counts() -> None:
    document = two()
    document["nodes"][1]["inputs"].append({"name": "images", "type": "IMAGE", "link": None})
    assert prompt(document)["2"] == {}


def test_of_two_nodes_with_one_id_the_last_counts() -> None:
    document = workflow(node(1, "EmptyImage", [8, 8, 1, 0]), node(1, "OldNoise", [5]))
    assert prompt(document) == {"1": {"noise_seed": 5}}
    assert "two nodes 1" in warnings(document)


def test_a_node_that_leads_nowhere_stays() -> None:
    assert "3" in prompt(workflow(node(3, "EmptyLatentImage", [8, 8, 1])))


def test_what_belongs_to_the_canvas_does_not_matter() -> None:
    document = two(groups=[{"title": "g"}], config={"x": 1}, reroutes=[5], floatingLinks="?")
    document["extra"] = {"ds": {}, "reroutes": [{"id": 1}], "linkExtensions": [{"id": 1, "parentId": 2}]}
    assert prompt(document) == prompt(two())


def test_a_link_that_is_not_there_is_told() -> None:
    document = two()
    document["nodes"][1]["inputs"][1]["link"] = 999
    (reason,) = reasons(document)
    assert (reason["reason"], reason["node_id"], reason["input"]) == ("broken_link", "2", "images")
    assert "999" in reason["message"]


def test_a_link_from_a_node_that_is_not_there_is_told() -> None:
    document = two()
    document["links"][0][1] = 500
    (reason,) = reasons(document)
    assert reason["reason"] == "broken_link"
    assert "node 500" in reason["message"]


def test_a_broken_link_of_a_muted_node_does_not_matter() -> None:
    document = two()
    document["nodes"][1]["inputs"][1]["link"] = 999
    document["nodes"][1]["mode"] = 2
    assert "2" not in prompt(document)


def test_neither_argument_is_changed() -> None:
    inner = subgraph("s", node(101, "CurveEditor", [[[0, 0]]]), inputs={"c": [(101, "curve")]})
    document = workflow(node(1, "s", [[[1, 1]]], properties={"proxyWidgets": [["101", "curve"]]}), subgraphs=[inner])
    before, classes = copy.deepcopy(document), copy.deepcopy(CLASSES)
    graph = convert(document, CLASSES).graph
    graph["1:101"]["inputs"]["curve"]["__value__"].append("changed")
    assert (document, CLASSES) == (before, classes)
