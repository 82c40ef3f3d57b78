"""`batch run WORKFLOW --each …`: which files are meant, where they go, and the manifest that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.batches.each import default_name, files_of, manifest_for, values_set
from comfy_serverless.cli.batches.file_input import the_input
from comfy_serverless.errors import InvalidRequest, InvalidWorkflow, NotFound

WORKFLOWS = Path(__file__).parents[4] / "workflows"
GRAPH: dict[str, Any] = json.loads((WORKFLOWS / "thumbnail.json").read_text())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("10.jpg", "2.jpg", "1.png", "notes.txt", ".hidden.jpg", "more/3.jpg", "[x].jpg"):
        (folder / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return folder


def names(*patterns: str) -> list[str]:
    return [str(path) for path in files_of(patterns)]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["photos/*.jpg"], ["photos/2.jpg", "photos/10.jpg", "photos/[x].jpg"]),
        (["photos/2.jpg", "photos/*.jpg"], ["photos/2.jpg", "photos/10.jpg", "photos/[x].jpg"]),
        (["photos"], ["photos/1.png", "photos/2.jpg", "photos/10.jpg", "photos/[x].jpg"]),
        (["photos/**/3.jpg"], ["photos/more/3.jpg"]),
        (["photos/[x].jpg"], ["photos/[x].jpg"]),
        (["photos/notes.txt"], ["photos/notes.txt"]),
    ],
)
def test_files_folders_and_patterns_are_files_as_people_count_them(
    photos: Path, patterns: list[str], found: list[str]
) -> None:
    assert names(*patterns) == found


def test_a_pattern_without_files_is_told_with_the_folder(photos: Path) -> None:
    with pytest.raises(NotFound, match=rf"'photos/\*.gif'.*{photos.parent}"):
        names("photos/*.jpg", "photos/*.gif")


def test_the_only_input_for_a_file_is_found_and_several_are_listed() -> None:
    assert the_input(GRAPH) == "1.image"
    two = {**GRAPH, "7": {"class_type": "LoadImageMask", "inputs": {"image": "m.png"}, "_meta": {"title": "Mask"}}}
    with pytest.raises(InvalidRequest, match=r"1\.image \(Photo\), 7\.image \(Mask\)\. --input"):
        the_input(two)
    with pytest.raises(InvalidRequest, match=r"--input NODE\.INPUT names it"):
        the_input({"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}})


def test_the_manifest_has_a_line_for_each_file(photos: Path) -> None:
    made = manifest_for(
        "thumbnail",
        ["photos/*.jpg"],
        folder=WORKFLOWS,
        address=None,
        values=["ImageScale.width=64", "SaveImage.filename_prefix=1.10"],
        labels={"of": "autumn"},
        name=None,
        path=None,
    )
    assert (made.path, made.name, made.lines, made.address) == (
        Path("thumbnail-photos.jsonl"),
        "thumbnail-photos",
        3,
        "1.image",
    )
    first, *_ = map(json.loads, made.path.read_text().splitlines())
    assert first == {
        "workflow": "thumbnail",
        "inputs": {"1.image": "photos/2.jpg"},
        "set": {"ImageScale.width": 64, "SaveImage.filename_prefix": "1.10"},
        "metadata": {"of": "autumn"},
    }


def test_another_manifest_is_never_replaced(photos: Path) -> None:
    def make(pattern: str, path: Path | None = None) -> Path:
        return manifest_for(
            "thumbnail", [pattern], folder=WORKFLOWS, address=None, values=[], labels={}, name="x", path=path
        ).path

    assert [str(make("photos/2.jpg")), str(make("photos/2.jpg")), str(make("photos/10.jpg"))] == [
        "x.jsonl",
        "x.jsonl",
        "x-2.jsonl",
    ]
    with pytest.raises(InvalidRequest, match="another file is there"):
        make("photos/10.jpg", Path("x.jsonl"))


def test_what_is_set_must_be_there_and_fit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidWorkflow, match=r"did you mean 'ImageScale\.width'"):
        values_set(GRAPH, ["ImageScale.widht=3"])
    with pytest.raises(InvalidWorkflow, match="takes a number"):
        values_set(GRAPH, ["ImageScale.width=wide"])
    assert values_set(GRAPH, ["width=3", "Thumbnail.filename_prefix=a=b"]) == {
        "width": 3,
        "Thumbnail.filename_prefix": "a=b",
    }
    two = {**GRAPH, "9": GRAPH["2"]}
    assert values_set(two, ["ImageScale.width=3"]) == {"ImageScale.width": 3}
    assert "set on 2 nodes: 2 Size, 9 Size" in capsys.readouterr().err


def test_a_workflow_that_is_not_known_here_needs_its_input_named(photos: Path) -> None:
    with pytest.raises(InvalidRequest, match="neither a file nor known here"):
        manifest_for("x", ["photos"], folder=None, address=None, values=[], labels={}, name=None, path=None)
    made = manifest_for("x", ["photos"], folder=None, address="1.image", values=[], labels={}, name=None, path=None)
    assert made.name == "x-photos"


@pytest.mark.parametrize(
    ("workflow", "files", "name"),
    [
        ("my flow.json", ["in put/1.jpg"], "my-flow-in-put"),
        ("a.json", ["x/1.jpg", "y/1.jpg"], "a"),
        ("日本.json", ["1.jpg"], "batch"),
        ("x" * 60, ["1.jpg"], "x" * 40),
    ],
)
def test_a_batch_has_a_name_by_itself(workflow: str, files: list[str], name: str) -> None:
    assert default_name(workflow, [Path(file) for file in files]) == name
