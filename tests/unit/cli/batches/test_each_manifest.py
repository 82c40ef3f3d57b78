"""What `batch run` writes: from any folder it means the files that were given, and what would fail is never written."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.batches.check import LocalFiles, Workflows, check
from comfy_serverless.cli.batches.each import manifest_for, path_from
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound
from comfy_serverless.jobs.lines import lines_of
from tests.unit.picture_files import png_chunk

GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.jpg"}, "_meta": {"title": "Photo"}},
    "2": {"class_type": "KSampler", "inputs": {"image": ["1", 0], "cfg": 8, "seed": 1}},
    "3": {"class_type": "LoadImage", "inputs": {"image": "mask.png"}, "_meta": {"title": "Mask"}},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "1.jpg").write_bytes(b"the right one")
    (folder / "flow.json").write_text(json.dumps(GRAPH))
    monkeypatch.chdir(folder)
    return folder


def make(workflow: str = "flow.json", *each: str, **options: Any) -> Path:
    given: dict[str, Any] = {"folder": None, "address": "1.image", "values": [], "labels": {}, "name": None}
    return manifest_for(workflow, each or ["photos/1.jpg"], **{**given, "path": None, **options}).path


def line(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text().splitlines()[0])
    return document


def meant(path: Path) -> list[Path]:
    """The files that the check finds for a manifest."""
    lines = lines_of([path.read_bytes()])
    found = check(lines, workflows=Workflows(LocalFiles(path.parent), None), input_bucket="", uploads=True)
    assert found.problems == []
    return [file.resolve() for file in found.files]


@pytest.mark.parametrize("target", ["deep/er/x.jsonl", "../x.jsonl", "photos/x.jsonl", "link/x.jsonl", "x.jsonl"])
@pytest.mark.parametrize("each", ["photos/1.jpg", "../here/photos/1.jpg", "linked/1.jpg", "absolute"])
def test_from_any_folder_a_manifest_means_the_files_that_were_given(
    here: Path, tmp_path: Path, target: str, each: str
) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (here / "link").symlink_to(tmp_path / "far" / "away")
    (here / "linked").symlink_to(here / "photos")
    for decoy in (Path(target).parent, Path(target).parent.resolve().parent):
        if decoy.resolve() not in (here, here / "photos"):
            (decoy / "photos").mkdir(parents=True, exist_ok=True)
            (decoy / "photos" / "1.jpg").write_bytes(b"the wrong one")
            (decoy / "flow.json").write_text(json.dumps({**GRAPH, "9": GRAPH["3"]}))
    given = str(here / "photos" / "1.jpg") if each == "absolute" else each
    path = make("flow.json", given, path=Path(target))
    assert meant(path) == [here / "flow.json", here / "photos" / "1.jpg"]


@pytest.mark.parametrize("name", ["~root", "~nosuch.jpg", "[1].jpg", '"1.jpg', "{1}.jpg", " 1.jpg"])
def test_a_file_called_as_something_else_is_that_file(here: Path, name: str) -> None:
    (here / name).write_bytes(b"x")
    assert meant(make("flow.json", f"./{name}" if name == "~root" else name)) == [here / "flow.json", here / name]
    assert path_from(Path(), Path(name)).endswith(name)


@pytest.mark.parametrize("each", ["~nosuchuser/x", "~nosuchuser/*.jpg", "x" * 300, "none/*.jpg", "\udcff.jpg"])
def test_what_no_file_is_called_is_no_file(here: Path, each: str) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        make("flow.json", each)
    assert sorted(path.name for path in here.iterdir()) == ["flow.json", "photos"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "nothing.x"}, "--input nothing.x: no node has"),
        ({"address": "1.imag"}, r"did you mean '1\.image'"),
        ({"address": "image=b.jpg"}, "its files are those of --each"),
        ({"address": "KSampler.image"}, "is connected to node '1'"),
        ({"values": ["1.image=x"]}, r"both go into 1\.image"),
        ({"values": ["LoadImage.image=x"]}, r"both go into 1\.image"),
        ({"values": ["Photo.image=x"], "address": "LoadImage.image"}, r"both go into 1\.image"),
        ({"values": ["Nothing.x=1"]}, "--set Nothing.x"),
        ({"labels": {"a": "b" * 2000}}, "Nothing was written or sent"),
        ({"labels": {str(number): "" for number in range(60)}}, "Nothing was written or sent"),
        ({"name": "no name"}, "--name"),
        ({"workflow": "~nosuchuser", "values": ["a.b=1"]}, "neither a file nor known here"),
        ({"workflow": "x" * 300, "values": ["a.b=1"]}, "neither a file nor known here"),
    ],
)
def test_what_is_refused_leaves_no_manifest(here: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ComfyError, match=words):
        make(**options)
    assert sorted(path.name for path in here.iterdir()) == ["flow.json", "photos"]


def test_with_force_jobs_that_would_fail_are_written(here: Path) -> None:
    assert line(make(labels={"a": "b" * 2000}, force=True))["metadata"] == {"a": "b" * 2000}


def test_a_number_that_the_editor_wrote_as_a_whole_one_takes_another() -> None:
    assert line(make(values=["KSampler.cfg=7.5"]))["set"] == {"KSampler.cfg": 7.5}


def test_an_address_of_several_nodes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    make(address="LoadImage.image")
    assert "'LoadImage.image' is set on 2 nodes: 1 Photo, 3 Mask" in capsys.readouterr().err


def png(**texts: object) -> bytes:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    named = [png_chunk(b"tEXt", name.encode() + b"\0" + json.dumps(text).encode()) for name, text in texts.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", header), *named, png_chunk(b"IDAT", zlib.compress(b"\0\0")), png_chunk(b"IEND", b"")]
    )


REQUEST = {
    "workflow": GRAPH,
    "set": {"KSampler.seed": 5, "LoadImage.image": "other.png", "cfg": 3},
    "inputs": {"3.image": "photos/1.jpg"},
    "metadata": {"of": "spring", "by": "ana"},
    "deadline_s": 60,
    "job_id": "mine",
}


def test_a_picture_that_comfyui_has_made_gives_its_workflow_to_the_lines(here: Path) -> None:
    (here / "made.png").write_bytes(png(prompt=GRAPH, workflow={"nodes": []}))
    path = make("made.png")
    assert line(path)["workflow"] == GRAPH
    assert line(path)["extra_data"] == {"extra_pnginfo": {"workflow": {"nodes": []}}}
    assert meant(path) == [here / "photos" / "1.jpg"]


@pytest.mark.parametrize("wrap", [lambda request: request, lambda request: {"input": request}])
def test_a_request_gives_all_its_fields_to_the_lines_and_options_come_before_them(here: Path, wrap: Any) -> None:
    (here / "request.json").write_text(json.dumps(wrap(REQUEST)))
    path = make("request.json", values=["KSampler.seed=7"], labels={"of": "autumn"}, path=Path("deep/x.jsonl"))
    found = line(path)
    assert found.pop("workflow") in (GRAPH, "../request.json")
    assert found == {
        "set": {"2.cfg": 3, "3.image": "other.png", "KSampler.seed": 7},
        "inputs": {"1.image": "../photos/1.jpg", "3.image": "../photos/1.jpg"},
        "metadata": {"of": "autumn", "by": "ana"},
        "deadline_s": 60,
    }
    assert here / "photos" / "1.jpg" in meant(path)


@pytest.mark.parametrize("metadata", ["text", 5, ["a"]])
def test_a_request_that_is_none_is_refused_and_nothing_is_written(here: Path, metadata: object) -> None:
    (here / "request.json").write_text(json.dumps({**REQUEST, "metadata": metadata}))
    with pytest.raises(InvalidRequest, match="metadata"):
        make("request.json")
    assert list(here.glob("*.jsonl")) == []


def test_half_of_a_character_is_refused_and_not_written(here: Path) -> None:
    (here / "half.json").write_text(json.dumps({**REQUEST, "set": {"KSampler.seed": "\ud800"}}))
    with pytest.raises(InvalidRequest, match="half of a character"):
        make("half.json")


def test_a_file_in_the_folder_of_named_workflows_stays_a_file(here: Path) -> None:
    (here / "workflows").mkdir()
    (here / "workflows" / "flow.json").write_text(json.dumps(GRAPH))
    path = make("workflows/flow.json", folder=Path("workflows"), path=Path("workflows/x.jsonl"))
    workflows = Workflows(LocalFiles(path.parent), Path("workflows"))
    assert workflows.file_of(line(path)["workflow"]) == Path("workflows/flow.json")


def test_texts_that_a_pattern_has_met_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("notes.txt", "1.json"):
        (here / "photos" / name).write_text("{}")
    make("flow.json", "photos/*")
    assert "2 of 3 files are texts by name (1.json, notes.txt): an input for pictures" in capsys.readouterr().err
    make("flow.json", "photos", name="alone")
    assert "by name" not in capsys.readouterr().err
