"""Files of strangers: what is told of them has an end, and none of them is a failure of ours."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.chance import draws
from comfy_serverless.graph.editor_files import nodes_of, without_addresses
from comfy_serverless.graph.needs import needs_of, sources_in
from comfy_serverless.graph.needs.editor import MAX_NODES
from comfy_serverless.graph.needs.models import MOST_MODELS
from comfy_serverless.graph.wrappers import is_of_editor
from tests.patience import PATIENCE_S
from tests.unit.editor_samples import SUBGRAPH, node, saved
from tests.unit.needs_samples import OBJECT_INFO, entry, loader, with_checkpoint, with_subgraph

REPLY_BYTES = 6_000_000


def test_a_definition_that_holds_itself_has_an_end() -> None:
    workflow = with_subgraph([])
    workflow["definitions"]["subgraphs"][0]["nodes"].append(node(11, SUBGRAPH, []))
    for object_info in (OBJECT_INFO, None):
        assert [model.name for model in needs_of(workflow, object_info).models] == ["inner.safetensors"]


def test_definitions_that_grow_by_each_other_have_an_end() -> None:
    definitions = [
        {
            "id": f"d{level}",
            "nodes": [node(number, f"d{level + 1}", []) for number in range(10)],
            "links": [],
            "inputs": [],
        }
        for level in range(12)
    ]
    workflow = saved([node(1, "d0", [])], [], definitions={"subgraphs": definitions})
    started = time.process_time()
    with pytest.raises(InvalidWorkflow, match=f"more than {MAX_NODES:,} nodes"):
        needs_of(workflow, OBJECT_INFO)
    assert time.process_time() - started < PATIENCE_S
    assert sources_in(workflow).entries == {}, "beside a graph it says nothing, and is no failure"


def test_what_is_nested_too_deep_is_refused() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    for workflow in (with_checkpoint() | {"extra": deep}, {"1": {"class_type": "SaveImage", "inputs": {"x": deep}}}):
        with pytest.raises(InvalidWorkflow, match="levels deep"):
            needs_of(workflow, OBJECT_INFO)


def test_the_answer_about_a_huge_workflow_fits_into_a_reply() -> None:
    long = "x" * 100_000
    graph = {
        f"{number}{long if number % 1000 == 0 else ''}": {
            "class_type": "KSampler" if number % 2 else f"C{number}{long if number % 500 == 0 else ''}",
            "inputs": {
                "sampler_name": "euler",
                "text": long if number < 100 else "y" * 900,
                "lora_name": f"{number}{'z' * 400}.safetensors",
            },
        }
        for number in range(3000)
    }
    found = needs_of(graph, OBJECT_INFO | {"KSampler": {"input": {"required": {"sampler_name": [["euler"] * 2000]}}}})
    assert len(json.dumps(found.to_json())) < REPLY_BYTES
    assert len(found.models) == MOST_MODELS
    assert "more models than these are not listed" in found.notes


def test_a_note_of_a_megabyte_is_read_in_time() -> None:
    note = node(9, "Note", ["https://" * 200_000 + "(" * 100_000, "embedding:" * 50_000])
    started = time.process_time()
    needs_of(saved([note, loader(1, "CheckpointLoaderSimple", ["a.ckpt"])], []), OBJECT_INFO)
    needs_of({"1": {"class_type": "X", "inputs": {"text": "embedding:" * 100_000 + "a" * 100_000}}}, OBJECT_INFO)
    assert time.process_time() - started < PATIENCE_S


@pytest.mark.parametrize("folder", ["../../etc", "/", "a" * 5000, "models/../x", "lo ras", "loras\n", ""])
def test_a_folder_that_is_none_is_not_repeated(folder: str) -> None:
    workflow = saved([loader(1, "NobodyHasThis", ["fox.safetensors"], entry("fox.safetensors", directory=folder))], [])
    (model,) = needs_of(workflow, OBJECT_INFO).models
    assert model.folder in ("", "loras"), "white space at the end is no part of a folder"


JUNK: list[Any] = [
    None,
    True,
    -1,
    2.5,
    "",
    "a.safetensors",
    SUBGRAPH,
    [],
    [[]],
    {},
    {"name": "a.ckpt"},
    [None, 5],
    {"5": []},
]
GROUP = {"nodes": [{"type": "CheckpointLoaderSimple", "widgets_values": ["a.ckpt"], "inputs": []}], "links": []}


def samples() -> list[Any]:
    host = {"properties": {"proxyWidgets": [["10", "unet_name"]], "models": [entry("a.ckpt")], "cnr_id": "toys"}}
    return [
        with_checkpoint(),
        with_subgraph(["other.safetensors"]),
        with_subgraph(["other.safetensors"], host=host),
        saved([node(1, "workflow>G", ["b.ckpt"])], [], extra={"groupNodes": {"G": GROUP}}, models=[entry("a.ckpt")]),
        saved(
            [node(1, "Nobody", {"a": {"lora": "x.pt", "on": True}}), node(2, "MarkdownNote", ["https://x.y/a.ckpt"])],
            [],
        ),
    ]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a value: what it is in, and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@pytest.mark.parametrize("sample", range(len(samples())))
def test_a_file_with_anything_in_any_place_is_no_failure_of_ours(sample: int) -> None:
    random = Random(sample)
    for _ in range(150):
        workflow = deepcopy(samples()[sample])
        for _ in range(random.choice((1, 1, 2, 4))):
            within, key = random.choice(places(workflow))
            within[key] = deepcopy(random.choice(JUNK))
        for object_info in (OBJECT_INFO, None):
            try:
                json.dumps(needs_of(workflow, object_info).to_json())
            except InvalidWorkflow as refused:
                if not isinstance(workflow.get("nodes"), list):
                    continue  # it is none of the editor's any more
                raise AssertionError(workflow) from refused


@pytest.mark.parametrize("sample", range(len(samples())))
def test_whether_such_a_file_draws_or_fetches_anything_is_told(sample: int) -> None:
    random = Random(sample)
    for _ in range(150):
        workflow = deepcopy(samples()[sample])
        for within, key in random.sample(places(workflow), 2):
            within[key] = deepcopy(random.choice(JUNK))
        if not is_of_editor(workflow):
            continue  # as another file it is checked before
        for each in list(nodes_of(workflow)):  # what only nodes with a seed of -1, or a text to roll, are asked for
            each["widgets_values"] = [-1, "{red|blue}"]
        assert draws(workflow) in (True, False)
        json.dumps(without_addresses(workflow, ["https://host.example/a.png"]))


@pytest.mark.parametrize("spec", JUNK, ids=repr)
def test_no_declaration_of_a_pack_is_a_failure_of_ours(spec: Any) -> None:
    graph = {"1": {"class_type": "X", "inputs": {"a": "fox.safetensors", "a.b": 1, "lora_name": None}}}
    forms = [spec, [spec], [spec, spec], ["COMBO", {"options": spec}], ["COMFY_DYNAMICCOMBO_V3", {"options": spec}]]
    forms.append(["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "fox.safetensors", "inputs": spec}]}])
    for form in forms:
        for said in (
            {"input": {"required": {"a": form, "a.b": form}}},
            {"input": {"required": form}},
            {"input": form},
            form,
        ):
            assert needs_of(graph, {"X": said}).to_json()["nodes"][0]["known"] is True


def test_groups_with_many_nodes_or_values_in_many_instances_are_refused() -> None:
    instances = [node(number, "workflow>G") for number in range(1, 200)]
    for group in (
        {"nodes": [{"type": "Nobody"}] * 500},
        {"nodes": [{"type": "Nobody", "widgets_values": [1] * 20_000}]},
    ):
        with pytest.raises(InvalidWorkflow, match=r"has more than 20,000 nodes|more than 2,000,000 values"):
            needs_of(saved(instances, [], extra={"groupNodes": {"G": group}}), OBJECT_INFO)


def test_a_node_with_more_values_than_any_has_is_refused() -> None:
    with pytest.raises(InvalidWorkflow, match="Node 1 has more than 20,000 values"):
        needs_of(saved([node(1, "CustomCombo", widgets_values=["a"] * 500_000)], []), OBJECT_INFO)
