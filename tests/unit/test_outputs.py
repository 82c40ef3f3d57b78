"""What a node showed becomes outputs: any key, any value, nothing dropped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import pytest

from comfy_serverless.connector.outputs import (
    FileLocator,
    NodeIdentity,
    OutputKind,
    content_type_of,
    identify_node,
    outputs_of_node,
)

NODE = NodeIdentity("9", "SaveImage", "My picture")


def view(name: str, subfolder: str, folder_type: str) -> BinaryIO:
    return io.BytesIO(f"{folder_type}/{subfolder}/{name}".encode())


def locator(folder: Path | None = None) -> FileLocator:
    return FileLocator({"output": [folder]} if folder else {}, view)


def test_a_file_is_read_from_disk_when_the_engine_is_local(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "a.mp4").write_bytes(b"1234")
    shown = {"images": [{"filename": "a.mp4", "subfolder": "video", "type": "output"}], "animated": [True]}
    [output] = outputs_of_node(NODE, shown, locator(tmp_path))
    assert (output.kind, output.content_type, output.size_bytes, output.read()) == (
        OutputKind.VIDEO,
        "video/mp4",
        4,
        b"1234",
    )
    assert (output.node_id, output.class_type, output.title, output.index) == ("9", "SaveImage", "My picture", 0)


def test_a_file_is_viewed_when_the_engine_is_elsewhere() -> None:
    [output] = outputs_of_node(NODE, {"images": [{"filename": "a.png", "subfolder": "s", "type": "temp"}]}, locator())
    assert output.path is None
    assert output.read() == b"temp/s/a.png"


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_a_name_never_leads_out_of_the_engines_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "output").mkdir()
    [output] = outputs_of_node(NODE, {"images": [{"filename": name}]}, locator(tmp_path / "output"))
    assert output.path is None


@pytest.mark.parametrize(
    ("key", "name", "kind"),
    [
        ("images", "a_00001_.png", OutputKind.IMAGE),
        ("images", "a.svg", OutputKind.IMAGE),
        ("images", "a.webm", OutputKind.VIDEO),
        ("gifs", "a.mp4", OutputKind.VIDEO),
        ("gifs", "a.gif", OutputKind.IMAGE),
        ("audio", "a.flac", OutputKind.AUDIO),
        ("latents", "a.latent", OutputKind.LATENT),
        ("3d", "mesh.glb", OutputKind.FILE),
        ("a_key_nobody_has_heard_of", "a.bin", OutputKind.FILE),
    ],
)
def test_every_key_is_an_output_and_its_name_tells_the_kind(key: str, name: str, kind: OutputKind) -> None:
    [output] = outputs_of_node(NODE, {key: [{"filename": name, "subfolder": "", "type": "output"}]}, locator())
    assert output.kind is kind


def test_texts_numbers_and_dictionaries_are_outputs_too() -> None:
    shown = {"text": ["hello", "wörld"], "score": [0.5], "boxes": [{"x": 1}], "nothing": [None]}
    outputs = outputs_of_node(NODE, shown, locator())
    assert [(output.name, output.read().decode()) for output in outputs] == [
        ("text_0.txt", "hello"),
        ("text_1.txt", "wörld"),
        ("score_2.json", "0.5"),
        ("boxes_3.json", '{"x": 1}'),
    ]


def test_a_string_that_was_cut_into_characters_is_joined_again() -> None:
    [output] = outputs_of_node(NODE, {"text": list("hello")}, locator())
    assert output.read() == b"hello"


def test_an_expanded_node_belongs_to_the_node_it_is_shown_as() -> None:
    graph = {"7": {"class_type": "Loop", "_meta": {"title": "My loop"}}}
    assert identify_node(graph, "7.0.0.2", "7") == NodeIdentity("7", "Loop", "My loop")
    assert identify_node(graph, "7.0.0.2") == NodeIdentity("7", "Loop", "My loop")
    assert identify_node(graph, "8") == NodeIdentity("8", "", "")


def test_unknown_names_are_plain_bytes() -> None:
    assert content_type_of("a.unknown") == "application/octet-stream"
    assert content_type_of("A.WEBP") == "image/webp"


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "nul\0.png"])
def test_a_name_no_file_can_have_is_left_to_the_engine(tmp_path: Path, name: str) -> None:
    [output] = outputs_of_node(NODE, {"images": [{"filename": name}]}, locator(tmp_path))
    assert (output.name, output.path) == (name, None)
