"""`comfy-serverless run NAME` on the API: what is asked, uploaded, sent, followed and saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli import following, remote
from comfy_serverless.cli.main import main
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.schema import schema_of
from comfy_serverless.workflows.version import NamedInput, NamedOutput, Version
from tests.unit.cli.scripted_api import Asked, ScriptedApi, Told, job, output, scripted_api

PNG = b"\x89PNG\r\n\x1a\n and so on"
VERSION = Version(
    name="poster",
    number=4,
    owner="",
    graph={"10": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}},
    inputs=(
        NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT, default="a fox"),
        NamedInput(name="steps", targets=("3.steps",), kind=InputKind.INTEGER, minimum=1, maximum=50, default=20),
        NamedInput(name="photo", targets=("10.image",), kind=InputKind.FILE, media="image", is_required=True),
    ),
    outputs=(NamedOutput(name="picture", node_id="9"),),
)
DESCRIBED = {
    "name": "poster",
    "source": "own",
    "latest": 4,
    "aliases": {},
    "version": 4,
    "inputs": [one.to_json() for one in VERSION.inputs],
    "outputs": [],
    "schema": schema_of(VERSION),
}


class World:
    """An API that has `poster`."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Asked], Told]] = {}
        self.url = ""

    def __call__(self, asked: Asked) -> Told:
        called = f"{asked.method} {asked.path.partition('?')[0]}"
        if called in self.answers:
            return self.answers[called](asked)
        match called:
            case "GET /api/v2/workflows/poster":
                return Told(body=DESCRIBED)
            case "POST /api/v2/workflows/poster/runs":
                return Told(201, job("queued"))
            case "GET /api/v2/jobs/fox-1":
                return Told(body=job(outputs=[output(PNG, url="/bytes")]))
            case "GET /bytes":
                return Told(body=PNG)
            case "POST /api/v2/uploads":
                return Told(201, {"id": "up-1", "method": "PUT", "url": f"{self.url}/put", "headers": {}})
            case "PUT /put":
                return Told(200)
            case "POST /api/v2/uploads/up-1/complete":
                return Told(201, {"id": "asset-9"})
        return Told(404, {"error": {"code": "not_found", "message": "there is no such thing"}})


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedApi]:
    monkeypatch.setattr(remote, "pause", lambda _: None)
    monkeypatch.setenv("COMFY_API_KEY", "key")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("WORKFLOWS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(PNG)
    with scripted_api(world) as scripted:
        world.url = scripted.url
        monkeypatch.setenv("COMFY_BASE_URL", scripted.url)
        yield scripted


def sent(server: ScriptedApi) -> Asked:
    return next(asked for asked in server.asked if asked.path.partition("?")[0].endswith("/runs"))


def told(server: ScriptedApi, path: str) -> str:
    return next(asked.path for asked in server.asked if asked.path.partition("?")[0] == path).partition("?")[2]


def test_names_are_options_and_files_are_uploaded(
    server: ScriptedApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["run", "poster", "--prompt", "a red fox", "--steps", "8", "--photo", "photo.png", "--label", "a=b"]
    assert main([*line, "--deadline", "60"]) == 0
    assert sent(server).json == {
        "inputs": {
            "prompt": "a red fox",
            "steps": 8,
            "photo": {"__type": "core/ASSET", "info": {"id": "asset-9"}},
        },
        "metadata": {"a": "b"},
        "deadline_s": 60.0,
    }
    assert sent(server).headers["idempotency-key"]
    assert (tmp_path / "out" / "fox_00001_.png").read_bytes() == PNG
    printed = capsys.readouterr()
    assert printed.err.startswith("job fox-1\n")
    assert "1 output in 90.00 s" in printed.out


@pytest.mark.parametrize(
    ("arguments", "which"),
    [
        (["poster"], ""),
        (["poster@staging"], "alias=staging"),
        (["poster", "--alias", "staging"], "alias=staging"),
        (["poster@v3"], "version=3"),
        (["poster", "--version", "3"], "version=3"),
        (["shared/poster"], "source=operator"),
        (["shared/poster@staging"], "alias=staging&source=operator"),
    ],
)
def test_it_says_which_version(server: ScriptedApi, arguments: list[str], which: str) -> None:
    assert main(["run", *arguments, "--photo", "s3://b/c.png", "--sticky", "ana"]) == 0
    assert told(server, "/api/v2/workflows/poster") == which
    asked = told(server, "/api/v2/workflows/poster/runs").split("&")
    assert sorted(asked) == sorted(filter(None, [*which.split("&"), "sticky=ana"]))


def test_a_name_in_a_folder_of_the_image_is_said_to_be_one(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "portraits/old", "--prompt", "x"]) == 1
    assert "run as `workflow` of a request" in capsys.readouterr().err
    assert server.asked == []


def test_two_of_them_are_a_mistake(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "poster@3", "--alias", "live"])
    assert caught.value.code == 2
    assert "which version?" in capsys.readouterr().err
    assert server.asked == []


def test_help_lists_the_inputs_of_that_version(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "poster@staging", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "inputs of poster, version 4" in text
    assert "--steps N (integer from 1 to 50; default: 20)" in text
    assert told(server, "/api/v2/workflows/poster") == "alias=staging"


def test_nothing_is_uploaded_while_something_is_wrong(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "poster", "--photo", "photo.png", "--steps", "900", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["details"]["errors"] == [
        {"field": "inputs.steps", "problem": "takes a whole number from 1 to 50, and 900 is too large"}
    ]
    assert main(["run", "poster", "--photo", "gone.png"]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert main(["run", "poster", "--photo", "photo.png", "--set", "3.seed=5"]) == 1
    assert "--set 3.seed: poster has no such input; it has: prompt, steps, photo" in capsys.readouterr().err
    assert server.paths == ["GET /api/v2/workflows/poster"] * 3


def test_a_slip_of_the_pen_is_answered_with_the_option(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "poster", "--promt", "a fox", "--json"])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert "did you mean --prompt?" in printed.err
    assert json.loads(printed.out)["error"]["code"] == "wrong_usage"


def test_what_the_api_refuses_is_told_with_every_problem(
    server: ScriptedApi, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {
        "code": "invalid_request",
        "message": "no",
        "details": {"errors": [{"field": "inputs.photo", "problem": "x"}]},
    }
    world.answers["POST /api/v2/workflows/poster/runs"] = lambda _: Told(422, {"error": error})
    assert main(["run", "poster", "--photo", "s3://b/c.png", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["details"] == error["details"]


def test_a_workflow_that_nobody_has_is_said_with_the_file_that_has_its_name(
    server: ScriptedApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "other.json").write_text("{}")
    assert main(["run", "other"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("not_found: there is no such thing.")
    assert "`comfy-serverless run workflows/other.json` runs it here" in said


def test_an_interrupt_cancels_the_job_also_while_it_is_sent(
    server: ScriptedApi, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from comfy_serverless.cli.named import registry

    run, sends = registry.run, []

    def interrupted(*arguments: Any, **more: Any) -> Any:
        sends.append(more["idempotency_key"])
        told = run(*arguments, **more)
        if len(sends) == 1:
            raise KeyboardInterrupt
        return told

    monkeypatch.setattr(registry, "run", interrupted)
    world.answers["POST /api/v2/jobs/fox-1/cancel"] = lambda _: Told(body=job("canceled"))
    world.answers["GET /api/v2/jobs/fox-1"] = lambda _: Told(body=job("canceled"))
    assert main(["run", "poster", "--photo", "s3://b/c.png"]) == 130
    assert len(sends) == 2
    assert len(set(sends)) == 1
    assert "POST /api/v2/jobs/fox-1/cancel" in server.paths
    assert "canceled" in capsys.readouterr().err


def test_a_failed_job_is_a_failure(server: ScriptedApi, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"code": "node_execution_error", "message": "Node 3 broke"}
    world.answers["GET /api/v2/jobs/fox-1"] = lambda _: Told(body=job("failed", error=error))
    assert main(["run", "poster", "--photo", "s3://b/c.png"]) == 1
    assert "node_execution_error: Node 3 broke" in capsys.readouterr().err
    assert following.TERMINAL


def test_a_file_of_that_name_is_a_file(server: ScriptedApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "poster").write_text("{}")
    assert main(["run", "poster", "--remote"]) == 1
    with pytest.raises(SystemExit):
        main(["run", "poster", "--prompt", "x"])
    with pytest.raises(SystemExit):
        main(["run", "poster", "--alias", "live"])
    assert "for named workflows" in capsys.readouterr().err
    assert server.asked == []


def test_without_an_api_the_name_is_that_of_a_file_here(
    server: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("COMFY_BASE_URL")
    assert main(["run", "nothing", "--prompt", "x"]) == 1
    assert "there is no file 'nothing', and there is no nothing.json in workflows, ." in capsys.readouterr().err
    (tmp_path / "poster.json").write_text("{}")
    assert main(["run", "poster@3"]) == 1
    assert "is version 0, and has no aliases" in capsys.readouterr().err
    (tmp_path / "portraits").mkdir()
    assert main(["run", "portraits"]) == 1
    assert "'portraits' is a folder, and there is no portraits.json in" in capsys.readouterr().err
    (tmp_path / "portraits" / "old.json").write_text("{}")
    assert main(["run", "portraits/old@staging", "--prompt", "x"]) == 1
    assert "portraits/old.json is version 0, and has no aliases" in capsys.readouterr().err
    assert main(["run", "portraits/new", "--prompt", "x"]) == 1
    assert "no portraits/new.json in workflows, ." in capsys.readouterr().err
    assert main(["run", "poster@a@b"]) == 1
