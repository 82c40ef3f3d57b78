"""`comfy-serverless needs`: tables for people, JSON and manifests for programs, of what is here and of a stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from comfy_serverless.cli import model_lookup, remote, stack
from comfy_serverless.cli.main import main
from comfy_serverless.cli.needs_report import _summary
from comfy_serverless.fetch.tokens import NO_TOKENS
from comfy_serverless.graph.needs import needs_of
from comfy_serverless.jobs.request import parse_manifest
from tests.patience import PATIENCE_S
from tests.unit.cli.scripted_api import Asked, Told, scripted_api
from tests.unit.editor_samples import node, saved
from tests.unit.jobs_table import REGION, aws
from tests.unit.model_hosts import HF, Internet
from tests.unit.needs_samples import FOX_URL, OBJECT_INFO, SHA256, entry, loader, with_checkpoint

MISSING = 3
BY_FILE = ("--object-info", "object_info.json")
GRAPH = {"4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "fox.safetensors"}}}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to be in, no ComfyUI or API that the environment names, and no host that answers."""
    for name in ("COMFY_BASE_URL", "COMFY_API_KEY", "COMFYUI_URL", "COMFYUI_DIR", "WORKFLOWS_DIR", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(remote, "pause", lambda _: None)
    monkeypatch.setattr(model_lookup, "hosts", lambda: pytest.fail("no host was to be asked"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "object_info.json").write_text(json.dumps(OBJECT_INFO))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with Internet(tmp_path_factory.mktemp("tls")) as internet:
        yield internet


@pytest.fixture
def internet(running: Internet, monkeypatch: pytest.MonkeyPatch) -> Internet:
    running.answers.clear()
    running.seen.clear()
    monkeypatch.setattr(model_lookup, "hosts", lambda: (running.get, NO_TOKENS))
    return running


def written(name: str, document: object) -> str:
    Path(name).write_text(json.dumps(document))
    return name


def needs(capsys: pytest.CaptureFixture[str], document: object, *options: str, status: int = MISSING) -> dict[str, Any]:
    assert main(["needs", written("w.json", document), *(options or BY_FILE), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_table_says_what_is_missing_and_where_it_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    toy = node(7, "Toy", properties={"aux_id": "somebody/Toys", "ver": "1.0"})
    workflow = saved(
        [
            loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors")),
            loader(2, "LoraLoaderModelOnly", ["Ink.safetensors", 1]),
            loader(3, "PaidPicture", ["a fox\nat dusk"]),
            toy,
        ],
        [],
    )
    assert main(["needs", written("w.json", workflow), *BY_FILE]) == MISSING
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        f"checkpoints fox.safetensors no {FOX_URL}",
        "loras Ink.safetensors no (styles/ink.safetensors is)",
        "Toy 1 no github.com/somebody/Toys 1.0",
        "3 more node classes are ComfyUI's own",
        "partner nodes, which call a paid service: PaidPicture",
        "3.prompt PaidPicture prompt a fox at dusk",
    ):
        assert line in lines
    assert "2 models and 1 node class are missing at object_info.json" in err
    assert f"comfy-serverless models add {FOX_URL} --folder checkpoints --stack NAME" in err
    assert "--manifest models.json" in err


def test_where_nothing_is_missing_it_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["needs", written("w.json", with_checkpoint("there.safetensors")), *BY_FILE]) == 0
    assert "nothing is missing at object_info.json" in capsys.readouterr().err


def test_a_missing_class_alone_is_something_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert needs(capsys, saved([node(1, "Toy")], []))["missing"] == {"models": 0, "nodes": 1}


@pytest.mark.parametrize(
    "document",
    [
        with_checkpoint(),
        {"workflow": with_checkpoint()},
        {"prompt": GRAPH, "workflow": with_checkpoint()},
        {"workflow": GRAPH, "extra_data": {"extra_pnginfo": {"workflow": with_checkpoint()}}},
    ],
)
def test_it_reads_what_run_reads(document: object, capsys: pytest.CaptureFixture[str]) -> None:
    (model,) = needs(capsys, document)["models"]
    assert (model["name"], model["url"]) == ("fox.safetensors", FOX_URL)


def test_it_reads_the_workflow_in_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(GRAPH))
    info.add_text("workflow", json.dumps(with_checkpoint()))
    Image.new("RGB", (8, 8)).save("picture.png", pnginfo=info)
    assert main(["needs", "picture.png", *BY_FILE, "--json"]) == MISSING
    assert json.loads(capsys.readouterr().out)["models"][0]["url"] == FOX_URL


def test_what_a_request_sets_and_brings_counts(capsys: pytest.CaptureFixture[str]) -> None:
    request = {"workflow": GRAPH, "set": {"4.ckpt_name": "other.safetensors"}}
    assert needs(capsys, request)["models"][0]["name"] == "other.safetensors"
    brought = {"url": FOX_URL, "folder": "checkpoints", "sha256": SHA256}
    (model,) = needs(capsys, {"workflow": GRAPH, "models": [brought]}, status=0)["models"]
    assert (model["there"], model["sha256"]) == (True, SHA256)


def test_the_engine_here_is_asked_if_nothing_else_is_named(tmp_path: Path) -> None:
    """The embedded one, in a process of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[3] / "lambda"),
        "HOME": str(tmp_path),
    }
    graph = {
        **GRAPH,
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "embedding:ink", "clip": ["4", 1]}},
        "7": {"class_type": "NoSuchNode", "inputs": {}},
    }
    answer = subprocess.run(
        [sys.executable, "-m", "comfy_serverless.cli", "needs", written("w.json", graph), "--json"],
        cwd=tmp_path,
        env=environment | {"INITIAL_PORT": "18866"},
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert answer.returncode == MISSING, answer.stderr.decode()
    document = json.loads(answer.stdout)
    assert {model["name"]: model["there"] for model in document["models"]} == {"fox.safetensors": False, "ink": False}
    assert document["engine"].startswith("comfy_lite")
    assert "set COMFYUI_DIR or COMFYUI_URL" in document["notes"][-1], "the embedded engine lacks most classes"


# manifests


def test_a_manifest_is_what_jobs_take_with_the_hashes_that_hosts_tell(
    internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.hub_file("/a/fox/resolve/main/fox.safetensors", b"x" * 1234, SHA256)
    workflow = saved(
        [
            loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors", url)),
            loader(
                2,
                "LoraLoaderModelOnly",
                ["deep/ink.safetensors", 1],
                entry("deep/ink.safetensors", FOX_URL, "loras", hash="cd" * 32),
            ),
            loader(3, "CheckpointLoaderSimple", ["there.safetensors"], entry("there.safetensors")),
        ],
        [],
    )
    assert main(["needs", written("w.json", workflow), *BY_FILE, "--manifest", "models.json"]) == MISSING
    entries = json.loads(Path("models.json").read_text())
    assert entries == [
        {"url": url, "folder": "checkpoints", "name": "fox.safetensors", "sha256": SHA256},
        {"url": FOX_URL, "folder": "loras/deep", "name": "ink.safetensors", "sha256": "cd" * 32},
    ]
    assert [model.path for model in parse_manifest(entries, source="x")] == [
        "checkpoints/fox.safetensors",
        "loras/deep/ink.safetensors",
    ]
    assert [seen.method for seen in internet.seen if seen.host == HF and "/a/fox" in seen.path] == ["HEAD"]
    out = capsys.readouterr().out
    assert "1.2 kB" in out
    assert SHA256[:12] in out
    assert not [path.name for path in Path().iterdir() if path.suffix == ".part"]


def test_a_host_that_says_another_hash_than_the_file_is_told(
    internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.hub_file("/a/fox/resolve/main/fox.safetensors", b"x", SHA256)
    workflow = saved(
        [loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors", url, hash="cd" * 32))], []
    )
    found = needs(capsys, workflow, *BY_FILE, "--lookup")
    assert found["models"][0]["sha256"] == "cd" * 32
    assert f"says another SHA-256 than the workflow: {SHA256}" in found["notes"][0]


def test_without_a_hash_the_manifest_says_what_to_do(internet: Internet, capsys: pytest.CaptureFixture[str]) -> None:
    url = internet.url(HF, "/gone/fox.safetensors")
    workflow = saved([loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors", url))], [])
    assert main(["needs", written("w.json", workflow), *BY_FILE, "--manifest", "models.json"]) == MISSING
    assert json.loads(Path("models.json").read_text()) == [
        {"url": url, "folder": "checkpoints", "name": "fox.safetensors"}
    ]
    err = capsys.readouterr().err
    assert "note: fox.safetensors: " in err
    assert "without a SHA-256 in the manifest" in err
    assert "ALLOW_UNPINNED_MODELS" in err


def test_models_that_cannot_be_in_a_manifest_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    workflow = saved(
        [
            loader(1, "CheckpointLoaderSimple", ["fox.safetensors"]),
            loader(2, "Toy", ["llm.gguf"], entry("llm.gguf", directory="LLM")),
        ],
        [],
    )
    assert main(["needs", written("w.json", workflow), *BY_FILE, "--manifest", "-", "--no-lookup"]) == MISSING
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert "does not say where they are from: fox.safetensors" in err
    assert "jobs bring no models into these folders: llm.gguf (LLM)" in err


def test_the_manifest_replaces_no_workflow_and_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    file = written("w.json", with_checkpoint())
    for target, words in (("./w.json", "would be lost"), (".", "is a folder"), ("none/m.json", "cannot be written")):
        assert main(["needs", file, *BY_FILE, "--manifest", target, "--no-lookup"]) == 1
        assert words in capsys.readouterr().err
    assert json.loads(Path("w.json").read_text()) == with_checkpoint()
    with pytest.raises(SystemExit) as wrong:
        main(["needs", file, *BY_FILE, "--manifest", "-", "--json"])
    assert wrong.value.code == 2


def test_a_file_that_is_no_object_info_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["needs", written("w.json", with_checkpoint()), "--object-info", "w.json"]) == 1
    assert "is no answer of ComfyUI's /object_info" in capsys.readouterr().err


# stacks


def answers(asked: Asked) -> Told:
    assert (asked.method, asked.path) == ("POST", "/api/v2/workflows/needs")
    body = asked.json
    info = (body.get("extra_data") or {}).get("extra_pnginfo") or {}
    return Told(body=needs_of(body["workflow"], OBJECT_INFO, saved=info.get("workflow")).to_json())


def test_the_api_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_api(answers) as api:
        monkeypatch.setenv("COMFY_BASE_URL", api.url)
        monkeypatch.setenv("COMFY_API_KEY", "secret")
        found = needs(capsys, {"prompt": GRAPH, "workflow": with_checkpoint()}, "--remote")
        assert found["models"][0]["url"] == FOX_URL
        assert found["engine"] == api.url
        assert api.asked[0].key == "Bearer secret"


def test_a_stack_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_api(answers) as api:
        monkeypatch.setattr(stack, "outputs_of", lambda name: {"ApiUrl": api.url} if name == "mine" else {})
        assert main(["needs", written("w.json", GRAPH), "--stack", "mine"]) == 1
        assert "set COMFY_API_KEY to a key of the stack 'mine'" in capsys.readouterr().err
        monkeypatch.setenv("COMFY_API_KEY", "secret")
        assert needs(capsys, GRAPH, "--stack", "mine")["missing"]["models"] == 1
        assert main(["needs", "w.json", "--stack", "other"]) == 1
        assert "has no output ApiUrl" in capsys.readouterr().err


def test_models_in_the_stacks_store_are_told_with_their_addresses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    workflow = saved(
        [
            loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors")),
            loader(
                2, "LoraLoaderModelOnly", ["deep/ink.safetensors", 1], entry("deep/ink.safetensors", directory="loras")
            ),
        ],
        [],
    )
    with aws() as session, scripted_api(answers) as api:
        s3 = session.client("s3")
        s3.create_bucket(Bucket="inputs", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(
            Bucket="inputs", Key="models/loras/deep/ink.safetensors", Body=b"x" * 5, Metadata={"sha256": SHA256}
        )
        outputs = {"ApiUrl": api.url, "InputBucketName": "inputs"}
        monkeypatch.setattr(stack, "outputs_of", lambda _: outputs)
        monkeypatch.setenv("COMFY_API_KEY", "secret")
        _, stored = needs(capsys, workflow, "--stack", "mine", "--manifest", "m.json", "--no-lookup")["models"]
        assert (stored["url"], stored["source"]) == ("s3://inputs/models/loras/deep/ink.safetensors", "store")
        assert (stored["sha256"], stored["size_bytes"], stored["there"]) == (SHA256, 5, False)
        assert json.loads(Path("m.json").read_text())[1] == {
            "url": stored["url"],
            "folder": "loras/deep",
            "name": "ink.safetensors",
            "sha256": SHA256,
        }
        assert main(["needs", "w.json", "--stack", "mine"]) == MISSING
        assert "1 model of them in the stack's store" in capsys.readouterr().err
        outputs["InputBucketName"] = "gone"
        assert "what its store of models has is not known" in needs(capsys, workflow, "--stack", "mine")["notes"][-1]


def test_a_hostile_file_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    workflow = saved(
        [loader(1, "Toy\x1b[2J", ["\x1b[31mred.safetensors", "b\x07.ckpt"], entry("x"), title="\x1b]0;t\x07")], []
    )
    assert main(["needs", written("w.json", workflow), *BY_FILE]) == MISSING
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\x07" not in out + err


def test_nothing_is_missing_only_if_somebody_has_looked() -> None:
    nodes = [{"known": None}, {"known": None}]
    told = {"missing": {"models": 0, "nodes": 0}, "models": [], "nodes": nodes}
    assert _summary(told, "the stack") == "what is missing at the stack is not known"
    assert _summary(told | {"nodes": [{"known": True}]}, "the stack") == "nothing is missing at the stack"
