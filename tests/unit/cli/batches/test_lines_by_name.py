"""A manifest with named workflows is checked as far as they are known here, and its files are sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.batches.check import Findings, LocalFiles, Workflows, check
from comfy_serverless.cli.batches.sending import rewritten
from comfy_serverless.jobs.lines import Line, lines_of

GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 20}},
}
CHOICES = "inputs:\n  prompt: 6.text\n  photo: 1.image\n  steps: {target: 3.steps, minimum: 1, maximum: 50}\n"


@pytest.fixture
def here(tmp_path: Path) -> Workflows:
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "poster.json").write_text(json.dumps(GRAPH), encoding="utf-8")
    (folder / "poster.yaml").write_text(CHOICES, encoding="utf-8")
    for name in ("cat.png", "a fox"):
        (tmp_path / name).write_bytes(b"content")
    return Workflows(LocalFiles(tmp_path), folder)


def line(**inputs: Any) -> dict[str, Any]:
    return {"workflow": "poster", "inputs": inputs}


def manifest(*documents: object) -> list[Line]:
    return list(lines_of([b"\n".join(json.dumps(one).encode() for one in documents) + b"\n"]))


def judged(here: Workflows, *documents: object) -> Findings:
    return check(manifest(*documents), workflows=here, input_bucket="in", uploads=True)


def test_values_by_name_are_no_files(here: Workflows, tmp_path: Path) -> None:
    found = judged(here, line(prompt="a fox", steps=4, photo="cat.png"), line(prompt="no/such/file.png"))
    assert found.problems == []
    assert list(found.files) == [tmp_path / "cat.png"]
    (note,) = found.notes
    assert note.startswith("1 line with LoadImage.image = 'fox.png', as it stands in the workflow")


@pytest.mark.parametrize("name", ["poster@3", "poster@staging", "other"])
def test_a_version_that_was_pushed_is_known_on_the_stack_alone(here: Workflows, name: str) -> None:
    found = judged(here, {"workflow": name, "inputs": {"whatever": 5}})
    assert (found.problems, len(found.notes)) == ([], 1)


@pytest.mark.parametrize("name", ["poster@0", "poster@live", "poster.json"])
def test_version_0_is_the_file_here(here: Workflows, name: str) -> None:
    (problem,) = judged(here, {"workflow": name, "inputs": {"steps": 99}}).problems
    assert "inputs.steps" in problem.text


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (line(steps=400, prompt=5), ("inputs.steps", "inputs.prompt")),
        (line(promt="x"), ("promt",)),
        (line(photo="dog.png"), ("there is no such file",)),
        (line(**{"1.image": 5}), ("inputs.1.image",)),
    ],
)
def test_mistakes_in_a_workflow_that_is_known_here_are_told_before_anything_is_sent(
    here: Workflows, document: dict[str, Any], words: tuple[str, ...]
) -> None:
    (problem,) = judged(here, document).problems
    assert all(word in problem.text for word in words), problem.text


def test_of_what_was_pushed_only_files_that_are_here_are_known(here: Workflows, tmp_path: Path) -> None:
    pushed = {"workflow": "banner@3", "inputs": {"title": "a fox", "photo": "cat.png", "size": 5, "more": ["x", "y"]}}
    found = judged(here, pushed)
    assert found.problems == []
    assert list(found.files) == [tmp_path / "cat.png"], "and a text that happens to be a file's name stays a text"
    assert "or a named one" in found.notes[0]


def test_files_are_put_in_by_their_addresses_and_nothing_else_changes(here: Workflows, tmp_path: Path) -> None:
    addresses = {tmp_path / name: f"s3://in/{name}" for name in ("cat.png", "a fox")}
    documents = [
        line(prompt="a fox", steps=4, photo="cat.png"),
        {"workflow": "banner", "inputs": {"title": "a fox", "photo": ["cat.png"], "size": 5}},
    ]
    first, second = map(json.loads, rewritten(manifest(*documents), workflows=here, addresses=addresses))
    assert first["inputs"] == {"prompt": "a fox", "steps": 4, "photo": "s3://in/cat.png"}
    assert second["inputs"] == {"title": "a fox", "photo": ["s3://in/cat.png"], "size": 5}
