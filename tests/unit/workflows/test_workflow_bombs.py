"""What a push costs has an end, whatever its graph is and what was chosen in it: work, and the length of answers."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest, InvalidWorkflow
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.workflow import apply_set
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.workflows import compat
from comfy_serverless.workflows.compat import problems_of
from comfy_serverless.workflows.pushing import prepare
from comfy_serverless.workflows.request import expand
from comfy_serverless.workflows.schema import InputCheck
from comfy_serverless.workflows.version import NamedInput, Version

NODES = 6_000
OBJECT_INFO: dict[str, Any] = {
    "CLIPTextEncode": {"input": {"required": {"text": ["STRING"], "clip": ["CLIP"]}}, "output": ["CONDITIONING"]},
    "Pick": {
        "input": {"required": {f"one_{number}": [["euler", "ddim"], {}] for number in range(100)}},
        "output": [],
        "output_node": True,
    },
}
TEXTS: dict[str, Any] = {
    str(number): {"class_type": "CLIPTextEncode", "inputs": {"text": f"text {number}"}} for number in range(NODES)
}


def bare(graph: dict[str, Any]) -> Version:
    return Version(name="bomb", number=0, owner="alice", graph=graph)


def refusal(**chosen: Any) -> InvalidRequest:
    """What is said of choices in a large graph."""
    found = prepare(bare(TEXTS), OBJECT_INFO, **chosen).refusal
    assert found is not None
    return found


def test_addresses_that_mean_every_node_are_refused_together() -> None:
    told = refusal(inputs={f"text_{number}": "CLIPTextEncode.text" for number in range(200)})
    assert told.details["errors"] == [
        {"field": "inputs", "problem": "set too many inputs of the graph: 5,000 together at most"}
    ]
    few = prepare(bare(TEXTS), OBJECT_INFO, inputs={"text": {"targets": [f"{number}.text" for number in range(1000)]}})
    assert few.refusal is None
    assert len(few.version.inputs[0].targets) == 1000


def test_a_list_of_mistakes_has_an_end() -> None:
    told = refusal(
        inputs={
            f"text_{number}": {"target": "6.text", **dict.fromkeys((f"{name}_" for name in "abcdefghij"), 1)}
            for number in range(200)
        }
    )
    assert 100 < len(told.details["errors"]) <= 500
    many = refusal(inputs={"text": {"target": "6.text", **{f"field {number}": 1 for number in range(50_000)}}})
    (only,) = many.details["errors"]
    assert only["field"] == "inputs.text"
    assert only["problem"].startswith("has 50,001 fields, and there are 11: target, targets,")


@pytest.mark.parametrize("choice", ["x" * 500_000, 10**5_000], ids=["text", "number"])
def test_a_long_choice_that_is_none_is_not_told_whole(choice: object) -> None:
    graph = {"1": {"class_type": "Pick", "inputs": {f"one_{number}": "euler" for number in range(100)}}}
    found = prepare(
        bare(graph),
        OBJECT_INFO,
        inputs={f"n{number}": {"target": f"1.one_{number}", "choices": [choice]} for number in range(100)},
    ).refusal
    assert found is not None
    assert len(found.details["errors"]) >= 100
    assert len(json.dumps(found.details)) < 100_000


def test_outputs_that_no_node_makes_are_looked_up_in_one_list() -> None:
    told = refusal(outputs={f"picture_{number}": f"9{number:09}" for number in range(200)})
    assert len(told.details["errors"]) == 200
    one = refusal(outputs={"picture": "CLIPTextEncode"})
    assert "means 6000 nodes" in one.details["errors"][0]["problem"]


def test_all_hints_on_a_workflow_have_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = []

    def nearest(_: str, __: object, guesses: object = None) -> None:
        budgets.append(guesses)

    monkeypatch.setattr(compat, "nearest", nearest)
    graph = {
        str(number): {"class_type": f"Unknown{number}", "inputs": {"link": [str(number * 7 % NODES), 0]}}
        for number in range(NODES)
    }
    version = prepare(bare(graph), OBJECT_INFO).version
    found = problems_of(version, OBJECT_INFO)
    assert len(budgets) == NODES
    assert set(map(id, budgets)) == {id(budgets[0])} != {id(None)}
    assert len(found) == 201
    assert found[-1].message == f"and {NODES - 200} more"


@pytest.mark.parametrize("field", ["minimum", "maximum", "step", "choices", "default"])
def test_a_number_that_is_no_float_is_a_mistake_or_a_value(field: str) -> None:
    graph = {"1": {"class_type": "Grow", "inputs": {"by": 10**400}}}
    declared = {"Grow": {"input": {"required": {"by": ["INT", {"min": -(10**400), "max": 10**400}]}}, "output": []}}
    value = [10**400] if field == "choices" else 10**400
    found = prepare(bare(graph), declared, inputs={"by": {"target": "1.by", field: value}})
    told = [] if found.refusal is None else [one["field"] for one in found.refusal.details["errors"]]
    assert told == ([] if field == "default" else [f"inputs.by.{field}"])


@pytest.mark.parametrize(
    "value", ["x" * 200_000, ["x" * 200_000], {"info": {"x" * 200_000: 1}}], ids=["text", "list", "object"]
)
def test_a_long_value_is_not_set_in_very_many_nodes(value: object) -> None:
    graph = dict(islice(TEXTS.items(), 1000))
    with pytest.raises(InvalidWorkflow, match=r"^the values that are set have 200,\d+,000 letters in all the places"):
        apply_set(graph, {"CLIPTextEncode.text": value})
    with pytest.raises(InvalidWorkflow, match="set a long value in fewer nodes"):
        apply_set(graph, dict.fromkeys((f"{number}.text" for number in graph), value))
    few = apply_set(graph, {"CLIPTextEncode.text": "x" * 10_000, "5.text": value})
    assert (few["5"]["inputs"]["text"], few["6"]["inputs"]["text"]) == (value, "x" * 10_000)


def test_a_file_in_the_request_itself_does_not_go_to_very_many_loaders() -> None:
    graph = {str(number): {"class_type": "LoadImage", "inputs": {"image": "a.png"}} for number in range(100)}
    photo = NamedInput(name="photo", targets=tuple(f"{number}.image" for number in graph), kind=InputKind.FILE)
    version = replace(bare(graph), number=1, inputs=(photo,))
    check = InputCheck.of(version)

    def files(size: int) -> int:
        request = JobRequest.parse({"workflow": "bomb", "inputs": {"photo": f"data:image/png;base64,{'A' * size}"}})
        return len(expand(request, version, check=check, strict=True).inputs)

    assert files(1_000) == 100
    with pytest.raises(InvalidWorkflow, match="set a long value in fewer nodes"):
        files(1_000_000)
