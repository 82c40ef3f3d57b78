"""What we know of ComfyUI's node classes is what ComfyUI declares, in the oldest and the newest release we know."""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.graph.file_inputs import OWN_FOLDER, folder_for, own_folders, takes_file
from comfy_serverless.graph.nodes import (
    AUDIO_PLAYERS,
    DROPPED_IMAGE_LOADER,
    FILE_INPUT_NAMES,
    IMAGE_JOINER,
    IMAGE_LOADERS,
    IMAGE_SAVER,
    MODEL_VIEWERS,
    NODES,
    NOTES,
    PREFIX,
    RENDERED_IN_BROWSER,
    SAMPLERS,
    SMALLEST_GRAPH,
    Takes,
    known,
)
from comfy_serverless.graph.workflow import is_link

TESTS = Path(__file__).parents[2]
#: `/object_info` of two releases and of a pack, as far as it concerns the table or takes uploaded files.
DECLARED: dict[str, dict[str, Any]] = json.loads((TESTS / "unit/data/known_nodes.json").read_text())
RELEASES = ("ComfyUI 0.3.64", "ComfyUI 0.33.0")
RECORDINGS: dict[str, dict[str, Any]] = {
    **DECLARED,
    **{f"problems {k}": v for k, v in json.loads((TESTS / "unit/data/object_info.json").read_text()).items()},
    **{
        f"cases of {release}": json.loads((TESTS / f"contract/data/nodes/object_info-{release}.json").read_text())
        for release in ("0.3.64", "0.33.0")
    },
}
#: Classes that are known, take uploaded files and are left to the names of their inputs.
LEFT_TO_NAMES = {("Painter", "mask")}


def declarations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for recording, classes in RECORDINGS.items():
        for class_type, declaration in classes.items():
            if class_type in NODES:
                yield recording, class_type, declaration


def inputs_of(declaration: dict[str, Any]) -> dict[str, list[Any]]:
    groups = declaration["input"]
    return {**groups.get("required", {}), **groups.get("optional", {})}


def uploads(spec: list[Any]) -> set[str]:
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    return {option for option in options if option.endswith("_upload")}


ALL = [pytest.param(class_type, declared, id=f"{where} {class_type}") for where, class_type, declared in declarations()]


@pytest.mark.parametrize(("class_type", "declared"), ALL)
def test_a_class_has_the_inputs_that_the_table_names(class_type: str, declared: dict[str, Any]) -> None:
    node = NODES[class_type]
    assert {*node.files, *node.judges} <= set(inputs_of(declared))


@pytest.mark.parametrize(("class_type", "declared"), ALL)
def test_a_class_that_sends_frames_or_names_previews_is_an_output_node(
    class_type: str, declared: dict[str, Any]
) -> None:
    node = NODES[class_type]
    if node.sends_frames or node.names_preview:
        assert declared["output_node"]
        assert "filename_prefix" not in inputs_of(declared)


@pytest.mark.parametrize(("class_type", "declared"), ALL)
def test_an_input_is_an_image_where_an_image_is_uploaded(class_type: str, declared: dict[str, Any]) -> None:
    for name, takes in NODES[class_type].files.items():
        if kinds := uploads(inputs_of(declared)[name]):
            assert (takes is Takes.IMAGE) == (kinds == {"image_upload"})


@pytest.mark.parametrize(("class_type", "declared"), ALL)
def test_a_class_writes_lists_and_says_what_the_table_says(class_type: str, declared: dict[str, Any]) -> None:
    node, inputs = NODES[class_type], inputs_of(declared)
    if node.writes_below != PREFIX:
        assert declared["output_node"]
        assert inputs[node.writes_below][0] == "STRING"
    if node.lists_folder:
        assert "folder" in inputs
    if node.reads_output:
        assert node.reads_output in inputs
    if node.constant:
        assert inputs[node.constant][0] == "STRING"
    if node.hands_on:
        assert declared["output"] == ["COMFY_MATCHTYPE_V3"]
    if node.gives_text and declared["output"]:
        assert "STRING" in declared["output"]


@pytest.mark.parametrize(("class_type", "declared"), ALL)
def test_a_loader_gives_an_image_and_its_mask(class_type: str, declared: dict[str, Any]) -> None:
    assert NODES[class_type].gives_mask == (declared.get("output") == ["IMAGE", "MASK"])


@pytest.mark.parametrize("release", RELEASES)
def test_every_class_that_takes_uploaded_files_is_in_the_table(release: str) -> None:
    taken = {
        (class_type, name)
        for class_type, declared in DECLARED[release].items()
        for name, spec in inputs_of(declared).items()
        if uploads(spec)
    }
    assert taken - LEFT_TO_NAMES == {
        (class_type, name)
        for class_type, node in NODES.items()
        for name in node.files
        if class_type in DECLARED[release] and class_type != "LoadLatent"  # declares a bare list
    }


def test_every_class_of_the_table_is_declared_somewhere() -> None:
    assert set(NODES) <= {class_type for classes in DECLARED.values() for class_type in classes}


@pytest.mark.parametrize("release", RELEASES)
def test_the_classes_that_we_build_graphs_of_are_there(release: str) -> None:
    classes = DECLARED[release]
    assert {DROPPED_IMAGE_LOADER, IMAGE_SAVER, *IMAGE_LOADERS} <= set(classes)
    assert {"image1", "image2"} <= set(inputs_of(classes[IMAGE_JOINER]))
    for node in SMALLEST_GRAPH.values():
        inputs: Any = node["inputs"]
        assert set(inputs) == set(inputs_of(classes[str(node["class_type"])]))
        assert all(value[0] in SMALLEST_GRAPH for value in inputs.values() if is_link(value))


def test_a_class_that_is_not_in_the_table_is_judged_by_the_names_of_its_inputs() -> None:
    assert takes_file("SomeLoader", "mask") is FILE_INPUT_NAMES["mask"] is Takes.IMAGE
    assert takes_file("SomeLoader", "video") is Takes.FILE
    assert takes_file("LoadImageFromUrl", "image") is None
    assert takes_file("MaskPreview", "mask") is Takes.IMAGE
    assert takes_file("LoadImage", "mask") is None
    assert known(["no", "name"]) == known("SomeLoader")


def test_files_go_where_a_loader_looks() -> None:
    assert folder_for("LoadImage") == OWN_FOLDER
    assert folder_for("Load3D") == f"3d/{OWN_FOLDER}"
    assert folder_for("SomeLoader") == ""
    assert folder_for("PreviewImage") == ""
    assert own_folders() == [f"3d/{OWN_FOLDER}", OWN_FOLDER]


#: Where a class is named besides: what the editor does with it is code, or it is only the end of other names.
NAMED_BESIDES = {
    ("graph/convert/packs.py", "CustomCombo"),
    ("graph/convert/packs.py", "PreviewAny"),
    ("workflows/input_nodes.py", "ImageBatch"),
}


def named_classes(source: str, classes: Collection[str]) -> set[str]:
    """The classes that a module names, but for those of nodes in a graph that it writes out."""
    tree = ast.parse(source)
    in_graphs = {
        value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "class_type"
    }
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in in_graphs)
    return {node.value for node in texts if isinstance(node.value, str) and node.value in classes}


def test_what_is_known_of_a_class_stands_in_the_table_alone() -> None:
    package = Path("lambda/comfy_serverless")
    classes = {name for recording in RECORDINGS.values() for name in recording} | {*NODES, *NOTES}
    classes |= AUDIO_PLAYERS | MODEL_VIEWERS | RENDERED_IN_BROWSER | SAMPLERS
    found = {
        (path.relative_to(package).as_posix(), name)
        for path in package.rglob("*.py")
        for name in named_classes(path.read_text(encoding="utf-8"), classes)
    }
    assert {(path, name) for path, name in found if path != "graph/nodes.py"} == NAMED_BESIDES
    assert named_classes('X = ("KSampler", {"class_type": "SaveImage"})', classes) == {"KSampler"}
