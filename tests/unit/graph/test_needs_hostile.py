"""Files of strangers: what is told of them has an end, and none of them is a failure of ours."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.needs import needs_of, sources_in
from comfy_serverless.graph.needs.editor import MAX_NODES
from comfy_serverless.graph.needs.models import MOST_MODELS
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
        for number in range(5000)
    }
    found = needs_of(graph, OBJECT_INFO | {"KSampler": {"input": {"required": {"sampler_name": [["euler"] * 5000]}}}})
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


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["a.safetensors", "fox", SUBGRAPH, "workflow>G", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "url", "widget", "on", "lora", "nodes", "linkIds"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
NODE = st.fixed_dictionaries(
    {"type": st.sampled_from([*OBJECT_INFO, SUBGRAPH, "workflow>G", "Nobody"]) | ANYTHING},
    optional=dict.fromkeys(("id", "mode", "inputs", "outputs", "widgets_values", "properties"), ANYTHING),
)
WORKFLOW = st.fixed_dictionaries(
    {"nodes": st.lists(NODE | ANYTHING, max_size=4)},
    optional={
        "links": ANYTHING,
        "extra": ANYTHING | st.fixed_dictionaries({"groupNodes": st.fixed_dictionaries({"G": ANYTHING})}),
        "definitions": ANYTHING
        | st.fixed_dictionaries(
            {
                "subgraphs": st.lists(
                    st.fixed_dictionaries(
                        {"id": st.just(SUBGRAPH), "nodes": st.lists(NODE, max_size=3)},
                        optional={"inputs": ANYTHING, "links": ANYTHING, "definitions": ANYTHING},
                    ),
                    max_size=2,
                )
            }
        ),
    },
)


@settings(max_examples=50)
@given(workflow=WORKFLOW, object_info=st.sampled_from([OBJECT_INFO, None, {}]))
def test_no_file_of_the_editor_is_a_failure_of_ours(
    workflow: dict[str, Any], object_info: dict[str, Any] | None
) -> None:
    try:
        json.dumps(needs_of(workflow, object_info).to_json())
    except InvalidWorkflow:
        assert len(workflow["nodes"]) > 0, "an empty one is no reason to refuse"


@settings(max_examples=30)
@given(declaration=ANYTHING, options=ANYTHING)
def test_no_declaration_of_a_pack_is_a_failure_of_ours(declaration: Any, options: Any) -> None:
    graph = {"1": {"class_type": "X", "inputs": {"a": "fox.safetensors", "a.b": 1, "lora_name": None}}}
    for spec in (
        declaration,
        [declaration],
        [declaration, options],
        ["COMBO", {"options": options}],
        ["COMFY_DYNAMICCOMBO_V3", {"options": options}],
    ):
        for said in ({"input": {"required": {"a": spec}}}, {"input": {"required": spec}}, {"input": spec}, spec):
            json.dumps(needs_of(graph, {"X": said}).to_json(), default=str)
