"""Where what the editor shows stands in the graph: widgets of nodes, subgraphs and primitives."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.convert.places import Places
from tests.unit.editor_samples import link_in, link_out, node, saved

SUBGRAPH = "11111111-1111-4111-8111-000000000009"
INFO: dict[str, Any] = {
    "Text": {
        "input": {"required": {"text": ["STRING", {"multiline": True}], "strength": ["FLOAT", {}]}},
        "output": ["CONDITIONING"],
    },
    "Noise": {
        "input": {"required": {"seed": ["INT", {"control_after_generate": True}], "text": ["CONDITIONING"]}},
        "output": ["NOISE"],
        "output_node": True,
    },
}


def widget(name: str, link: int | None, kind: str, **more: Any) -> dict[str, Any]:
    return {**link_in(name, link, kind), "widget": {"name": name}, **more}


def hosted(*, outside: list[dict[str, Any]] | None = None, links: list[list[Any]] | None = None) -> dict[str, Any]:
    """Two hosts of one subgraph, in which the port `words` feeds two texts and `luck` the seed."""
    texts = [
        node(number, "Text", ["inner", 1.0], [widget("text", 100 + number, "STRING")], [link_out(None, "CONDITIONING")])
        for number in (11, 12)
    ]
    noise = node(13, "Noise", [5, "randomize"], [widget("seed", 113, "INT", label="video seed"), link_in("text", None)])
    definition = {
        "id": SUBGRAPH,
        "name": "Say it",
        "inputs": [
            {"name": "text", "label": "words", "type": "STRING", "linkIds": [111, 112]},
            {"name": "luck", "type": "INT", "linkIds": [113]},
        ],
        "outputs": [],
        "nodes": [*texts, noise],
        "links": [
            {
                "id": 100 + number,
                "origin_id": -10,
                "origin_slot": slot,
                "target_id": number,
                "target_slot": 0,
                "type": "*",
            }
            for number, slot in ((11, 0), (12, 0), (13, 1))
        ],
    }
    hosts = [
        node(number, SUBGRAPH, ["outer", 7], [widget("text", None, "STRING"), widget("luck", None, "INT")], title=title)
        for number, title in ((1, "First"), (2, ""))
    ]
    for one in outside or []:
        hosts[0]["inputs"][0]["link"] = one["outputs"][0]["links"][0]
    return saved([*hosts, *(outside or [])], links or [], definitions={"subgraphs": [definition]}, id="e1c0")


def targets(places: Places, node_id: str, name: str) -> set[str]:
    seen = places.widget(node_id, name)
    return {".".join(target) for target in seen.targets} if seen is not None else set()


def test_what_a_subgraph_shows_is_all_that_its_port_feeds_in_that_host() -> None:
    places = Places(hosted(), INFO)
    assert targets(places, "1", "text") == {"1:11.text", "1:12.text"}
    assert targets(places, "2", "text") == {"2:11.text", "2:12.text"}
    graph = convert(hosted(), INFO).graph
    assert {graph[one]["inputs"]["text"] for one in ("1:11", "1:12")} == {"outer"}


@pytest.mark.parametrize("node_id", ["1:11", "e1c0:1:11", "e1c0:1:text", "1:text"])
def test_an_id_may_have_its_way_before_it(node_id: str) -> None:
    assert targets(Places(hosted(), INFO), node_id, "text") == {"1:11.text", "1:12.text"}


def test_an_id_within_a_subgraph_means_it_in_each_host() -> None:
    places = Places(hosted(), INFO)
    assert targets(places, "13", "seed") == {"1:13.seed", "2:13.seed"}
    assert targets(places, "11", "strength") == {"1:11.strength", "2:11.strength"}
    assert places.node_ids("13") == ["1:13", "2:13"]
    assert places.node_ids("1") == ["1:11", "1:12", "1:13"]


def test_labels_and_titles_are_the_authors() -> None:
    places = Places(hosted(), INFO)
    seen = {one.label: one.title for one in places.promoted()}
    assert seen == {"words": "", "luck": ""} or seen == {"words": "First", "luck": "First"}
    inner = places.widget("1:13", "seed")
    assert inner is not None
    assert inner.label == "video seed"


def test_a_seed_that_the_editor_draws_is_known() -> None:
    assert Places(hosted(), INFO).random == {("1:13", "seed"), ("2:13", "seed")}


def test_a_primitive_that_leads_into_a_subgraph_means_what_is_inside() -> None:
    primitive = node(3, "PrimitiveNode", ["x", "fixed"], [], [link_out([50], "STRING")], title="words")
    workflow = hosted(outside=[primitive], links=[[50, 3, 0, 1, 0, "STRING"]])
    places = Places(workflow, INFO)
    assert targets(places, "3", "value") == {"1:11.text", "1:12.text"}
    assert [one.title for one in places.primitives()] == ["words"]


@pytest.mark.parametrize(
    ("node_id", "name"), [("99", "text"), ("1", "nothing"), ("", ""), (":", "x"), ("1:99", "text")]
)
def test_what_is_not_there_is_nothing(node_id: str, name: str) -> None:
    assert Places(hosted(), INFO).widget(node_id, name) is None


def test_a_file_that_cannot_be_converted_is_refused() -> None:
    with pytest.raises(UiFormatWorkflow):
        Places({"nodes": [{"id": 1}]}, INFO)
