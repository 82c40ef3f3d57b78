"""A file in a folder, run by its name on this machine with the embedded engine: its inputs are options."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from comfy_serverless.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("COMFY_BASE_URL", "COMFYUI_URL", "COMFYUI_DIR", "API_COMMAND_LINE", "WORKFLOWS_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "workflows").mkdir()
    shutil.copy(ROOT / "workflows" / "thumbnail.json", tmp_path / "workflows")
    shutil.copy(ROOT / "events" / "photo.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_a_folders_workflow_runs_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "thumbnail", "--photo", "photo.jpg", "--width", "64", "--height", "32", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["outputs"]
    with Image.open(folder / made["path"]) as picture:
        assert picture.size == (64, 32)


def test_a_request_may_name_it_and_its_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = "data:image/jpeg;base64," + base64.b64encode((folder / "photo.jpg").read_bytes()).decode()
    request = {"workflow": "thumbnail", "inputs": {"photo": photo, "width": 40}, "set": {"2.height": 20}}
    (folder / "request.json").write_text(json.dumps(request))
    assert main(["run", "request.json", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["outputs"]
    with Image.open(folder / made["path"]) as picture:
        assert picture.size == (40, 20)


def test_the_file_beside_it_says_what_its_inputs_are_called(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "workflows" / "thumbnail.yaml").write_text(
        "inputs:\n  picture: {target: 1.image, required: true}\n"
        "  side: {targets: [2.width, 2.height], default: 64, maximum: 128}\n"
    )
    assert main(["run", "thumbnail", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--side N (integer from 0 to 128" in text
    assert main(["run", "thumbnail", "--side", "999", "--json"]) == 1
    errors = json.loads(capsys.readouterr().out)["error"]["details"]["errors"]
    assert [one["field"] for one in errors] == ["inputs.side", "inputs.picture"]
    assert main(["run", "thumbnail", "--picture", "photo.jpg", "--side", "48", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["outputs"]
    with Image.open(folder / made["path"]) as picture:
        assert picture.size == (48, 48)
