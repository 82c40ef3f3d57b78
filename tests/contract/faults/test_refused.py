"""The workflow is wrong, a node fails, memory or the GPU is lost."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from comfy_serverless.errors import OutOfMemory
from tests.contract.faults.rows import row
from tests.contract.faults.world import World, lite_only, picture, real_only


def wrong(**inputs: Any) -> dict[str, Any]:
    """A picture whose first node has these inputs."""
    graph = picture()
    graph["1"]["inputs"] |= inputs
    return graph


def without(name: str) -> dict[str, Any]:
    graph = picture()
    del graph["2"]["inputs"][name]
    return graph


def linked(*link: Any) -> dict[str, Any]:
    graph = picture()
    graph["2"]["inputs"]["images"] = list(link)
    return graph


def inner(*link: Any) -> dict[str, Any]:
    """A graph where the output's link is right, but the link of the node before it is not."""
    return linked("3", 0) | {"3": {"class_type": "ImageInvert", "inputs": {"image": list(link)}}}


def cycle() -> dict[str, Any]:
    inverts = {name: {"class_type": "ImageInvert", "inputs": {"image": [other, 0]}} for name, other in ("34", "43")}
    return linked("3", 0) | inverts


def of_class(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"1": {"class_type": class_type, "inputs": inputs}, "2": picture()["2"]}


INVALID = {
    "prompt_no_outputs": ({"1": picture()["1"]}, None),
    "missing_node_type": (of_class("NoSuchNode"), None),
    "required_input_missing": (without("images"), "2"),
    "bad_linked_input": (linked("1", 0, 0), "2"),
    "return_type_mismatch": (
        picture()
        | {
            "3": {"class_type": "ImageInvert", "inputs": {"image": ["4", 0]}},
            "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 16, "height": 16, "batch_size": 1}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
        },
        "3",
    ),
    "invalid_input_type": (wrong(width="wide"), "1"),
    "value_smaller_than_min": (wrong(width=0), "1"),
    "value_bigger_than_max": (wrong(width=10**6), "1"),
    "value_not_in_list": (
        of_class("ImageScale", image=["3", 0], upscale_method="magic", width=8, height=8, crop="disabled")
        | {"3": picture()["1"]},
        "1",
    ),
    "custom_validation_failed": (of_class("LoadImage", image="no such file.png"), "1"),
    "exception_during_validation": (linked("1", 7), "2"),
    "exception_during_inner_validation": (inner("1", 7), "3"),
    "prompt_outputs_failed_validation": (cycle(), None),
}
#: What 0.3.64 calls the same.
OLDER_KINDS = {"missing_node_type": "invalid_prompt"}


@row(
    "ComfyUI refuses the workflow, for each of its reasons",
    code="invalid_workflow",
    so="the node is named, nothing was queued",
    within_s=5,
)
@pytest.mark.parametrize("kind", INVALID)
def test_the_workflow_is_refused(fragile: World, kind: str) -> None:
    graph, node_id = INVALID[kind]
    error = fragile.fails(graph)
    found = {problem["type"] for node in error.details["node_errors"].values() for problem in node["errors"]}
    assert {kind, OLDER_KINDS.get(kind, kind)} & {*found, error.details["error"]["type"]}
    if node_id is not None:
        assert f"Node {node_id} " in error.message


@row("the workflow has NaN", code="invalid_workflow", within_s=5)
def test_the_workflow_has_a_value_that_json_cannot_carry(fragile: World) -> None:
    error = fragile.fails(wrong(color=float("nan")))
    assert "JSON" in error.message


@row("`200` with `node_errors`", so="succeeds, with a warning that names node and reason", within_s=5)
def test_one_output_of_two_is_refused(fragile: World) -> None:
    graph = picture() | {"3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
    execution = fragile.succeeds(graph)
    assert [output.node_id for output in execution.outputs] == ["2"]
    assert any("Node 3 (SaveImage)" in warning for warning in execution.warnings)


def chain() -> dict[str, Any]:
    graph = picture() | {"3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    return graph


@row("the first, a middle, the last node raises", code="node_execution_error", so="the node is named", within_s=5)
@lite_only
@pytest.mark.parametrize("node_id", ["1", "3", "2"], ids=["first", "middle", "last"])
def test_a_node_raises(fragile: World, node_id: str) -> None:
    fragile.arm("node_error", at="node", node=node_id)
    error = fragile.fails(chain())
    assert error.details["node_id"] == node_id
    assert error.details["exception_type"] == "ValueError"
    assert fragile.connector.starts == 1


@row("the same on a real ComfyUI", code="node_execution_error", so="the node is named", within_s=10)
@real_only
def test_a_node_of_a_real_engine_raises(fragile: World) -> None:
    graph = chain()
    graph["3"] = {"class_type": "ContractRaise", "inputs": {"kind": "ValueError", "message": "boom", "image": ["1", 0]}}
    error = fragile.fails(graph)
    assert (error.details["node_id"], error.details["exception_message"]) == ("3", "boom")


@row("memory runs out", so="succeeds: memory is freed, the workflow run once more", within_s=6)
@lite_only
def test_memory_runs_out_once(fragile: World) -> None:
    fragile.arm("out_of_memory", at="node", node="SaveImage")
    assert fragile.succeeds(picture()).attempts == 2
    assert fragile.connector.starts == 1


@row("memory runs out twice", code="out_of_memory", so="the engine goes on", within_s=6)
@lite_only
def test_memory_runs_out_twice(fragile: World) -> None:
    fragile.arm("out_of_memory", at="node", node="SaveImage", times=2)
    assert fragile.fails(picture()).details["node_id"] == "2"
    assert fragile.connector.starts == 1


@row("the same on a real ComfyUI", code="out_of_memory", so="the engine goes on", within_s=15)
@real_only
def test_memory_of_a_real_engine_runs_out(fragile: World) -> None:
    graph = picture()
    message = f"Allocation on device {uuid.uuid4()}"
    graph["1"] = {"class_type": "ContractRaise", "inputs": {"kind": "OOM", "message": message}}
    assert isinstance(fragile.fails(graph), OutOfMemory)


@row(
    "a CUDA error poisons the process", so="succeeds: the process is replaced, the workflow run once more", within_s=10
)
@lite_only
def test_the_gpu_is_lost_to_the_process(fragile: World) -> None:
    fragile.arm("cuda_error", at="node", node="SaveImage")
    execution = fragile.succeeds(picture())
    assert (execution.attempts, fragile.connector.starts) == (2, 2)
