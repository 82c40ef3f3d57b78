"""What a node showed becomes outputs: any key, any value, nothing dropped."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image

from comfy_serverless.connector.local_files import LocalFiles
from comfy_serverless.connector.made_files import MadeFiles, Place, Remembered
from comfy_serverless.connector.outputs import NodeIdentity, Output, identify_node
from comfy_serverless.connector.outputs import outputs_of_node as outputs_and_refused
from comfy_serverless.connector.remote_files import RemoteFiles
from comfy_serverless.files import OutputKind

NODE = NodeIdentity("9", "SaveImage", "My picture")


def view(name: str, subfolder: str, folder_type: str) -> BinaryIO:
    return io.BytesIO(f"{folder_type}/{subfolder}/{name}".encode())


def locator(folder: Path | None = None) -> MadeFiles:
    """The files of a run that began long ago: whatever is there, it has made."""
    files: MadeFiles = (
        LocalFiles({"output": folder}, Remembered(), view=view)
        if folder
        else RemoteFiles(lambda _: 1.0, Remembered(), view=view, is_apart=False)
    )
    files.begin(0)
    return files


def outputs_of_node(node: NodeIdentity, shown: dict[str, Any], files: MadeFiles) -> list[Output]:
    return outputs_and_refused(node, shown, files)[0]


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
    shown = {"images": [{"filename": name}]}
    assert outputs_and_refused(NODE, shown, locator(tmp_path / "output")) == ([], [Place(name, "", "output")])


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


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "nul\0.png"])
def test_a_name_no_file_can_have_is_no_output(tmp_path: Path, name: str) -> None:
    shown = {"images": [{"filename": name}], "text": ["still there"]}
    outputs, refused = outputs_and_refused(NODE, shown, locator(tmp_path))
    assert [output.name for output in outputs] == ["text_0.txt"]
    assert refused == [Place(name, "", "output")]


def file_named(name: str, **more: object) -> dict[str, object]:
    return {"filename": name, "subfolder": "", "type": "output", **more}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({"images": [file_named("a.webp")], "animated": [True]}, ["a.webp"]),
        ({"images": [file_named("a.webp")], "animated": [False]}, ["a.webp"]),
        ({"animated": [file_named("a.gif")]}, ["a.gif"]),
        ({"gifs": [file_named("a.mp4", format="video/h264-mp4", frame_rate=8.0, fullpath="/x/a.mp4")]}, ["a.mp4"]),
        ({"images": [[file_named("a.png"), file_named("b.png")], [file_named("c.png")]]}, ["a.png", "b.png", "c.png"]),
        ({"sheet": [{"pages": [file_named("a.png")], "score": 1}]}, ["sheet_0.json", "a.png"]),
        ({"mixed": [[file_named("a.png"), 3]]}, ["mixed_0.json", "a.png"]),
        ({"result": ["mesh/not-there.glb", None, None]}, ["result_0.txt"]),
        ({"anything": 3}, ["anything_0.json"]),
        ({"anything": "one"}, ["anything_0.txt"]),
        ({"anything": {"a": 1}}, ["anything_0.json"]),
        ({"a": [[1, [2]]], "b": [True], "c": [""]}, ["a_0.json", "b_1.json", "c_2.txt"]),
        ({"images": [{"filename": ""}], "x": [{"filename": None}]}, ["images_0.json", "x_1.json"]),
        ({"../odd key": [1]}, ["___odd_key_0.json"]),
        ({"nothing": [None], "empty": []}, []),
    ],
)
def test_nothing_a_node_shows_is_dropped(shown: dict[str, Any], expected: list[str]) -> None:
    outputs = outputs_of_node(NODE, shown, locator())
    assert [output.name for output in outputs] == expected
    assert [output.index for output in outputs] == list(range(len(expected)))


def test_what_is_nested_too_deep_for_a_look_is_still_told() -> None:
    nested: Any = file_named("a.png")
    for _ in range(50):
        nested = [nested]
    [output] = outputs_of_node(NODE, {"images": nested}, locator())
    assert b"a.png" in output.read()


class TestPaths:
    """Nodes that name what they made by its path alone."""

    @pytest.fixture
    def folders(self, tmp_path: Path) -> MadeFiles:
        for name in ("output/mesh/m.glb", "temp/bg_1.png", "temp/preview3d.glb", "input/3d/given.glb", "secret.glb"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
        (tmp_path / "output" / "link.glb").symlink_to(tmp_path / "secret.glb")
        files = LocalFiles({kind: tmp_path / kind for kind in ("output", "temp", "input")}, Remembered(), view=view)
        files.begin(0)
        return files

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ("mesh/m.glb", ("output", "mesh", "m.glb")),
            ("output/mesh/m.glb", ("output", "mesh", "m.glb")),
            ("temp/bg_1.png", ("temp", "", "bg_1.png")),
            ("preview3d.glb", ("temp", "", "preview3d.glb")),
        ],
    )
    def test_the_file_is_the_output(self, folders: MadeFiles, path: str, place: tuple[str, str, str]) -> None:
        [output] = outputs_of_node(NODE, {"result": [path, None, None]}, folders)
        assert (output.folder_type, output.subfolder, output.name) == place
        assert output.read().endswith(output.name.encode())

    def test_an_absolute_path_inside_the_output_folder_is_its_file(self, folders: MadeFiles, tmp_path: Path) -> None:
        [output] = outputs_of_node(NODE, {"files": [str(tmp_path / "output/mesh/m.glb")]}, folders)
        assert (output.subfolder, output.name) == ("mesh", "m.glb")

    @pytest.mark.parametrize(
        "path",
        [
            "../secret.glb",
            "secret.glb",
            "/secret.glb",
            "link.glb",
            "3d/given.glb",
            "input/3d/given.glb",
            "mesh",
            "x\0.glb",
        ],
    )
    def test_no_path_leads_out_of_what_was_made(self, folders: MadeFiles, path: str) -> None:
        [output] = outputs_of_node(NODE, {"result": [path, None]}, folders)
        assert output.kind is OutputKind.TEXT
        assert output.read() == path.encode()

    def test_a_text_is_a_text_whatever_it_says(self, folders: MadeFiles) -> None:
        [output] = outputs_of_node(NODE, {"text": ["mesh/m.glb"]}, folders)
        assert output.kind is OutputKind.TEXT

    def test_a_file_that_is_named_twice_comes_once(self, folders: MadeFiles) -> None:
        shown = {"3d": [{"filename": "m.glb", "subfolder": "mesh", "type": "output"}], "path": ["mesh/m.glb"]}
        assert [output.name for output in outputs_of_node(NODE, shown, folders)] == ["m.glb", "path_1.txt"]


@pytest.mark.parametrize(
    ("head", "content_type", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png", OutputKind.IMAGE),
        (b"RIFF....WEBPVP8 ", "image/webp", OutputKind.IMAGE),
        (b"RIFF....WAVEfmt ", "audio/wav", OutputKind.AUDIO),
        (b"\0\0\0\x20ftypisom....", "video/mp4", OutputKind.VIDEO),
        (b"fLaC............", "audio/flac", OutputKind.AUDIO),
        (b"glTF\x02\0\0\0", "model/gltf-binary", OutputKind.FILE),
        (b"????????", "application/octet-stream", OutputKind.FILE),
        (b"", "application/octet-stream", OutputKind.FILE),
    ],
)
def test_where_the_name_tells_nothing_the_content_does(
    tmp_path: Path, head: bytes, content_type: str, kind: OutputKind
) -> None:
    (tmp_path / "made.result").write_bytes(head)
    [output] = outputs_of_node(NODE, {"files": [file_named("made.result")]}, locator(tmp_path))
    assert (output.content_type, output.kind) == (content_type, kind)


def seen_from_elsewhere(folder: Path) -> MadeFiles:
    return RemoteFiles(lambda _: 0.0, Remembered(), view=lambda name, *_: (folder / name).open("rb"), is_apart=False)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_an_output_knows_its_checksum_and_the_size_of_its_picture(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (12, 7), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    for where in (locator(tmp_path), seen_from_elsewhere(tmp_path)):
        [output] = outputs_of_node(NODE, {"images": [file_named(f"a.{suffix}")]}, where)
        assert output.pixels == (12, 7)
        assert output.sha256 == hashlib.sha256((tmp_path / f"a.{suffix}").read_bytes()).hexdigest()
        assert output.size_bytes == (tmp_path / f"a.{suffix}").stat().st_size


def test_what_is_no_picture_has_no_size_in_pixels(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    [broken, text] = outputs_of_node(NODE, {"images": [file_named("broken.png")], "text": ["x"]}, locator(tmp_path))
    assert (broken.pixels, text.pixels) == (None, None)


def test_an_expanded_node_is_found_also_where_ids_have_dots() -> None:
    graph = {"a.b": {"class_type": "Loop", "inputs": {}}, "a": {"class_type": "Other", "inputs": {}}}
    assert identify_node(graph, "a.b.0.0.1").node_id == "a.b"


def test_values_are_json_whatever_numbers_and_halves_of_characters_are_in_them() -> None:
    shown = {"stats": [{"psnr": float("inf"), "ssim": [float("nan"), 0.5], "half": "\ud800"}]}
    [output] = outputs_of_node(NODE, shown, locator())
    assert json.loads(output.read().decode()) == {"psnr": "Infinity", "ssim": ["NaN", 0.5], "half": "\ud800"}
