"""`details.node_errors` has one shape wherever a workflow is refused: ComfyUI's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector.own_folder import check_prefixes
from comfy_serverless.connector.partners import check_partner_nodes
from comfy_serverless.connector.refusals import explained, refusal
from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.node_errors import MOST_NODES_TOLD
from comfy_serverless.graph.nodes import declared
from comfy_serverless.graph.workflow import as_engine_reads, check_format, check_links
from comfy_serverless.jobs.document import JobError
from comfy_serverless.jobs.node_list import NodeListReader
from comfy_serverless.worker.inputs.plan import plan_inputs

PACKAGE = Path(__file__).parents[2] / "lambda" / "comfy_serverless"


def node(class_type: str = "SaveImage", **inputs: Any) -> dict[str, Any]:
    return {"2": {"class_type": class_type, "inputs": inputs}}


def of_a_list(graph: dict[str, Any]) -> None:
    class Known(NodeListReader):
        def is_known(self) -> bool:
            return True

    Known(None, "bucket", lambda: "image", _lost=()).check(graph)  # type: ignore[arg-type]


def of_comfyui(graph: dict[str, Any]) -> None:
    said = {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": "ckpt_name: 'a.safetensors' not in []",
        "extra_info": {"input_name": "ckpt_name", "received_value": "a.safetensors"},
    }
    errors = {"2": {"errors": [said], "dependent_outputs": ["2"], "class_type": "SaveImage"}}
    raise explained(refusal({"type": "prompt_outputs_failed_validation"}, errors), graph, {}, ())


REFUSALS: dict[str, tuple[Callable[[Any], object], Any]] = {
    "no class": (check_format, {"2": {"inputs": {}}}),
    "no inputs": (check_format, {"2": {"class_type": "A"}}),
    "no node": (check_format, {"2": "text"}),
    "a link to nowhere": (check_links, node(images=["9", 0])),
    "an infinite number": (as_engine_reads, node(value=float("inf"))),
    "a number that is none, inside": (as_engine_reads, node(value=[{"a": float("nan")}])),
    "half of a character": (as_engine_reads, node(value="\ud800")),
    "a prefix that leads out": (check_prefixes, node(filename_prefix="../x")),
    "a prefix that is no text": (check_prefixes, node(filename_prefix=[])),
    "a loader of nothing": (lambda graph: plan_inputs(graph, {}), node("LoadImage", image="")),
    "a loader of null": (lambda graph: plan_inputs(graph, {}), node("LoadAudio", audio=None)),
    "a class that no worker has": (of_a_list, node("Nobody")),
    "a model that is missing": (of_comfyui, node()),
    "a partner node without a key": (
        lambda graph: check_partner_nodes(graph, {"Paid": declared({"api_node": True, "output_node": True})}, None),
        node("Paid"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_its_node_as_comfyui_does(name: str) -> None:
    check, graph = REFUSALS[name]
    with pytest.raises(InvalidWorkflow) as caught:
        check(graph)
    ((node_id, entry),) = caught.value.details["node_errors"].items()
    assert node_id == "2"
    assert entry.keys() == {"errors", "dependent_outputs", "class_type"}
    (problem,) = entry["errors"]
    assert {"type", "message", "details", "extra_info"} <= problem.keys()
    assert problem["message"]
    told = JobError.of(caught.value)
    assert (told.node_id, told.class_type) == ("2", entry["class_type"])


MANY = {
    "no class": (check_format, {"inputs": {}}),
    "a link to nowhere": (check_links, {"class_type": "A", "inputs": {"a": ["-", 0]}}),
    "an infinite number": (as_engine_reads, {"class_type": "A", "inputs": {"a": float("inf")}}),
    "a prefix that leads out": (check_prefixes, {"class_type": "SaveImage", "inputs": {"filename_prefix": "../x"}}),
    "a loader of nothing": (lambda graph: plan_inputs(graph, {}), {"class_type": "LoadImage", "inputs": {"image": ""}}),
    "a class that no worker has": (of_a_list, {"class_type": "Nobody", "inputs": {}}),
}


@pytest.mark.parametrize("name", MANY)
def test_of_very_many_nodes_the_first_are_told_and_the_number_of_the_others(name: str) -> None:
    check, wrong = MANY[name]
    with pytest.raises(InvalidWorkflow) as caught:
        check({str(number): wrong for number in range(2000)})
    details = caught.value.details
    assert list(details["node_errors"]) == [str(number) for number in range(MOST_NODES_TOLD)]
    assert details["more_node_errors"] == 2000 - MOST_NODES_TOLD
    assert JobError.of(caught.value).details["node_errors"], "there is room for them in every reply"


def test_whatever_writes_node_errors_is_in_the_table() -> None:
    writing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r'"node_errors":|(?<!def )(raise_node_errors|node_errors_of)\(', path.read_text())
    }
    assert writing == {
        "cli/assignments.py",
        "connector/connector.py",  # ComfyUI's own, as they came
        "connector/own_folder.py",
        "connector/partners.py",
        "connector/refusals.py",
        "graph/node_errors.py",  # the shape itself
        "graph/workflow.py",
        "jobs/node_list.py",
        "worker/inputs/plan.py",
    }


def test_a_missing_model_is_told_how_a_job_brings_it() -> None:
    with pytest.raises(InvalidWorkflow, match='"models": '):
        of_comfyui(node())
