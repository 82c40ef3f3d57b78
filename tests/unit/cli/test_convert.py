"""What the editor saved, on the command line: `convert`, `run` here, and `run --remote`."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.cli import remote
from comfy_serverless.cli.main import main
from tests.unit.cli.scripted_api import Asked, ScriptedApi, Told, job, scripted_api
from tests.unit.editor_samples import (
    OBJECT_INFO,
    PLAIN,
    PLAIN_GRAPH,
    plain,
    rolling,
    with_loader,
    with_subgraph,
    with_unknown,
)

LOADER_GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "editor"}},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and no ComfyUI or API that the environment names."""
    for name in ("COMFY_BASE_URL", "COMFYUI_URL", "COMFYUI_DIR", "WORKFLOWS_DIR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(remote, "pause", lambda _: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "object_info.json").write_text(json.dumps(OBJECT_INFO))
    return tmp_path


def written(name: str, document: object) -> str:
    Path(name).write_text(json.dumps(document))
    return name


def bare(graph: dict[str, Any]) -> dict[str, Any]:
    return {node_id: {"class_type": node["class_type"], "inputs": node["inputs"]} for node_id, node in graph.items()}


BY_FILE = ("--object-info", "object_info.json")


# convert


@pytest.mark.parametrize(
    "document",
    [PLAIN, {"workflow": PLAIN}, {"workflow": json.dumps(PLAIN)}, {"prompt": PLAIN}, [PLAIN]],
    ids=["bare", "a request", "a text", "in a prompt", "a list"],
)
def test_the_graph_goes_to_standard_output(document: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", written("w.json", document), *BY_FILE]) == 0
    assert bare(json.loads(capsys.readouterr().out)) == PLAIN_GRAPH


def test_a_file_gets_it_whole_and_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("api.json").write_text("before")
    assert main(["convert", written("w.json", plain(prefix="Füchse")), *BY_FILE, "-o", "api.json"]) == 0
    text = Path("api.json").read_text(encoding="utf-8")
    assert json.loads(text)["2"]["inputs"]["filename_prefix"] == "Füchse"
    assert "Füchse" in text
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in Path().iterdir()) == ["api.json", "object_info.json", "w.json"]


def test_half_of_a_character_stays_escaped() -> None:
    assert main(["convert", written("w.json", plain(prefix="\ud83d")), *BY_FILE, "-o", "api.json"]) == 0
    assert json.loads(Path("api.json").read_text())["2"]["inputs"]["filename_prefix"] == "\ud83d"


def test_the_file_itself_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    before = json.dumps(PLAIN)
    assert main(["convert", written("w.json", PLAIN), *BY_FILE, "-o", "./w.json"]) == 1
    assert "would be lost" in capsys.readouterr().err
    assert Path("w.json").read_text() == before
    assert main(["convert", "w.json", *BY_FILE, "-o", "."]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert main(["convert", "w.json", *BY_FILE, "-o", "none/api.json"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(PLAIN).encode("utf-16"))))
    assert main(["convert", "-", *BY_FILE, "-o", "-"]) == 0
    assert bare(json.loads(capsys.readouterr().out)) == PLAIN_GRAPH


def test_what_is_in_api_format_is_written_as_it_is_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """No engine is started for it."""
    assert main(["convert", written("w.json", {"prompt": PLAIN_GRAPH, "workflow": PLAIN})]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == PLAIN_GRAPH
    assert "in API format already" in captured.err


def test_alternatives_are_rolled_by_a_seed_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    file = written("w.json", rolling())
    info = {**OBJECT_INFO, "CheckpointLoaderSimple": CHECKPOINT}
    written("object_info.json", info)
    texts = []
    for seed in ((), ("--seed", "a"), ("--seed", "a"), ("--seed", "b"), ("--seed", "c"), ("--seed", "d")):
        assert main(["convert", file, *BY_FILE, *seed, "--json"]) == 0
        captured = capsys.readouterr()
        document = json.loads(captured.out)
        texts.append(document["workflow"]["2"]["inputs"]["text"])
        assert document["warnings"]
        assert all(f"warning: {warning}" in captured.err for warning in document["warnings"])
    assert texts[0] == "a red fox"
    assert texts[1] == texts[2]
    assert len(set(texts)) > 2


CHECKPOINT: dict[str, Any] = {
    "input": {"required": {"ckpt_name": [["m.safetensors"], {}]}},
    "input_order": {"required": ["ckpt_name"]},
    "output": ["MODEL", "CLIP", "VAE"],
    "name": "CheckpointLoaderSimple",
    "display_name": "Load Checkpoint",
}


def test_what_cannot_be_converted_is_told_with_every_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", written("w.json", with_unknown()), *BY_FILE, "-o", "api.json", "--json"]) == 1
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["code"], "NobodysNode" in captured.err) == ("workflow_format_ui", True)
    assert error["details"]["reasons"][0]["class_type"] == "NobodysNode"
    assert not Path("api.json").exists()


@pytest.mark.parametrize("content", ["{}", "[1]", '{"prompt": {}}', "no", json.dumps(PLAIN_GRAPH)])
def test_declarations_that_are_none_are_refused_with_how_to_get_some(
    content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.json").write_text(content)
    assert main(["convert", written("w.json", PLAIN), "--object-info", "wrong.json"]) == 1
    assert "--object-info wrong.json" in capsys.readouterr().err


def test_declarations_come_from_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["convert", written("w.json", PLAIN), *BY_FILE, "--remote"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_its_help_says_where_declarations_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("--object-info", "--remote", "COMFYUI_DIR", "--seed", "-o FILE", "curl"))


@pytest.mark.parametrize("prompt", [{}, None, "", [], {"1": {"inputs": {}}}])
def test_a_prompt_that_is_none_beside_it_is_left_out(prompt: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", written("w.json", {"prompt": prompt, "workflow": PLAIN}), *BY_FILE]) == 0
    captured = capsys.readouterr()
    assert bare(json.loads(captured.out)) == PLAIN_GRAPH
    assert ("prompt" in captured.err) == (prompt is not None)


# Here, by the embedded engine.


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("API_COMMAND_LINE", f"{sys.executable} -m comfy_lite --base-directory {tmp_path / 'engine'}")
    monkeypatch.setenv("INITIAL_PORT", "18888")


def made(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The outputs that were told; what is logged stands before them, as commands in a process of their own do not."""
    text = capsys.readouterr().out
    outputs: list[dict[str, Any]] = json.loads(text[text.index("{\n") :])["outputs"]
    return outputs


@pytest.mark.usefixtures("engine")
def test_a_file_of_the_editor_runs_here_with_what_is_set_in_its_subgraph(capsys: pytest.CaptureFixture[str]) -> None:
    file = written("w.json", with_subgraph(color=0))
    options = ["--set", "2:102.scale_by=2", "--set", "EmptyImage.color=255", "--json"]
    assert main(["run", file, *options]) == 0
    [output] = made(capsys)
    with Image.open(output["path"]) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((32, 16), (255, 255, 0))
        assert json.loads(picture.info["workflow"]) == with_subgraph(color=0)
        assert json.loads(picture.info["prompt"])["2:102"]["inputs"]["scale_by"] == 2


@pytest.mark.usefixtures("engine")
def test_a_file_is_given_to_it_and_its_own_title_is_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "photo.png")
    workflow = with_loader()
    workflow["nodes"][0]["title"] = "The photo"
    assert main(["run", written("w.json", workflow), "--input", "The photo.image=photo.png", "--json"]) == 0
    [output] = made(capsys)
    with Image.open(output["path"]) as picture:
        assert picture.getpixel((0, 0)) == (0, 255, 255)


@pytest.mark.usefixtures("engine")
def test_an_address_in_it_is_fetched_and_only_the_files_name_is_in_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    assert main(["run", written("w.json", with_loader(address)), "--json"]) == 0
    [output] = made(capsys)
    with Image.open(output["path"]) as picture:
        assert picture.getpixel((0, 0)) == (0, 255, 255)
        assert "base64" not in picture.info["workflow"]


@pytest.mark.usefixtures("engine")
def test_what_the_embedded_engine_lacks_is_said_with_what_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", written("w.json", with_unknown())]) == 1
    said = capsys.readouterr().err
    assert "COMFYUI_DIR" in said
    assert "Install the pack" not in said, "no pack helps the embedded engine"


# On the API.


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApi]:
    with scripted_api(lambda _: Told(body=job())) as scripted:
        monkeypatch.setenv("COMFY_BASE_URL", scripted.url)
        monkeypatch.setenv("COMFY_API_KEY", "sk-key")
        yield scripted


def answering(graph: dict[str, Any], *, warnings: tuple[str, ...] = ()) -> Callable[[Asked], Told]:
    def answer(asked: Asked) -> Told:
        if asked.path == "/api/v2/workflows/convert":
            return Told(body={"workflow": graph, "warnings": list(warnings)})
        if asked.path.startswith("/api/v2/assets/by-hash"):
            return Told(200)
        if asked.path == "/api/v2/assets/from-hash":
            return Told(body={"id": "asset-1"})
        return Told(body=job())

    return answer


def sent(server: ScriptedApi, path: str) -> Any:
    (asked,) = [asked for asked in server.asked if asked.path == path]
    return asked.json


def test_the_api_converts(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    server.answer = answering(PLAIN_GRAPH, warnings=("guessed",))
    request = {"workflow": PLAIN, "set": {"1.color": 5}}
    assert main(["convert", written("w.json", request), "--remote", "--seed", "a"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == PLAIN_GRAPH
    assert "warning: guessed" in captured.err
    assert sent(server, "/api/v2/workflows/convert") == {"workflow": PLAIN, "seed": "a"}


def test_the_api_gets_it_as_it_is(server: ScriptedApi) -> None:
    request = {"workflow": PLAIN, "set": {"1.color": 5}, "deadline_s": 5}
    assert main(["run", written("w.json", request), "--remote"]) == 0
    job_sent = sent(server, "/generate")
    assert (job_sent["workflow"], job_sent["set"], job_sent["deadline_s"]) == (PLAIN, {"1.color": 5}, 5.0)
    assert not [asked for asked in server.asked if asked.path.endswith("/convert")]


def test_what_is_set_is_found_in_what_it_becomes_and_it_is_sent_as_it_is(server: ScriptedApi) -> None:
    server.answer = answering(PLAIN_GRAPH, warnings=("guessed",))
    options = ["--set", "EmptyImage.color=7", "--set", "filename_prefix=007", "--set-json", '1.width=["2", 0]']
    assert main(["run", written("w.json", PLAIN), "--remote", *options]) == 0
    job_sent = sent(server, "/generate")
    assert job_sent["workflow"] == PLAIN
    assert job_sent["set"] == {"1.color": 7, "2.filename_prefix": "007", "1.width": ["2", 0]}


def test_what_is_set_and_means_nothing_is_refused_before_anything_is_sent(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = answering(PLAIN_GRAPH)
    assert main(["run", written("w.json", PLAIN), "--remote", "--set", "EmptyImage.colour=7"]) == 1
    assert "color" in capsys.readouterr().err
    assert not [asked for asked in server.asked if asked.path == "/generate"]


def test_files_are_uploaded_and_set(server: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"a photo")
    server.answer = answering(LOADER_GRAPH)
    file = written("w.json", with_loader())
    assert main(["run", file, "--remote", "--input", "LoadImage.image=photo.png"]) == 0
    job_sent = sent(server, "/generate")
    assert job_sent["workflow"] == with_loader()
    assert job_sent["set"] == {"1.image": {"__type": "core/ASSET", "info": {"id": "asset-1"}}}


def test_a_mask_goes_into_the_graph_and_the_workflow_goes_along(server: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"a mask")
    server.answer = answering(LOADER_GRAPH)
    file = written("w.json", with_loader())
    assert main(["run", file, "--remote", "--input", "1.mask=mask.png", "--set", "3.filename_prefix=a"]) == 0
    job_sent = sent(server, "/generate")
    assert job_sent["workflow"]["1"]["inputs"]["mask"] == {"__type": "core/ASSET", "info": {"id": "asset-1"}}
    assert job_sent["workflow"]["3"]["inputs"]["filename_prefix"] == "a"
    assert job_sent["extra_data"] == {"extra_pnginfo": {"workflow": with_loader()}}


NEEDS_CAMERA = {
    "code": "workflow_format_ui",
    "message": "a camera",
    "details": {
        "reasons": [{"reason": "needs_browser", "node_id": "4", "class_type": "WebcamCapture", "input": "image"}]
    },
}
CAMERA_GRAPH = {**LOADER_GRAPH, "4": {"class_type": "WebcamCapture", "inputs": {"image": "fox.png"}}}


def test_what_only_a_browser_has_is_given_when_it_is_asked_for(server: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"a photo")

    def answer(asked: Asked) -> Told:
        if asked.path == "/api/v2/workflows/convert" and "set" not in asked.json:
            return Told(422, {"error": NEEDS_CAMERA})
        return answering(CAMERA_GRAPH)(asked)

    server.answer = answer
    command = ["run", written("w.json", with_loader()), "--remote", "--set", "3.filename_prefix=a"]
    assert main([*command, "--input", "WebcamCapture.image=photo.png"]) == 0
    asked = [one.json.get("set") for one in server.asked if one.path == "/api/v2/workflows/convert"]
    assert asked == [None, {"4.image": "photo.png"}]
    assert set(sent(server, "/generate")["set"]) == {"3.filename_prefix", "4.image"}


def test_an_api_whose_workers_have_told_nothing_is_asked_once(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = {"code": "engine_unavailable", "message": "no worker has told yet which nodes it has", "details": None}
    server.answer = lambda _: Told(503, {"error": silent})
    file = written("w.json", PLAIN)
    for command in (["convert", file, "--remote"], ["run", file, "--remote", "--set", "1.color=5"]):
        assert main(command) == 1
        assert "no worker has told" in capsys.readouterr().err
    assert [asked.path for asked in server.asked] == ["/api/v2/workflows/convert"] * 2


def before_any_worker(asked: Asked) -> Told:
    """The API of a new stack: it cannot convert yet, and takes jobs."""
    if asked.path == "/api/v2/workflows/convert":
        return Told(503, {"error": {"code": "engine_unavailable", "message": "no worker has told", "details": None}})
    return answering(LOADER_GRAPH)(asked)


def test_the_first_job_of_a_stack_takes_files_and_json_as_they_are_written(
    server: ScriptedApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.png").write_bytes(b"a photo")
    server.answer = before_any_worker
    command = ["run", written("w.json", with_loader()), "--remote", "--input", "LoadImage.image=photo.png"]
    assert main([*command, "--set-json", "3.quality=5", "--input", "4.image=s3://bucket/b.png"]) == 0
    request = sent(server, "/generate")
    assert request["workflow"] == with_loader(), "as it is: a worker converts it"
    assert set(request["set"]) == {"LoadImage.image", "3.quality"}
    assert request["set"]["3.quality"] == 5
    assert request["inputs"] == {"4.image": "s3://bucket/b.png"}
    assert "one checks the options when it runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--set", "3.text=a fox"], "--set-json '3.text=20'"),
        (["--set-json", "3.text=a fox"], "is to be given as JSON"),
        (["--input", "3.image=missing.png"], "there is no such file"),
    ],
)
def test_what_the_first_job_cannot_mean_is_told_before_anything_is_sent(
    server: ScriptedApi, option: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = before_any_worker
    assert main(["run", written("w.json", with_loader()), "--remote", *option]) == 1
    assert words in capsys.readouterr().err
    assert [asked.path for asked in server.asked] == ["/api/v2/workflows/convert"]
