"""What `run` says of files and options that cannot be meant, and of a stdin that is closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_serverless.cli.main import main
from tests.patience import PATIENCE_S
from tests.unit.workflow_samples import text_to_image

WORKFLOW = {"1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMFY_BASE_URL", raising=False)
    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("~nosuch/x.png", "--input image=~nosuch/x.png: there is no such file"),
        ("x" * 300, "x…: there is no such file"),
        ("x" * 5000, "x…: there is no such file"),
        ("half \udcff", "there is no such file"),
        ("a/" * 3000, "there is no such file"),
        (".", "--input image=.: is a folder, not a file"),
    ],
)
@pytest.mark.parametrize("where", [(), ("--remote",)], ids=["here", "remote"])
def test_a_file_that_cannot_be_meant_is_told(
    file: str,
    words: str,
    where: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if where:
        monkeypatch.setenv("COMFY_BASE_URL", "http://127.0.0.1:9")
    assert main(["run", "w.json", "--input", f"image={file}", *where]) == 1
    told = capsys.readouterr().err
    assert "missing_asset: " in told
    assert words in told
    assert len(told) < 1000


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--input", "photo.jpg", "'photo.jpg' is not of the form NODE.INPUT=FILE, e.g. 10.image=photo.png"),
        ("--input", "image=", "'image=' names no file"),
        ("--set", "seed", "NODE.INPUT=VALUE, e.g. 3.seed=42"),
        ("--set-json", "seed", "NODE.INPUT=JSON"),
    ],
)
def test_an_option_of_another_form_is_told_its_own(
    option: str, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "w.json", option, text])
    assert words in " ".join(capsys.readouterr().err.split())


def test_base64_may_end_with_the_sign_that_begins_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "w.json", "--input", "image=data:text/plain;base64,AA==", "--out", "w.json"]) == 1
    assert "--out w.json: the folder cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("run", "-"), ("batch", "submit", "-", "--stack", "s")])
def test_a_closed_stdin_is_an_empty_one(command: tuple[str, ...], folder: Path) -> None:
    source = str(Path(__file__).parents[3] / "lambda")
    line = [sys.executable, "-m", "comfy_serverless.cli", *command]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": source, "HOME": str(folder), "COLUMNS": "200"}
    answer = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *line], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "invalid_request: " in answer.stderr


def test_a_workflow_of_the_image_goes_to_the_api_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from comfy_serverless.cli import remote_run

    request = {"workflow": "of the image", "set": {"seed": 1}, "inputs": {"image": "s3://b/x.png"}, "deadline_s": 9}
    (folder / "r.json").write_text(json.dumps(request))
    sent = {}

    def submit(_api: object, job: dict[str, object]) -> dict[str, object]:
        sent.update(job)
        raise KeyboardInterrupt

    monkeypatch.setenv("COMFY_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote_run, "_run_job", submit)
    assert main(["run", "r.json", "--remote", "--label", "a=b"]) == 130
    assert {name: sent[name] for name in request} == request
    assert sent["metadata"] == {"a": "b"}
    assert main(["run", "r.json", "--remote", "--set", "seed=5"]) == 1
    assert "--set: which inputs the workflow 'of the image' has, only the API knows" in capsys.readouterr().err
    (folder / "of the image.json").write_text(json.dumps(text_to_image()))
    assert main(["run", "r.json", "--remote", "--input", "nothing=w.json"]) == 1  # it is here: its nodes are known
    assert "This does not fit the workflow" in capsys.readouterr().err
