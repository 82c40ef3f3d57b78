"""`comfy-serverless batch` with a key alone: the API's own routes answer, and no AWS credentials are there."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest
import requests
from PIL import Image

from comfy_serverless.cli import batch as cli_batch
from comfy_serverless.cli.remote_api import Api
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.jobs.document import Output
from tests.unit.owned_batches import LOADS, RESULTS, Batches, batches_world, line

BASE = "https://api.example"


class Wire:
    """What carries requests to the API, and those for signed links to S3."""

    def __init__(self, world: Batches) -> None:
        self.world = world
        self._turn = threading.RLock()  # a function answers one request at a time

    def send(self, api: Api, method: str, url: str, *, with_key: bool, **given: Any) -> requests.Response:
        with self._turn:
            return self._answer(api, method, url, with_key=with_key, **given)

    def _answer(self, api: Api, method: str, url: str, *, with_key: bool, **given: Any) -> requests.Response:
        parts = urlsplit(url)
        answer = requests.Response()
        answer.encoding = "utf-8"
        if parts.hostname != "api.example":
            assert not with_key, "the key goes to the API alone"
            return self._of_s3(answer, method, parts, given)
        assert (with_key, api.key) == (True, "key")
        query = f"?{urlencode(given['params'])}" if given.get("params") else ""
        told = self.world.request(method, f"{parts.path}{query}", body=given.get("json"), headers=given.get("headers"))
        answer.status_code, answer.raw = told.status, io.BytesIO(told.text.encode())
        answer.headers.update(told.headers)
        return answer

    def _of_s3(self, answer: requests.Response, method: str, parts: Any, given: Any) -> requests.Response:
        bucket, key = parts.hostname.partition(".")[0], unquote(parts.path).lstrip("/")
        answer.status_code, answer.raw = 200, io.BytesIO()
        if method == "PUT":
            self.world.s3.put_object(Bucket=bucket, Key=key, Body=given["data"].read())
        else:
            assert dict(parse_qsl(parts.query))["X-Amz-Signature"]
            answer.raw = io.BytesIO(self.world.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        return answer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Batches]:
    with batches_world(monkeypatch) as made:
        wire = Wire(made)
        monkeypatch.setattr(Api, "send", lambda api, *given, **named: wire.send(api, *given, **named))
        monkeypatch.setenv("COMFY_BASE_URL", BASE)
        monkeypatch.setenv("COMFY_API_KEY", "key")
        monkeypatch.delenv("COMFY_STACK", raising=False)
        monkeypatch.chdir(tmp_path)
        yield made


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli_batch.add_parser(parser.add_subparsers(dest="command"))
    return cli_batch.run(parser.parse_args(["batch", *arguments]))


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def paint(world: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers make pictures whose hash is told."""
    made = world._made

    def painted(job_id: str, request: Any) -> Output:
        output = made(job_id, request)
        return output.model_copy(update={"sha256": hashlib.sha256(job_id.encode()).hexdigest()})

    monkeypatch.setattr(world, "_made", painted)


def test_from_a_folder_of_photos_to_a_folder_of_results(
    world: Batches, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(world, monkeypatch)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in (("fox 1.png", "red"), ("bär#2.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(photos / name)
    (tmp_path / "loads.json").write_text(json.dumps(LOADS))
    code = run("run", "loads.json", "--each", "photos/*.png", "--label", "of=autumn", "--name", "small", "--json")
    assert (code, told(capsys)["files_sent"]) == (0, 2)
    world.follow_orders()
    addresses = [request.inputs["1.image"] for _, request in world.work()]
    assert all("/blobs/team/" in address for address in addresses)
    world.look("small")
    assert run("status", "small") == 0
    assert "2 succeeded" in capsys.readouterr().out
    assert run("download", "small", "--out", "results", "--name", "{metadata.of}/{input}", "--json") == 0
    files = told(capsys)["files"]
    assert {Path(file["path"]).as_posix() for file in files} == {
        "results/autumn/fox 1.png",
        "results/autumn/bär_2.png",
    }
    assert run("download", "small", "--out", "results", "--json") == 0
    assert [file["is_new"] for file in told(capsys)["files"]] == [False, False]
    assert run("sheet", "small", "--out", "results") == 0
    assert (tmp_path / "results" / "gallery.html").is_file()
    assert run("list", "--json") == 0
    assert [batch["name"] for batch in told(capsys)["batches"]] == ["small"]


def test_a_manifest_is_submitted_watched_paused_resumed_and_retried(
    world: Batches, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "many.jsonl"
    manifest.write_text("\n".join(json.dumps(line(number)) for number in range(3)))
    assert run("submit", str(manifest)) == 0
    world.follow_orders()
    for action, status in (("pause", "paused"), ("resume", "running")):
        assert run(action, "many", "--json") == 0
        assert json.loads(capsys.readouterr().out)["status"] == status
    world.follow_orders()

    def pass_time(_seconds: float) -> None:
        world.work(failing=frozenset({1}))
        world.look("many")

    monkeypatch.setattr(time, "sleep", pass_time)
    assert run("status", "many", "--watch", "--json") == 1
    shown = told(capsys)
    assert (shown["succeeded"], shown["failed"], shown["first_failures"][0]["line"]) == (2, 1, 2)
    assert run("retry", "many", "--json") == 0
    again = told(capsys)
    assert (again["name"], again["lines"]) == ("many-again", 1)
    world.follow_orders()
    world.work()
    world.look("many-again")
    assert run("retry", "many-again", "--json") == 0
    assert told(capsys) == {"name": None, "lines": 0, "left_out": {}}
    with pytest.raises(Exception, match="canceled any more"):
        run("cancel", "many")


def test_a_large_manifest_is_uploaded(
    world: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comfy_serverless.cli.batches.over_http._MAX_TEXT_BYTES", 10)
    monkeypatch.setattr("comfy_serverless.api.batch_submission.MAX_SENT_BYTES", 10)
    manifest = tmp_path / "large.jsonl"
    manifest.write_text("\n".join(json.dumps(line(number)) for number in range(3)))
    assert run("submit", str(manifest)) == 0
    capsys.readouterr()
    world.look("large")
    assert len(world.work()) == 3


def test_lines_with_local_workflows_have_the_graph_in_them(world: Batches, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps(line(1)["workflow"]))
    (tmp_path / "m.jsonl").write_text(json.dumps({"workflow": "./own.json", "set": {"1.width": 16}}))
    assert run("submit", "m.jsonl", "--upload") == 0
    world.follow_orders()
    assert [request.workflow["1"]["inputs"]["width"] for _, request in world.work()] == [16]


def test_bad_lines_are_told_here_and_by_the_api(
    world: Batches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text("nonsense\n" + json.dumps(line(1)))
    with pytest.raises(InvalidRequest, match="line 1"):
        run("submit", "bad.jsonl")
    theirs = {"workflow": LOADS, "inputs": {"1.image": f"s3://{RESULTS}/owners/rivals/x.png"}}
    (tmp_path / "theirs.jsonl").write_text(json.dumps(theirs))
    with pytest.raises(InvalidRequest, match=r"line 1: .*cannot be used by its address"):
        run("submit", "theirs.jsonl")
    assert run("submit", "bad.jsonl", "--force") == 0
    capsys.readouterr()


def test_what_is_not_there_is_said(world: Batches) -> None:
    for action in ("status", "pause", "download", "retry"):
        with pytest.raises(NotFound, match="there is no batch 'none'"):
            run(action, "none")


def test_the_stack_comes_first_and_without_either_it_is_said_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("COMFY_BASE_URL", BASE)
    monkeypatch.setattr("comfy_serverless.cli.stack.Stack.of", staticmethod(asked.append))
    with pytest.raises(AttributeError):
        run("list", "--stack", "mine")
    assert asked == ["mine"]
    monkeypatch.delenv("COMFY_BASE_URL")
    monkeypatch.delenv("COMFY_STACK", raising=False)
    with pytest.raises(SystemExit):
        run("list")
    assert "COMFY_BASE_URL" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--help")
    assert "with your AWS credentials; without either" in capsys.readouterr().out


def test_a_line_may_name_a_file_that_was_uploaded_before_by_its_name_or_its_id(
    world: Batches, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asset_id = world.asset("set/fox.png", b"fox")
    lines = [{"workflow": LOADS, "inputs": {"1.image": named}} for named in ("set/fox.png", asset_id)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert run("submit", "many.jsonl", "--dry-run") == 0
    assert run("submit", "many.jsonl") == 0
    told_to = capsys.readouterr().err
    assert "'set/fox.png' (1 line) is no file here: it must be the name, or the id, of one that was uploaded" in told_to
    world.look("many")
    assert len(world.work()) == 2
