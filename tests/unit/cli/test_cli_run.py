"""`comfy-serverless run`, as people run it: with what they have, into folders that have something, in any terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.cli import wishes
from comfy_serverless.cli.local_run import _check_saved, _save_all
from comfy_serverless.connector.outputs import Output
from comfy_serverless.errors import DeliveryFailed
from comfy_serverless.files import OutputKind
from tests.patience import PATIENCE_S

PICTURE: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "cli"},
        "_meta": {"title": "Save – final"},
    },
}


def run(
    folder: Path, *arguments: str, given: bytes | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path("lambda").resolve()),
        "HOME": str(folder),
        "INITIAL_PORT": "18888",
    }
    return subprocess.run(
        [sys.executable, "-m", "comfy_serverless.cli", "run", *arguments],
        cwd=folder,
        env=environment | variables,
        input=given,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )


def result(answer: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    assert answer.returncode == 0, answer.stderr.decode()
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def color(path: Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        pixel = image.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def test_runs_of_two_engines_that_count_from_one_lose_no_picture(tmp_path: Path) -> None:
    names = []
    for value in (255, 65280):
        engine = f"{sys.executable} -m comfy_lite --base-directory {tmp_path / str(value)}"
        options = ["-", "--json", "--set", f"color={value}"]
        document = result(run(tmp_path, *options, given=json.dumps(PICTURE).encode(), API_COMMAND_LINE=engine))
        names.append(document["outputs"][0]["path"])
    assert names == ["out/cli_00001_.png", "out/cli_00002_.png"]
    assert [color(tmp_path / name) for name in names] == [(0, 0, 255), (0, 255, 0)]


def test_a_request_on_standard_input_is_run_with_its_set_and_what_was_left_out_is_said(tmp_path: Path) -> None:
    request = {"workflow": PICTURE, "set": {"EmptyImage.color": 255}, "metadata": {"who": "ana"}}
    answer = run(tmp_path, "-", "--json", "--set", "2.filename_prefix=1.10", given=json.dumps(request).encode("utf-16"))
    document = result(answer)
    [output] = document["outputs"]
    assert Path(output["path"]).name.startswith("1.10_")
    assert color(tmp_path / output["path"]) == (0, 0, 255)
    assert any("metadata" in warning for warning in document["warnings"])


def test_a_picture_is_run_again_with_what_is_changed(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(PICTURE), encoding="utf-8-sig")
    [first] = result(run(tmp_path, "graph.json", "--json"))["outputs"]
    again = run(
        tmp_path, first["path"], "--json", "--set", "color=16711680", "--set", "2.filename_prefix=%EmptyImage.color%"
    )
    [second] = result(again)["outputs"]
    assert color(tmp_path / second["path"]) == (255, 0, 0)
    assert Path(second["path"]).name.startswith("16711680_")
    assert again.stderr.decode().count("--set color: set on 1 node: 1 EmptyImage") == 1


def test_a_terminal_that_knows_few_letters_gets_what_it_can_show(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(PICTURE))
    answer = run(tmp_path, "graph.json", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    assert answer.returncode == 0, answer.stderr
    assert b"Save \\u2013 final" in answer.stdout
    assert b"Traceback" not in answer.stderr


def test_the_engines_log_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(PICTURE))
    assert run(tmp_path, "graph.json", "--log", "engine.log").returncode == 0
    assert " queued" in (tmp_path / "engine.log").read_text()
    refused = run(tmp_path, "graph.json", "--log", "no/folder/engine.log", "--json")
    assert "--log no/folder/engine.log: the file cannot be written" in json.loads(refused.stdout)["error"]["message"]
    elsewhere = run(tmp_path, "graph.json", "--log", "-", COMFYUI_URL="http://127.0.0.1:9")
    assert b"the ComfyUI of COMFYUI_URL was started elsewhere" in elsewhere.stderr


def test_values_that_the_engine_says_are_wrong_are_told_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(PICTURE))
    answer = run(tmp_path, "graph.json", "--json", "--set", "width=8.5", "--set", "images=x")
    error = json.loads(answer.stdout)["error"]
    assert answer.returncode == 1
    assert error["code"] == "invalid_workflow"
    assert "width takes a whole number, and '8.5' is none" in error["message"]
    assert "images is connected to node '1', and takes IMAGE, which no text gives" in error["message"]


def output(name: str, content: bytes | None) -> Output:
    return Output(
        node_id="9",
        class_type="X",
        title="X",
        index=0,
        name=name,
        kind=OutputKind.TEXT,
        content_type="",
        content=content,
    )


def test_an_output_that_cannot_be_saved_costs_the_others_nothing(tmp_path: Path) -> None:
    outputs = [output("a.txt", b"a"), output("gone.txt", None), output("too.txt", None), output("c.txt", b"c")]
    saved = _save_all(outputs, tmp_path)
    assert [one.path.name if one.path else "" for one in saved] == ["a.txt", "", "", "c.txt"]
    with pytest.raises(DeliveryFailed, match=r"2 of 4 outputs could not be saved in .*gone.txt of node 9") as caught:
        _check_saved(saved, tmp_path)
    assert len(caught.value.details["not_saved"]) == 2
    assert caught.value.details["saved"] == [str(tmp_path / "a.txt"), str(tmp_path / "c.txt")]


def test_files_of_this_machine_and_addresses_are_told_apart() -> None:
    assert wishes.origin("s3://bucket/key") == "s3://bucket/key"
    assert wishes.origin("HTTPS://host/x.png") == "HTTPS://host/x.png"
    assert wishes.origin("photo.png") == Path("photo.png")
    assert wishes.origin("~/photo.png") == Path.home() / "photo.png"
    assert wishes.origin("file:///tmp/a%20fox%23.png") == Path("/tmp/a fox#.png")
