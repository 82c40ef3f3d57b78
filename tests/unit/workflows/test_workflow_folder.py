"""The files of the image: version 0, which runs as it stands, with inputs that are found or chosen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.errors import AssetUnavailable, ComfyError, InvalidRequest
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.workflow_source import graph_of
from comfy_serverless.settings import Settings
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.folder import Folder
from tests.unit.editor_samples import OBJECT_INFO as DECLARED
from tests.unit.editor_samples import PLAIN as SAVED
from tests.unit.workflows.stored_workflows import GRAPH

CHOICES = """
description: A poster of one product
inputs:
  words: {target: 6.text, description: What is on it, default: a cat}
  picture: {target: 10.image, required: true}
outputs: {}
"""


def written(folder: Path, name: str, document: object, choices: str = "") -> Folder:
    path = folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    if choices:
        path.with_suffix(".yaml").write_text(choices, encoding="utf-8")
    return Folder(folder)


def ran(folder: Path, inputs: Mapping[str, Any], declared: Any = None, **fields: Any) -> dict[str, Any]:
    """The graph that a worker gets for `poster`."""
    finder = Finder(None, folder, lambda: declared)
    request = JobRequest.parse({"workflow": "poster", "inputs": inputs, "job_id": "1", **fields})
    whole = finder.expand(request, owner="", key="1")
    found = graph_of(whole, s3=None, settings=Settings(), declarations=lambda: declared, seed="1")  # type: ignore[arg-type]
    assert found.graph is not None
    return found.graph


def test_a_file_is_version_0_and_its_inputs_are_found(tmp_path: Path) -> None:
    version = written(tmp_path, "poster", GRAPH).version("poster", None)
    assert version is not None
    assert (version.name, version.number, version.owner, version.graph) == ("poster", 0, "", GRAPH)
    assert version.editors is None
    assert {target for one in version.inputs for target in one.targets} >= {"3.seed", "10.image"}
    assert not [one for one in version.inputs if one.is_required], "it ran without"


def test_without_choices_it_runs_as_it_always_did(tmp_path: Path) -> None:
    written(tmp_path, "poster", GRAPH)
    assert ran(tmp_path, {}) == GRAPH
    assert ran(tmp_path, {"10.image": "s3://photos/a.png"}, set={"6.text": "x"})["6"]["inputs"]["text"] == "x"


def test_choices_beside_it_name_its_inputs(tmp_path: Path) -> None:
    version = written(tmp_path, "poster", GRAPH, CHOICES).version("poster", None)
    assert version is not None
    assert version.description == "A poster of one product"
    assert [(one.name, one.kind, one.is_required) for one in version.inputs] == [
        ("words", InputKind.TEXT, False),
        ("picture", InputKind.FILE, True),
    ]
    assert ran(tmp_path, {"picture": "s3://photos/a.png"})["6"]["inputs"]["text"] == "a cat"
    assert ran(tmp_path, {"picture": "b.png", "words": "a dog"})["6"]["inputs"]["text"] == "a dog"
    with pytest.raises(InvalidRequest, match=r"inputs\.picture: is required"):
        ran(tmp_path, {})


@pytest.mark.parametrize(
    "choices", ["inputs: [", "inputs: {x: 99.text}", "inputz: {}", "- 1", "inputs: {x: {target: 6.text, a: 1}}"]
)
def test_choices_that_cannot_be_used_name_their_file(tmp_path: Path, choices: str) -> None:
    folder = written(tmp_path, "poster", GRAPH, choices)
    written(tmp_path, "other", GRAPH)
    with pytest.raises(InvalidRequest):
        folder.version("poster", None)
    assert folder.version("other", None) is not None, "the others are not harmed"
    assert folder.names() == ["other", "poster"]


@pytest.mark.parametrize("document", [[], {}, "text", {"nodes": 1}, {"1": {"class_type": 5}}])
def test_a_file_that_is_no_workflow_names_itself(tmp_path: Path, document: object) -> None:
    with pytest.raises(ComfyError):
        written(tmp_path, "poster", document).version("poster", None)


def test_what_the_editor_saved_is_run_as_it_stands(tmp_path: Path) -> None:
    folder = written(tmp_path, "poster", SAVED)
    known, unknown = folder.version("poster", DECLARED), folder.version("poster", None)
    assert known is not None
    assert unknown is not None
    assert (bool(known.graph), known.editors) == (True, SAVED)
    assert (unknown.graph, unknown.inputs, unknown.editors) == ({}, (), SAVED)
    finder = Finder(None, tmp_path, lambda: None)
    request = JobRequest.parse({"workflow": "poster", "inputs": {"1.image": "s3://photos/a.png"}, "job_id": "1"})
    whole = finder.expand(request, owner="", key="1")
    assert (whole.workflow, whole.inputs) == (SAVED, request.inputs), "a worker converts it"


def test_names_of_inputs_wait_for_the_first_worker(tmp_path: Path) -> None:
    written(tmp_path, "poster", SAVED, "inputs: {}")
    request = JobRequest.parse({"workflow": "poster", "inputs": {"words": "x"}})
    with pytest.raises(AssetUnavailable, match="not known yet") as refused:
        Finder(None, tmp_path, lambda: None).expand(request, owner="", key="1")
    assert refused.value.retryable


def test_a_wrapped_file_keeps_what_is_in_its_wrapper(tmp_path: Path) -> None:
    wrapped = {"prompt": GRAPH, "extra_data": {"extra_pnginfo": {"mine": 1}}}
    written(tmp_path, "poster", wrapped)
    finder = Finder(None, tmp_path, lambda: None)
    whole = finder.expand(JobRequest.parse({"workflow": "poster"}), owner="", key="1")
    found = graph_of(whole, s3=None, settings=Settings())  # type: ignore[arg-type]
    assert (found.graph, found.extra_data) == (GRAPH, {"extra_pnginfo": {"mine": 1}})


def test_no_job_changes_a_file_that_was_read(tmp_path: Path) -> None:
    written(tmp_path, "poster", SAVED)
    finder = Finder(None, tmp_path, lambda: None)
    request = JobRequest.parse({"workflow": "poster"})
    first = finder.expand(request, owner="", key="1").workflow
    assert isinstance(first, dict)
    first["nodes"].clear()
    assert finder.expand(request, owner="", key="1").workflow == SAVED


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    folder = written(tmp_path, "poster", GRAPH)
    first = folder.version("poster", None)
    assert folder.version("poster", None) is first
    written(tmp_path, "poster", {"1": GRAPH["10"]})
    os.utime(tmp_path / "poster.json", ns=(1, 1))
    second = folder.version("poster", None)
    assert second is not None
    assert second.graph == {"1": GRAPH["10"]}
    (tmp_path / "poster.yaml").write_text("inputs: {p: 1.image}", encoding="utf-8")
    third = folder.version("poster", None)
    assert third is not None
    assert [one.name for one in third.inputs] == ["p"]
    (tmp_path / "poster.json").unlink()
    assert folder.version("poster", None) is None


@pytest.mark.parametrize("name", ["../poster", "/poster", "sub/../poster", "poster\0", "", ".", "sub", "POSTER"])
def test_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    written(tmp_path, "poster", GRAPH)
    written(tmp_path / "in", "sub/other", GRAPH)
    assert Folder(tmp_path / "in").version(name, None) is None
