"""`batch run NAME --each FILES` for a workflow that was pushed: its inputs are those that the API tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.batches.each import manifest_for
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.schema import schema_of
from comfy_serverless.workflows.version import NamedInput, Version
from tests.unit.cli.scripted_api import Asked, ScriptedApi, Told, scripted_api

PHOTO = NamedInput(name="photo", targets=("10.image",), kind=InputKind.FILE, media="image", is_required=True)
MASK = NamedInput(name="mask", targets=("11.image",), kind=InputKind.FILE, media="image")
SOUND = NamedInput(name="sound", targets=("12.audio",), kind=InputKind.FILE, media="audio")
PROMPT = NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT, default="a fox")
STEPS = NamedInput(name="steps", targets=("3.steps",), kind=InputKind.INTEGER, default=20, minimum=1, maximum=40)


class World:
    """An API that has `poster`."""

    def __init__(self) -> None:
        self.inputs: tuple[NamedInput, ...] = (PROMPT, PHOTO, MASK, SOUND, STEPS)

    def __call__(self, asked: Asked) -> Told:
        if asked.path.partition("?")[0] != "/api/v2/workflows/poster":
            return Told(404, {"error": {"code": "not_found", "message": "there is no such thing"}})
        version = Version(name="poster", number=4, owner="ana", graph={}, inputs=self.inputs)
        told = {"name": "poster", "version": 4, "schema": schema_of(version)}
        return Told(body={**told, "inputs": [one.to_json() for one in self.inputs]})


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedApi]:
    with scripted_api(world) as api:
        monkeypatch.setenv("COMFY_BASE_URL", api.url)
        monkeypatch.setenv("COMFY_API_KEY", "key")
        monkeypatch.chdir(tmp_path)
        for name in ("a.jpg", "b.jpg", "c.wav"):
            (tmp_path / name).write_bytes(b"x")
        yield api


def lines(*, workflow: str = "poster", each: str = "*.jpg", **more: Any) -> list[dict[str, Any]]:
    given: dict[str, Any] = {"folder": None, "address": None, "values": [], "labels": {}, "name": None, "path": None}
    made = manifest_for(workflow, [each], **(given | more))
    return [json.loads(line) for line in made.path.read_text().splitlines()]


def test_each_file_goes_to_the_input_that_needs_one(server: ScriptedApi) -> None:
    assert [line["inputs"] for line in lines()] == [{"photo": "a.jpg"}, {"photo": "b.jpg"}]


def test_a_file_goes_to_the_input_of_its_kind_or_the_one_that_is_named(server: ScriptedApi, world: World) -> None:
    world.inputs = (PROMPT, MASK, SOUND)
    assert lines(each="c.wav")[0]["inputs"] == {"sound": "c.wav"}
    assert lines(each="a.jpg", address="mask")[0]["inputs"] == {"mask": "a.jpg"}


def test_values_are_given_by_name_and_typed(server: ScriptedApi) -> None:
    line = lines(each="a.jpg", values=["steps=30", "prompt=42"], labels={"of": "autumn"}, workflow="poster@staging")[0]
    assert line == {
        "workflow": "poster@staging",
        "inputs": {"photo": "a.jpg", "steps": 30, "prompt": "42"},
        "metadata": {"of": "autumn"},
    }


def test_everything_that_does_not_fit_is_said_at_once(server: ScriptedApi, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        lines(values=["steps=400", "photo=x.jpg", "prompt=x"], address="mask")
    assert "steps" in refused.value.message
    assert not list(tmp_path.glob("*.jsonl"))
    with pytest.raises(InvalidRequest, match="it has: prompt, photo"):
        lines(values=["promt=x"])
    with pytest.raises(InvalidRequest, match="did you mean 'photo'"):
        lines(address="foto")


def test_where_it_is_not_clear_the_inputs_are_named(server: ScriptedApi, world: World) -> None:
    world.inputs = (MASK, NamedInput(name="other", targets=("13.image",), kind=InputKind.FILE, media="image"))
    with pytest.raises(InvalidRequest, match=r"--input which\. Those for files: mask, other"):
        lines()


def test_a_name_that_nobody_has_is_said_with_what_helps(server: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="neither a file nor known here"):
        lines(workflow="nothing")
    monkeypatch.delenv("COMFY_BASE_URL")
    with pytest.raises(InvalidRequest, match="If it was pushed, COMFY_BASE_URL"):
        lines()


def test_files_that_are_not_there_are_said(server: ScriptedApi) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        lines(each="*.png")
