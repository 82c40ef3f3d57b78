"""What the reader of requests makes of files with names, of letters that may be none, and of warnings without end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.file_inputs import name_in_input_folder
from comfy_serverless.jobs import shapes as module
from comfy_serverless.jobs.document import MAX_WARNING_CHARACTERS, MAX_WARNINGS, first_warnings
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.shapes import ENVELOPES, MAX_ADDRESSES, may_be_request, shape

GRAPH: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {}}}


def node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def given(name: str, graph: dict[str, Any]) -> dict[str, Any]:
    """The inputs that a file of this name is given to."""
    sent = {"workflow": graph, "images": [{"name": name, "image": "s3://b/k.png"}]}
    inputs: dict[str, Any] = shape(sent, known=JobRequest.field_names()).fields["inputs"]
    return inputs


@pytest.mark.parametrize(
    ("value", "one", "places"),
    [
        ("fox", node("LoadImage", image="fox"), ["1.image"]),
        ("fox", node("CLIPTextEncode", text="fox"), []),
        ("fox", node("SomeLoader", picture="fox"), []),
        ("fox", node("SomeLoader", image="fox"), ["1.image"]),
        ("fox.png", node("LoadImage", image="fox.png [input]"), ["1.image"]),
        ("fox.png", node("SomeLoader", picture="fox.png"), ["1.picture"]),
        ("fox.png", node("SaveImage", filename_prefix="fox.png"), []),
        ("fox.png", node("PrimitiveString", value="fox.png"), []),
        ("", node("LoadImage", image=""), []),
        ("fox.png", {"class_type": 5, "inputs": {"image": "fox.png"}}, []),
    ],
)
def test_a_file_goes_to_inputs_that_take_files(value: str, one: dict[str, Any], places: list[str]) -> None:
    assert list(given(value, {"1": one, "2": node("EmptyImage")})) == places


def test_a_file_that_several_nodes_name_goes_to_all_and_the_last_of_a_name_counts() -> None:
    graph = {str(number): node("LoadImage", image="a.png") for number in range(3)}
    images = [{"name": "a.png", "image": f"s3://b/{number}.png"} for number in range(2)]
    fields = shape({"workflow": graph, "images": images}, known=JobRequest.field_names()).fields
    assert fields["inputs"] == {f"{number}.image": "s3://b/1.png" for number in range(3)}


def test_the_graph_is_read_once_however_many_files_come_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def noted(value: str) -> str:
        asked.append(value)
        return name_in_input_folder(value)

    monkeypatch.setattr(module, "name_in_input_folder", noted)
    graph = {str(number): node("LoadImage", image=f"{number}.png") for number in range(200)}
    images = [{"name": f"{number}.png", "image": "s3://b/k.png"} for number in range(200)]
    fields = shape({"workflow": graph, "images": images}, known=JobRequest.field_names()).fields
    assert len(fields["inputs"]) == len(asked) == 200


def test_there_are_no_more_files_than_addresses() -> None:
    images = [{"name": "a.png", "image": "s3://b/k.png"}] * (MAX_ADDRESSES + 1)
    with pytest.raises(InvalidRequest, match="1,001 `images`"):
        shape({"workflow": GRAPH, "images": images}, known=JobRequest.field_names())


LETTERS = [
    ({"workflow": GRAPH}, True),
    (GRAPH, True),
    ([{"workflow": GRAPH}], True),
    (json.dumps({"workflow": GRAPH}), True),
    ({"data": {"payload": {"workflow": "name"}}}, True),
    ({"workflow": "{'1': {}}"}, True),
    ({"input": "{'1': {}}"}, True),
    ({"workflow": GRAPH, "prompt": {"2": node("EmptyImage")}}, True),
    *[({name: value}, True) for name in ENVELOPES for value in ({"workflow": GRAPH}, json.dumps(GRAPH))],
    *[({name: {"status": "ok"}}, False) for name in ENVELOPES if name != "input"],
    ({"data": "[ERROR]: it burns", "message": "x"}, False),
    ({"data": "{broken: 1}"}, False),
    ({"event": "deployed"}, False),
    ("a text", False),
    ([1, 2], False),
    (None, False),
]


@pytest.mark.parametrize(("payload", "is_one"), LETTERS)
def test_a_letter_is_a_request_wherever_that_would_be_read_as_one(payload: object, is_one: bool) -> None:
    assert may_be_request(payload) == is_one


@pytest.mark.parametrize(
    "payload",
    [
        {"workflow": GRAPH, "inputs": {f"1.x{number}": None for number in range(5000)}},
        {"workflow": GRAPH, "images": [{"name": f"{number}.png", "image": "s3://b/k"} for number in range(500)]},
    ],
    ids=["nulls", "files"],
)
def test_a_request_has_the_first_warnings_and_the_number_of_the_others(payload: dict[str, Any]) -> None:
    count = len(payload.get("images") or payload["inputs"])
    request = JobRequest.parse(payload)
    assert len(request.warnings) == MAX_WARNINGS + 1
    assert request.warnings[-1] == f"and {count - MAX_WARNINGS} more"
    more = request.with_warnings((*request.warnings, "one", "two")).warnings
    assert more[-1] == f"and {count - MAX_WARNINGS + 2} more"


def test_a_warning_is_not_longer_than_a_sentence_and_few_are_left_as_they_are() -> None:
    assert first_warnings(["a" * 5000]) == ("a" * MAX_WARNING_CHARACTERS,)
    many = first_warnings(map(str, range(1000)))
    assert first_warnings(many) == many
    assert first_warnings([]) == ()


@pytest.mark.parametrize("text", ["[v2] poster", "{draft} poster", '"old" poster', "[1] poster", "[[wip]"])
def test_a_workflow_may_have_any_name_that_is_not_meant_as_json(text: str) -> None:
    if text == "[[wip]":
        with pytest.raises(InvalidRequest, match="not JSON"):
            JobRequest.parse({"workflow": text})
    else:
        assert JobRequest.parse({"workflow": text}).workflow == text


@pytest.mark.parametrize("text", ["{", '{"1"', "{'1': 5}", "{a: 1}", '{"1": {"class_type": ', '[{"1": 5', "{,}: 1"])
def test_a_text_that_is_meant_as_json_is_refused_with_the_place(text: str) -> None:
    for field in ("workflow", "prompt", "workflow_json"):
        with pytest.raises(InvalidRequest, match="is not JSON"):
            JobRequest.parse({field: text})


@pytest.mark.parametrize("name", ["prompt", "output", "graph", "workflow_json"])
@pytest.mark.parametrize("words", ["{red|blue} fox", "[masterpiece] {a: b}", '"fox"'])
def test_words_beside_a_workflow_are_called_by_their_field(name: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        JobRequest.parse({"workflow": GRAPH, name: words})
    assert caught.value.message.startswith(f"The job request cannot be used: {name}: ")


def test_an_envelope_with_a_broken_text_does_not_hide_another_one() -> None:
    assert JobRequest.parse({"body": "{broken: 1}", "instances": [{"workflow": GRAPH}]}).workflow == GRAPH
    with pytest.raises(InvalidRequest, match="text of `body` is not JSON"):
        JobRequest.parse({"body": "{broken: 1}"})
