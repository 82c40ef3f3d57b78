"""What is said of a manifest before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.batches.check import Findings, LocalFiles, Workflows, check
from comfy_serverless.jobs.lines import lines_of

WORKFLOWS = Path(__file__).parents[4] / "workflows"
THUMBNAIL = json.loads((WORKFLOWS / "thumbnail.json").read_text())
PHOTO = "s3://photos/1.jpg"


def judged(folder: Path, *requests: object, uploads: bool = False, known: Path | None = WORKFLOWS) -> Findings:
    lines = (request if isinstance(request, str) else json.dumps(request) for request in requests)
    content = "\n".join(lines).encode()
    return check(
        lines_of([content]), workflows=Workflows(LocalFiles(folder), known), input_bucket="drops", uploads=uploads
    )


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "is a JSON object"),
        ({"workflow": "thumbnail", "sets": {}}, "did you mean 'set'"),
        ({"workflow": "thumbnail", "set": "x"}, "set: should be"),
        ({"workflow": "thumbnial"}, "did you mean 'thumbnail'"),
        ({"workflow": "thumbnail", "set": {"ImageScale.widht": 3}}, "did you mean 'ImageScale.width'"),
        ({"workflow": "thumbnail", "inputs": {"LoadImage.picture": PHOTO}}, "has no input 'picture'"),
        ({"workflow": THUMBNAIL, "inputs": {"2.image": PHOTO}}, "is connected to node '1'"),
        ({"workflow": {"1": {"inputs": {}}}}, "has no class_type"),
        ({"workflow": "thumbnail", "output": {"bucket": "drops"}}, "is the input bucket"),
        ({"workflow": "thumbnail", "inputs": {"LoadImage.image": "none.jpg"}}, "'none.jpg': there is no such file"),
        ({"workflow": "thumbnail", "inputs": {"LoadImage.image": "gs://b/1.jpg"}}, "gs: addresses are not accepted"),
        ({"workflow": "thumbnail", "inputs": {"LoadImage.image": "s3://b"}}, "names no object in its bucket"),
        ({"workflow": "thumbnail", "inputs": {"LoadImage.image": "here.jpg"}}, "--upload sends it"),
        ({"workflow": "mine.json"}, "--upload sends it"),
        ({"workflow": "ui.json"}, "ui.json: "),
    ],
)
def test_a_line_that_would_fail_is_named_with_the_reason(tmp_path: Path, request_: Any, problem: str) -> None:
    (tmp_path / "here.jpg").write_bytes(b"x")
    (tmp_path / "mine.json").write_text(json.dumps(THUMBNAIL))
    (tmp_path / "ui.json").write_text(json.dumps({"nodes": [], "links": []}))
    found = judged(tmp_path, {"workflow": "thumbnail"}, "", request_)
    assert (found.requests, found.bad) == (2, 1)
    assert found.problems[0].line == 3
    assert problem in found.problems[0].text


def test_good_lines_of_every_kind_are_good(tmp_path: Path) -> None:
    found = judged(
        tmp_path,
        {"workflow": "thumbnail", "inputs": {"LoadImage.image": PHOTO}},
        {"workflow": "thumbnail.json", "set": {"ImageScale.width": 3}},
        {"workflow": "s3://flows/any.json", "set": {"Whatever.it": "has"}},
        {"workflow": THUMBNAIL, "inputs": {"1.image": ["https://x.de/1.jpg", "data:image/png;base64,AAAA"]}},
        {"workflow": "thumbnail", "inputs": {"LoadImage.image": "iVBORw0KGgo/" * 20}},
        THUMBNAIL,
    )
    assert (found.requests, found.bad, found.problems) == (6, 0, [])
    assert [note for note in found.notes if "not known" in note] == []


def test_a_file_that_no_line_brings_is_told(tmp_path: Path) -> None:
    brought = {"workflow": "thumbnail", "inputs": {"LoadImage.image": PHOTO}}
    (note,) = judged(tmp_path, {"workflow": "thumbnail"}, brought, {"workflow": THUMBNAIL}).notes
    assert "2 lines with LoadImage.image = 'photo.jpg', as it stands in the workflow" in note
    assert judged(tmp_path, brought).notes == []


def test_local_files_are_found_beside_the_manifest_and_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / f"{folder.name}.jpg").write_bytes(b"x")
    (beside / "mine.json").write_text(json.dumps(THUMBNAIL))
    monkeypatch.chdir(here)
    found = judged(
        beside,
        {"workflow": "mine.json", "inputs": {"1.image": "beside.jpg"}},
        {"workflow": "mine.json", "inputs": {"1.image": "here.jpg"}},
        uploads=True,
    )
    assert found.problems == []
    assert [path.resolve() for path in found.files] == [
        beside / "mine.json",
        beside / "beside.jpg",
        here / "here.jpg",
    ]


def test_a_name_means_the_images_workflow_and_a_path_a_file(tmp_path: Path) -> None:
    (tmp_path / "thumbnail").write_text("no workflow")
    path = WORKFLOWS / "thumbnail.json"
    found = judged(tmp_path, {"workflow": "thumbnail"}, {"workflow": str(path)}, uploads=True)
    assert (found.bad, list(found.files)) == (0, [path])


def test_equal_lines_are_told_and_lines_that_draw_are_none_of_them(tmp_path: Path) -> None:
    same = {"workflow": "thumbnail", "set": {"ImageScale.width": 3}}
    drawn = {"workflow": "text_to_image", "set": {"KSampler.seed": -1}}
    found = judged(tmp_path, same, drawn, drawn, same, drawn)
    assert found.duplicates == [(4, 1)]
    assert found.drawn == 3


def test_a_line_with_the_id_of_one_that_asks_for_something_else_would_fail(tmp_path: Path) -> None:
    own = {"workflow": "thumbnail", "job_id": "fox", "set": {"ImageScale.width": 3}}
    other = {**own, "set": {"ImageScale.width": 4}}
    found = judged(tmp_path, own, other, own)
    assert [(one.line, "that of line 1" in one.text) for one in found.problems] == [(2, True)]
    assert found.duplicates == [(3, 1)]


def test_a_name_that_is_not_known_here_is_told_and_not_refused(tmp_path: Path) -> None:
    found = judged(tmp_path, *[{"workflow": "of_the_image"}] * 2, known=None)
    assert found.bad == 0
    assert "'of_the_image' (2 lines) is not known here" in found.notes[0]


@pytest.mark.parametrize("name", ["~nosuchuser", "~nosuchuser/x.jpg", "x!" * 150, "a\0b", "\ud800"])
@pytest.mark.parametrize("place", ["workflow", "inputs"])
def test_what_no_file_is_called_is_no_file_in_a_line(tmp_path: Path, name: str, place: str) -> None:
    request = {"workflow": name} if place == "workflow" else {"workflow": THUMBNAIL, "inputs": {"1.image": name}}
    found = judged(tmp_path, request, uploads=True)
    assert found.files == {}
    assert found.requests == 1
    assert found.bad == (name == "\ud800" or (place == "inputs" and len(name) < 100))  # a long one may be base64


def test_a_file_with_a_workflow_is_read_as_workers_read_it(tmp_path: Path) -> None:
    for name, document in {
        "bare": THUMBNAIL,
        "prompt": {"prompt": THUMBNAIL, "extra_data": {}},
        "request": {"workflow": THUMBNAIL, "set": {"ImageScale.width": 3}},
        "saved": {"output": THUMBNAIL, "workflow": {"nodes": []}},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        found = judged(tmp_path, {"workflow": f"{name}.json", "inputs": {"1.image": PHOTO}}, uploads=True, known=None)
        assert (name, found.problems, list(found.files)) == (name, [], [tmp_path / f"{name}.json"])


def test_a_workflow_of_this_machine_is_no_file_for_an_input(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(THUMBNAIL))
    (tmp_path / "here.jpg").write_bytes(b"x")
    request = {"workflow": "mine.json", "inputs": {"1.image": "here.jpg"}}
    found = judged(tmp_path, request, uploads=True)
    assert found.files_in_words == "1 local file and 1 local workflow"
    assert (found.to_json()["files"], found.to_json()["workflow_files"]) == (1, 1)
    assert judged(tmp_path, {"workflow": "thumbnail"}).files_in_words == "0 local files"
