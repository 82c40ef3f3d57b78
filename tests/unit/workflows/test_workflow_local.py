"""Workflows by name on this machine: what a `ComfyConnector` makes of a name and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import workflow_here
from comfy_serverless.errors import ComfyError
from comfy_serverless.graph.convert import Conversion, convert
from tests.unit import editor_samples

GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}, "_meta": {"title": "photo"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 20}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
CHOICES = """
inputs:
  photo: {target: 1.image, required: false}
  seed: 3.seed
  steps: {target: 3.steps, minimum: 1, maximum: 50}
"""


class Connector:
    """What the connector is asked."""

    def __init__(self) -> None:
        self.uploaded: list[str] = []

    def object_info(self) -> Mapping[str, Any]:
        return editor_samples.OBJECT_INFO

    def upload_file(self, file: Path, name: str) -> str:
        assert file.is_file()
        self.uploaded.append(name)
        return f"taken-{name}"

    def convert(
        self, workflow: Mapping[str, Any], *, supplied: Mapping[str, Any] | None = None, seed: str | None = None
    ) -> Conversion:
        return convert(workflow, editor_samples.OBJECT_INFO, supplied=supplied, seed=seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "poster.json").write_text(json.dumps(GRAPH), encoding="utf-8")
    (tmp_path / "poster.yaml").write_text(CHOICES, encoding="utf-8")
    (tmp_path / "saved.json").write_text(json.dumps(editor_samples.plain(prefix="x")), encoding="utf-8")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "poster.json").write_text(json.dumps({"prompt": GRAPH}), encoding="utf-8")
    return tmp_path


def here(folder: Path, name: str = "poster", connector: Connector | None = None, **inputs: Any) -> dict[str, Any]:
    return dict(workflow_here(name, inputs, connector=connector or Connector(), folder=folder))


@pytest.mark.parametrize("name", ["poster", "poster.json", "poster@0", "poster@live", "deep/poster"])
def test_a_name_leads_to_the_file(folder: Path, name: str) -> None:
    assert here(folder, name)["prompt"] == GRAPH


def test_values_go_where_their_names_say_and_files_to_comfyui(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "my fox.png"
    picture.write_bytes(b"picture")
    connector = Connector()
    prompt = here(folder, connector=connector, photo=str(picture), steps=4.0, seed=-1)["prompt"]
    assert connector.uploaded == ["my fox.png"]
    assert prompt["1"]["inputs"]["image"] == "taken-my fox.png"
    assert prompt["3"]["inputs"]["steps"] == 4
    assert prompt["3"]["inputs"]["seed"] >= 0
    assert here(folder, photo="fox-2.png")["prompt"]["1"]["inputs"]["image"] == "fox-2.png", "ComfyUI has it"


def test_addresses_are_taken_beside_names(folder: Path) -> None:
    at_nodes: dict[str, Any] = {"KSampler.seed": 9}
    prompt = here(folder, steps=4, **at_nodes)["prompt"]
    assert prompt["3"]["inputs"] == {"seed": 9, "steps": 4}


def test_what_the_editor_saved_is_converted_and_goes_along(folder: Path) -> None:
    at_nodes: dict[str, Any] = {"The canvas.color": 7}
    found = here(folder, "saved", **at_nodes)
    assert found["prompt"]["1"]["inputs"]["color"] == 7
    assert found["extra_data"]["extra_pnginfo"]["workflow"] == editor_samples.plain(prefix="x")


def test_a_file_is_told_from_a_name(folder: Path) -> None:
    with pytest.raises(ComfyError, match=r"is a file, .* `ComfyConnector.load_payload\(…\)` reads it"):
        here(folder, str(folder / "poster.json"))


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("postre", {}, "did you mean 'poster'"),
        ("poster@3", {}, "runs where it was pushed"),
        ("poster@staging", {}, "runs where it was pushed"),
        ("../poster", {}, "there is no workflow"),
        ("poster", {"step": 4}, "inputs.step"),
        ("poster", {"steps": 400, "seed": "x"}, "inputs.seed"),
        ("poster", {"photo": "s3://photos/fox.png"}, "fetches nothing"),
        ("poster", {"photo": ["a.png", "b.png"]}, "inputs.photo"),
        ("poster", {"3.stps": 4}, "3.stps"),
    ],
)
def test_a_mistake_is_said(folder: Path, name: str, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ComfyError) as raised:
        here(folder, name, **inputs)
    assert raised.value.code in ("invalid_request", "invalid_workflow")
    assert words in raised.value.message
