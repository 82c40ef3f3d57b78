"""The command line, run as a person runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.patience import PATIENCE_S

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 2, "color": 0}},
    "2": {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "cli"},
        "_meta": {"title": "Result"},
    },
}
EDIT = {
    "10": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "11": {"class_type": "ImageInvert", "inputs": {"image": ["10", 0]}},
    "12": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "edit"}},
}


def command_line(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "comfy_serverless.cli", *arguments],
        cwd=folder,
        env=environment() | {"XDG_CACHE_HOME": str(folder / ".cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def environment() -> dict[str, str]:
    source = str(Path("lambda").resolve())
    return {"PATH": os.environ["PATH"], "PYTHONPATH": source, "HOME": "/tmp", "INITIAL_PORT": "18888", "COLUMNS": "80"}


def written(folder: Path, graph: dict[str, Any]) -> str:
    (folder / "workflow.json").write_text(json.dumps(graph))
    return "workflow.json"


def test_a_workflow_is_run_and_everything_it_makes_is_saved(tmp_path: Path) -> None:
    answer = command_line(tmp_path, "run", written(tmp_path, PICTURE), "--set", "1.color=255", "--out", "results")
    assert answer.returncode == 0, answer.stderr
    saved = sorted((tmp_path / "results").iterdir())
    assert len(saved) == 2
    with Image.open(saved[0]) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)
    assert "2 outputs" in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 80


def test_a_file_of_this_machine_becomes_an_input(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (10, 20, 30)).save(tmp_path / "my photo.png")
    answer = command_line(tmp_path, "run", written(tmp_path, EDIT), "--input", "10.image=my photo.png", "--json")
    assert answer.returncode == 0, answer.stderr
    [output] = json.loads(answer.stdout)["outputs"]
    assert (output["node_id"], output["class_type"], output["type"]) == ("12", "SaveImage", "image")
    with Image.open(tmp_path / output["path"]) as image:
        assert image.getpixel((0, 0)) == (245, 235, 225)


def test_several_files_for_one_input_are_a_batch(tmp_path: Path) -> None:
    for name, color in (("a.png", (10, 20, 30)), ("b.png", (40, 50, 60))):
        Image.new("RGB", (6, 4), color).save(tmp_path / name)
    inputs = ["--input", "10.image=a.png", "--input", "LoadImage.image=a.png", "--input", "10.image=b.png"]
    answer = command_line(tmp_path, "run", written(tmp_path, EDIT), *inputs, "--json")
    assert answer.returncode == 0, answer.stderr
    colors = []
    for output in json.loads(answer.stdout)["outputs"]:
        with Image.open(tmp_path / output["path"]) as image:
            colors.append(image.getpixel((0, 0)))
    assert colors == [(245, 235, 225), (215, 205, 195)]


def test_a_mask_of_this_machine_is_put_into_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (10, 20, 30)).save(tmp_path / "photo.png")
    Image.new("L", (6, 4), 255).save(tmp_path / "mask.png")
    mask_saved = EDIT | {
        "11": {"class_type": "MaskToImage", "inputs": {"mask": ["10", 1]}},
    }
    inputs = ["--input", "10.image=photo.png", "--input", "10.mask=mask.png"]
    answer = command_line(tmp_path, "run", written(tmp_path, mask_saved), *inputs, "--json")
    assert answer.returncode == 0, answer.stderr
    [output] = json.loads(answer.stdout)["outputs"]
    with Image.open(tmp_path / output["path"]) as image:
        assert (image.size, image.getpixel((0, 0))) == ((6, 4), (255, 255, 255))


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["run", "missing.json"], 1, ["invalid_request", "missing.json"]),
        (["run", "workflow.json", "--set", "7.color=1"], 1, ["invalid_workflow", "7.color"]),
        (["run", "workflow.json", "--input", "1.color=no.png"], 1, ["missing_asset", "no.png"]),
        (["run", "workflow.json", "--set", "color"], 2, ["NODE.INPUT=VALUE"]),
        (
            ["run", "workflow.json", "--set", "1.width=wide"],
            1,
            ["invalid_workflow", "'1' (EmptyImage)", "width", "whole"],
        ),
    ],
)
def test_what_is_wrong_is_said_and_the_exit_code_tells(
    tmp_path: Path, arguments: list[str], status: int, words: list[str]
) -> None:
    written(tmp_path, PICTURE)
    answer = command_line(tmp_path, *arguments)
    assert answer.returncode == status
    assert all(word in answer.stderr for word in words), answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_failure_is_json_too_where_json_was_asked_for(tmp_path: Path) -> None:
    answer = command_line(tmp_path, "run", written(tmp_path, PICTURE), "--set", "1.width=wide", "--json")
    assert answer.returncode == 1
    error = json.loads(answer.stdout)["error"]
    assert error["code"] == "invalid_workflow"
    assert "1" in error["details"]["node_errors"]


def test_a_workflow_saved_by_the_editor_is_recognised(tmp_path: Path) -> None:
    answer = command_line(tmp_path, "run", written(tmp_path, {"nodes": [], "links": [], "last_node_id": 1}))
    assert answer.returncode == 1
    assert "workflow_format_ui" in answer.stderr
    assert "has no nodes: save it again in ComfyUI" in answer.stderr


def test_what_was_made_before_a_failure_is_saved(tmp_path: Path) -> None:
    outside = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "../../../outside"}}
    graph = PICTURE | {"3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}, "4": outside}
    answer = command_line(tmp_path, "run", written(tmp_path, graph))
    assert answer.returncode == 1
    assert answer.stderr.rstrip().splitlines()[-1].startswith("node_execution_error: Node 4 (SaveImage)")
    assert answer.stderr.count("made before the failure: out/") == len(list((tmp_path / "out").iterdir()))


def test_a_place_for_the_results_is_made_sure_of_first(tmp_path: Path) -> None:
    answer = command_line(tmp_path, "run", written(tmp_path, PICTURE), "--out", "workflow.json")
    assert answer.returncode == 1
    assert answer.stderr.startswith("invalid_request: --out workflow.json")


def test_a_deadline_is_a_number_of_seconds(tmp_path: Path) -> None:
    answer = command_line(tmp_path, "run", written(tmp_path, PICTURE), "--deadline", "nan")
    assert (answer.returncode, "number of seconds" in answer.stderr) == (2, True)


def test_the_help_teaches(tmp_path: Path) -> None:
    answer = command_line(tmp_path, "run", "--help")
    assert answer.returncode == 0
    assert "--set seed=42" in answer.stdout
    assert "COMFYUI_DIR" in answer.stdout


def without_aws(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line where no library of an extra but `lite` can be imported."""
    program = (
        "import sys\n"
        "lacking = ('boto3', 'botocore', 'pydantic', 'blake3', 'requests', 'aws_lambda_powertools')\n"
        "sys.modules.update(dict.fromkeys(lacking))\n"
        "from comfy_serverless.cli.main import main\n"
        "sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment() | {"COMFY_BASE_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_files_of_this_machine_need_nothing_of_aws(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (10, 20, 30)).save(tmp_path / "photo.png")
    answer = without_aws(tmp_path, "run", written(tmp_path, EDIT), "--input", "10.image=photo.png")
    assert answer.returncode == 0, answer.stderr
    (made,) = (tmp_path / "out").iterdir()
    with Image.open(made) as image:
        assert image.getpixel((0, 0)) == (245, 235, 225)


def test_an_input_in_s3_says_what_it_lacks(tmp_path: Path) -> None:
    graph = json.loads(json.dumps(EDIT))
    graph["10"]["inputs"]["image"] = "s3://bucket/photo.png"
    answer = without_aws(tmp_path, "run", written(tmp_path, graph))
    assert (answer.returncode, answer.stdout) == (1, "")
    said = answer.stderr.splitlines()[-1]
    assert said == "`comfy-serverless run` needs botocore here: in the checkout, pip install '.[aws]'"


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("keys", "list", "--stack", "s"), "aws"),
        (("batch", "status", "x", "--stack", "s"), "aws"),
        (("upload", "workflow.json"), "remote"),
        (("jobs", "ls"), "remote"),
        (("usage",), "remote"),
        (("usage", "--stack", "s"), "aws"),
        (("run", "workflow.json", "--remote"), "remote"),
    ],
)
def test_a_command_that_lacks_a_library_says_in_one_line_which_extra_brings_it(
    tmp_path: Path, arguments: tuple[str, ...], extra: str
) -> None:
    written(tmp_path, PICTURE)
    answer = without_aws(tmp_path, *arguments)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (1, "", 1)
    assert answer.stderr.startswith(f"`comfy-serverless {arguments[0]}` needs ")
    assert answer.stderr.endswith(f"pip install '.[{extra}]'\n")


def wait_until_something_runs(server_address: str, *, seconds: float) -> None:
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{server_address}/queue", timeout=PATIENCE_S).json()["queue_running"]:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing runs at {server_address}")


def test_ctrl_c_cancels_the_prompt_and_leaves_no_engine(tmp_path: Path) -> None:
    graph = json.loads(Path("tests/contract/test_payload.json").read_text())
    graph["22"]["inputs"]["steps"] = 10_000
    command = f"{sys.executable} -m comfy_lite --step-ms 50"
    process = subprocess.Popen(
        [sys.executable, "-m", "comfy_serverless.cli", "run", written(tmp_path, graph)],
        cwd=tmp_path,
        env=environment() | {"API_COMMAND_LINE": command, "INITIAL_PORT": "18988"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until_something_runs("http://127.0.0.1:18988", seconds=PATIENCE_S)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "canceled" in stderr
