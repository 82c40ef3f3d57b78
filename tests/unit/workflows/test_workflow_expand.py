"""From a version and values by name to a job's request."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.convert.texts import Dice, choose
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.graph.workflow import apply_set
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.workflow_source import goes_along
from comfy_serverless.workflows.request import expand
from comfy_serverless.workflows.version import NamedInput, Version
from tests.unit.workflows.stored_workflows import GRAPH, INPUTS, PHOTO, PROMPT, check, version

POSTER = version(number=3)
PICTURE = "s3://photos/fox.png"
ASSET = {"__type": "core/ASSET", "info": {"id": "a"}}


def expanded(inputs: Mapping[str, Any], one: Version = POSTER, *, strict: bool = True, **fields: Any) -> JobRequest:
    request = JobRequest.parse({"workflow": "poster", "inputs": inputs, "job_id": "job-1", **fields})
    return expand(request, one, check=check(one), strict=strict)


def refused(inputs: Mapping[str, Any], one: Version = POSTER, *, strict: bool = True, **fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as failed:
        expanded(inputs, one, strict=strict, **fields)
    assert (failed.value.details["workflow"], failed.value.details["version"]) == ("poster", one.number)
    return {error["field"]: error["problem"] for error in failed.value.details["errors"]}


# Where values go.


def test_values_go_to_set_files_to_inputs_and_labels_say_what_runs() -> None:
    request = expanded({"prompt": "a red fox", "steps": 8, "photo": PICTURE}, metadata={"user": "42"})
    assert request.workflow == GRAPH
    assert request.values == {"6.text": "a red fox", "3.steps": 8}
    assert request.inputs == {"10.image": PICTURE}
    assert request.metadata == {"user": "42", "workflow": "poster", "version": "3"}
    assert apply_set(request.workflow, request.values)["6"]["inputs"]["text"] == "a red fox"


def test_nothing_given_leaves_the_graph_as_it_is() -> None:
    request = expanded({})
    assert (request.workflow, request.values, request.inputs) == (GRAPH, {}, {})


def test_a_value_goes_to_every_target() -> None:
    both = replace(PROMPT, targets=("6.text", "7.text"))
    photos = replace(PHOTO, targets=("10.image", "11.image"))
    graph = {**GRAPH, "11": GRAPH["10"]}
    request = expanded({"prompt": "x", "photo": PICTURE}, replace(POSTER, graph=graph, inputs=(both, photos)))
    assert request.values == {"6.text": "x", "7.text": "x"}
    assert request.inputs == {"10.image": PICTURE, "11.image": PICTURE}


@pytest.mark.parametrize(
    ("given", "values", "files"),
    [
        ("https://a.example/fox.png", {}, {"10.image": "https://a.example/fox.png"}),
        ("data:image/png;base64,AAAA", {}, {"10.image": "data:image/png;base64,AAAA"}),
        (" s3://photos/fox.png\n", {}, {"10.image": PICTURE}),
        ("fox.png", {"10.image": "fox.png"}, {}),
        ([PICTURE, "https://a.example/b.png"], {}, {"10.image": [PICTURE, "https://a.example/b.png"]}),
        ([PICTURE], {}, {"10.image": PICTURE}),
        (["fox.png"], {"10.image": "fox.png"}, {}),
        (ASSET, {"10.image": ASSET}, {}),
    ],
)
def test_files_are_fetched_and_names_are_set(given: Any, values: dict[str, Any], files: dict[str, Any]) -> None:
    request = expanded({"photo": given})
    assert (request.values, request.inputs) == (values, files)


def test_several_files_are_all_addresses() -> None:
    assert "number 2 is none" in refused({"photo": [PICTURE, "fox.png"]})["inputs.photo"]
    assert "number 2 is none" in refused({"photo": [PICTURE, ASSET]})["inputs.photo"]


def test_several_files_that_were_uploaded_are_put_into_the_graph() -> None:
    request = expanded({"photo": [ASSET, ASSET]})
    assert (request.values["10.image"], request.inputs) == ([ASSET, ASSET], {})


@pytest.mark.parametrize("text", [' "quoted" ', "iVBORw0KGgo" + "A" * 60, "s3://a/b", "{red|blue}", "", "\n", "data:x"])
def test_a_text_is_taken_as_it_is_written(text: str) -> None:
    assert expanded({"prompt": text}).values == {"6.text": text}


def test_a_whole_number_is_one_in_the_graph() -> None:
    request = expanded({"steps": 8.0})
    assert json.dumps(request.values) == '{"3.steps": 8}'


# What does not fit.


def test_every_problem_is_told_at_once() -> None:
    problems = refused({"steps": 0, "promt": "x", "photo": 7})
    assert problems.keys() == {"inputs.steps", "inputs.promt", "inputs.photo"}
    assert "did you mean 'prompt'?" in problems["inputs.promt"]


def test_what_is_required_is_asked_for() -> None:
    one = replace(POSTER, inputs=(replace(PHOTO, is_required=True, default=None), PROMPT))
    assert refused({}, one) == {"inputs.photo": "is required"}
    assert refused({}, one, strict=False) == {"inputs.photo": "is required"}
    assert expanded({"10.image": PICTURE}, one, strict=False).inputs == {"10.image": PICTURE}
    assert expanded({}, one, strict=False, set={"LoadImage.image": "b.png"}).values == {"LoadImage.image": "b.png"}


def test_names_only_where_only_names_are_taken() -> None:
    assert refused({"10.image": PICTURE}).keys() == {"inputs.10.image"}
    request = expanded({"10.image": PICTURE, "prompt": "x"}, strict=False)
    assert (request.inputs, request.values) == ({"10.image": PICTURE}, {"6.text": "x"})


def test_an_address_is_judged_before_the_queue() -> None:
    problems = refused({"99.image": PICTURE, "promt": PICTURE, "10.image": 7}, strict=False)
    assert "no node has the id" in problems["inputs.99.image"]
    assert "did you mean 'prompt'?" in problems["inputs.promt"]
    assert "should be a string" in problems["inputs.10.image"]
    assert expanded({"10.mask": PICTURE}, strict=False).inputs == {"10.mask": PICTURE}


def test_a_name_that_is_an_address_too_is_a_name() -> None:
    one = replace(POSTER, inputs=(replace(PROMPT, name="10.image"),))
    assert expanded({"10.image": "x"}, one, strict=False).values == {"6.text": "x"}


def test_a_value_and_set_for_the_same_input_are_one_too_many() -> None:
    assert "given twice" in refused({"prompt": "x"}, set={"6.text": "y"})["inputs.prompt"]
    assert expanded({"prompt": "x"}, set={"7.text": "y"}).values == {"6.text": "x", "7.text": "y"}


def test_labels_of_the_caller_stay_but_not_for_long_or_instead() -> None:
    request = expanded({}, metadata={"workflow": "mine", "version": "3"})
    assert request.metadata == {"workflow": "poster", "version": "3"}
    assert [warning for warning in request.warnings if "'mine'" in warning]
    assert len(request.warnings) == 1
    many = {str(number): "x" for number in range(49)}
    assert "at most 50" in refused({}, metadata=many)["metadata"]
    assert len(expanded({}, metadata=dict(list(many.items())[:48])).metadata) == 50
    long = {str(number): "x" * 1_000 for number in range(15)} | {"rest": "x" * 960}
    assert "16,000 bytes" in refused({}, metadata=long)["metadata"]


# What is random.


def test_texts_are_rolled_by_the_job_unless_they_are_given() -> None:
    one = replace(POSTER, rolled={"6.text": "{red|blue|green} fox", "7.text": "{a|b}"})
    request = expanded({"prompt": "{x|y}"}, one)
    assert request.values["6.text"] == "{x|y}"
    assert request.values["7.text"] == choose("{a|b}", Dice("job-1", "7.text")).text
    assert expanded({}, one, set={"CLIPTextEncode.text": "mine"}).values == {"CLIPTextEncode.text": "mine"}
    rolled = {str(expanded({}, one, job_id=f"job-{number}").values["6.text"]) for number in range(30)}
    assert rolled == {"red fox", "blue fox", "green fox"}
    assert expanded({}, one).values == expanded({}, one).values


def test_a_seed_is_left_to_the_worker_who_tells_it() -> None:
    assert expanded({"seed": -1}).values == {"3.seed": -1}
    assert expanded({"seed": 7}).values == {"3.seed": 7}
    assert expanded({}).values == {}, "it stands in the graph"
    fixed = {**GRAPH, "3": {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "seed": 5}}}
    assert expanded({}, replace(POSTER, graph=fixed)).values == {"3.seed": -1}, "the editor would draw one"
    assert expanded({}, replace(POSTER, graph=fixed), set={"KSampler.seed": 6}, strict=False).values == {
        "KSampler.seed": 6
    }


def test_a_seed_that_no_worker_draws_is_drawn_here_and_is_one_for_all_targets() -> None:
    graph = {**GRAPH, "20": {"class_type": "PrimitiveInt", "inputs": {"value": 5}}}
    hidden = NamedInput(
        name="luck", targets=("20.value", "3.seed"), kind=InputKind.INTEGER, role=Role.SEED, default=5, maximum=1_000
    )
    one = replace(POSTER, graph=graph, inputs=(hidden,))
    request = expanded({"luck": -1}, one)
    drawn = request.values["20.value"]
    assert request.values["3.seed"] == drawn
    assert 0 <= drawn <= 1_000
    assert f"the seed 'luck' was drawn: {drawn}" in request.warnings
    assert expanded({"luck": -1}, one).values == request.values, "the same job has the same"
    assert len({expanded({"luck": -1}, one, job_id=f"job-{number}").values["20.value"] for number in range(9)}) > 1
    assert expanded({}, one).values == {"20.value": 5, "3.seed": 5}, "as it says of itself"


# What goes along, and what stays as it is.


def test_what_the_editor_saved_goes_into_pictures() -> None:
    editors = {"nodes": [{"id": 6, "type": "CLIPTextEncode"}], "links": []}
    one = replace(POSTER, editors=editors)
    request = expanded({}, one, extra_data={"preview_method": "none", "extra_pnginfo": {"mine": 1}})
    assert request.extra_data == {"preview_method": "none", "extra_pnginfo": {"workflow": editors, "mine": 1}}
    assert expanded({}, one, extra_data={"extra_pnginfo": {"workflow": {"a": 1}}}).extra_data == {
        "extra_pnginfo": {"workflow": {"a": 1}}
    }
    large = replace(POSTER, editors={"nodes": [], "links": [], "extra": "x" * 2_100_000})
    request = expanded({}, large)
    assert request.extra_data is None
    assert "cannot be opened in the editor" in request.warnings[0]


def test_no_job_changes_the_version() -> None:
    one = replace(POSTER, editors={"nodes": [{"id": 6, "widgets_values": ["a"]}]}, rolled={"7.text": "{a|b}"})
    before = copy.deepcopy(one)
    request = expanded({"prompt": "x"}, one)
    assert isinstance(request.workflow, dict)
    request.workflow["6"]["inputs"]["clip"].append("broken")
    request.workflow["3"]["inputs"]["steps"] = 0
    del request.workflow["10"]
    assert request.extra_data is not None
    request.extra_data["extra_pnginfo"]["workflow"]["nodes"][0]["widgets_values"].append("b")
    assert one == before


def test_what_goes_along_is_looked_through_once_for_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    editors = {"nodes": [{"id": 6, "widgets_values": ["a"]}], "links": []}
    one = replace(POSTER, editors=editors)
    looked: list[object] = []

    def counted(*given: Any) -> tuple[dict[str, Any], list[str]]:
        looked.append(given)
        return goes_along(*given)

    monkeypatch.setattr("comfy_serverless.workflows.copies.goes_along", counted)
    first, second = expanded({"prompt": "x"}, one), expanded({"prompt": "y"}, one)
    assert len(looked) == 1
    assert first.extra_data is not None
    assert isinstance(first.workflow, dict)
    first.extra_data["extra_pnginfo"]["workflow"]["nodes"][0]["widgets_values"].append("broken")
    first.workflow["6"]["inputs"]["clip"].append("broken")
    assert expanded({}, one).extra_data == second.extra_data == {"extra_pnginfo": {"workflow": editors}}
    assert second.workflow == GRAPH
    changed = replace(one, graph={"1": GRAPH["10"]}, inputs=())
    assert expanded({}, changed).workflow == changed.graph, "another version has texts of its own"


def test_the_request_itself_is_left_as_it_was() -> None:
    request = JobRequest.parse({"workflow": "poster", "inputs": {"prompt": "x"}})
    before = request.model_dump()
    expand(request, POSTER, check=check(POSTER), strict=True)
    assert request.model_dump() == before


def test_all_kinds_of_inputs_are_in_the_world() -> None:
    assert {one.kind for one in INPUTS} == {InputKind.TEXT, InputKind.INTEGER, InputKind.FILE}


# What a request may have.


@pytest.mark.parametrize("value", [1, 1.5, True, {"a": [1]}, [1, 2], [], [{"x": "y"}]])
def test_any_value_may_be_given_to_a_name_and_to_nothing_else(value: Any) -> None:
    request = JobRequest.parse({"workflow": "poster", "inputs": {"x": value}})
    assert (request.is_named, request.inputs) == (True, {"x": value})
    for workflow in (GRAPH, "s3://bucket/poster.json", "https://a.example/poster.json"):
        with pytest.raises(InvalidRequest, match=r"inputs\.x: should be a string"):
            JobRequest.parse({"workflow": workflow, "inputs": {"x": value}})


def test_a_value_of_a_name_is_not_nested_without_end() -> None:
    deep: Any = "x"
    for _ in range(70):
        deep = [deep]
    with pytest.raises(InvalidRequest, match=r"inputs\.x: is nested more than 64 levels deep"):
        JobRequest.parse({"workflow": "poster", "inputs": {"x": deep}})


@pytest.mark.parametrize(
    ("workflow", "is_named"), [("poster", True), ("a/b", True), ("S3://b/k", False), (GRAPH, False)]
)
def test_a_text_that_is_no_address_is_a_name(workflow: Any, is_named: bool) -> None:
    assert JobRequest.parse({"workflow": workflow}).is_named is is_named
