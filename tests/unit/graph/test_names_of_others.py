"""Names of files that are not the job's to read, wherever a graph has them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from comfy_serverless.graph.file_inputs import names_of_others, text_behind


def found(inputs: dict[str, Any], class_type: str = "LoadImage", **more: Any) -> list[tuple[str, str]]:
    graph = {"1": {"class_type": class_type, "inputs": inputs}, **more}
    return [(node_id, f"{name}: {problem}") for node_id, name, problem in names_of_others(graph)]


def text(value: Any) -> dict[str, Any]:
    return {"class_type": "PrimitiveString", "inputs": {"value": value}}


@pytest.mark.parametrize(
    "name", ["a.png [output]", "a.png [temp]", "a.png[temp]", "../a.png", "/etc/passwd", "x/../../a.png", "C:\\a.png"]
)
def test_a_name_outside_the_input_folder_is_found_plainly_and_by_a_link(name: str) -> None:
    [(_, problem)] = found({"image": name})
    assert problem == f"image: {name!r} is not in ComfyUI's input folder"
    assert ("1", problem) in found({"image": ["p", 0]}, p=text(name))
    assert ("1", problem) in found({"image": ["q", 0]}, q=text(["p", 0]), p=text(name))
    assert found({"mask": name}, "SomeLoader"), "a class that nobody knows is judged by the names of its inputs"


@pytest.mark.parametrize("name", ["comfy-serverless/a.png", "3d/comfy-serverless/a.glb", "comfy-serverless\\a.png"])
def test_a_name_where_the_files_of_jobs_are_put_is_found(name: str) -> None:
    [(_, problem)] = found({"image": name})
    assert "is where the files of jobs are put" in problem


def test_a_file_of_another_folder_is_found_in_any_input_whatever_it_is_called() -> None:
    assert found({"anything": "photo.png [output]"}, "SomeNode")
    assert not found({"text": "she wrote [output] on the wall"}, "CLIPTextEncode")
    assert not found({"text": "../ is the folder above, / the root"}, "CLIPTextEncode")


def test_a_name_that_is_made_while_the_job_runs_is_found_where_a_file_is_read() -> None:
    joined = {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": ".png", "delimiter": ""}}
    [(_, problem)] = found({"mask": ["j", 0]}, "Painter", j=joined)
    assert "has a name that is made while the job runs" in problem
    assert not found({"text": ["j", 0]}, "CLIPTextEncode", j=joined)


JOINED = {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": ".png", "delimiter": ""}}


@pytest.mark.parametrize(
    "more",
    [
        {"s": {"class_type": "ComfySwitchNode", "inputs": {"switch": True, "on_true": ["j", 0], "on_false": ["j", 0]}}},
        {"s": {"class_type": "ComfySwitchNode", "inputs": {"switch": True, "on_true": "../a.png", "on_false": None}}},
        {"s": {"class_type": "CreateList", "inputs": {"inputs.input0": ["t", 0]}}, "t": JOINED},
        {
            "s": {"class_type": "ComfySwitchNode", "inputs": {"switch": ["s", 0], "on_true": ["l", 0]}},
            "l": {"class_type": "CreateList", "inputs": {"inputs.input0": ["s", 0], "inputs.input1": ["j", 0]}},
        },
        {"s": {"class_type": "TextGenerate", "inputs": {"prompt": "say ../a.png"}}},
    ],
)
@pytest.mark.parametrize("class_type", ["LoadImage", "LoaderOfAPack"])
def test_a_name_that_nodes_only_hand_on_is_found_too(class_type: str, more: dict[str, Any]) -> None:
    [(_, problem)] = found({"image": ["s", 0]}, class_type, j=JOINED, **more)
    assert "has a name that is made while the job runs" in problem


def test_a_loader_takes_no_name_from_a_node_that_nobody_knows() -> None:
    [(_, problem)] = found({"image": ["s", 0]}, s={"class_type": "TextOfAPack", "inputs": {}})
    assert "has a name that is made while the job runs" in problem
    assert not found({"width": ["s", 0]}, "Load3D", s={"class_type": "NumberOfAPack", "inputs": {}})


def test_pictures_that_nodes_hand_on_are_no_names() -> None:
    made = {"class_type": "EmptyImage", "inputs": {}}
    switch = {"class_type": "ComfySwitchNode", "inputs": {"switch": True, "on_true": ["m", 0], "on_false": ["m", 0]}}
    assert not found({"image": ["s", 0]}, "ImageInvert", m=made, s=switch)


def test_what_is_no_name_is_left_to_comfyui() -> None:
    assert not found({"image": ["gone", 0]})
    assert not found({"image": None})


def test_a_picture_that_another_node_makes_is_no_name() -> None:
    made = {"class_type": "EmptyImage", "inputs": {}}
    assert not found({"image": ["m", 0]}, "ImageInvert", m=made)


def test_nodes_that_read_the_output_folder_are_found_whatever_they_are_told() -> None:
    [(_, problem)] = found({"folder_name": "set"}, "LoadTrainingDataset")
    assert problem.startswith("folder_name: is read by LoadTrainingDataset from ComfyUI's output folder")


@pytest.mark.parametrize(
    "value",
    [
        *("photo.png", "sub/photo.png", "photo.png [input]", "s3://bucket/../x.png", "https://host/a/../b.png"),
        *("data:image/png;base64,/9j/", "/" + base64.b64encode(b"\xff" * 6000).decode(), 7, None, ["x", "y", "z"]),
    ],
)
def test_what_is_the_jobs_or_the_operators_is_left_alone(value: object) -> None:
    assert found({"image": value}) == []


def test_a_text_is_followed_to_its_constant_and_no_further() -> None:
    graph = {"a": text("x"), "b": text(["a", 0]), "loop": text(["loop", 0]), "n": {"class_type": "Other", "inputs": {}}}
    assert [text_behind(graph, [node, 0]) for node in ("a", "b", "loop", "n", "missing")] == [
        "x",
        "x",
        None,
        None,
        None,
    ]
