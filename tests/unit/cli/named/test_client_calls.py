"""A typed client calls the API: what it sends, what it waits for, and how it tells what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.cli.named.client_samples import POSTER
from tests.unit.cli.named.test_client_text import module_of
from tests.unit.cli.scripted_api import Asked, ScriptedApi, Told, job, output, scripted_api

KEY = "sk-very-secret"
PNG = b"\x89PNG\r\n\x1a\n and so on"
RUNS = "POST /api/v2/workflows/poster/runs"


@pytest.fixture(scope="module")
def client() -> Any:
    return module_of(POSTER)


@pytest.fixture(autouse=True)
def pauses(client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    monkeypatch.setenv("COMFY_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    return waited


class World:
    """An API with the workflow `poster`: `answers` says what comes instead, by method and path."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Asked], Told]] = {}
        self.url = ""

    def __call__(self, asked: Asked) -> Told:
        path = asked.path.partition("?")[0]
        called = f"{asked.method} {path}"
        if called in self.answers:
            return self.answers[called](asked)
        match called:
            case "POST /api/v2/workflows/poster/runs":
                return Told(201, job("queued"))
            case "GET /api/v2/jobs/fox-1":
                return Told(
                    body=job(outputs=[output(PNG, url="/bytes")], metadata={"version": "4"}, seeds={"3.seed": 7})
                )
            case "GET /bytes":
                return Told(body=PNG)
            case "POST /api/v2/uploads":
                headers = {"Content-Type": asked.json.get("content_type", "application/octet-stream")}
                return Told(201, {"id": "up-1", "method": "PUT", "url": f"{self.url}/put", "headers": headers})
            case "PUT /put":
                return Told(200)
            case "POST /api/v2/uploads/up-1/complete":
                return Told(201, {"id": "asset-9"})
        return Told(404, {"error": {"code": "not_found", "message": called}})


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApi]:
    with scripted_api(world) as scripted:
        world.url = scripted.url
        monkeypatch.setenv("COMFY_BASE_URL", scripted.url)
        yield scripted


def sent(server: ScriptedApi) -> Any:
    return next(
        asked for asked in server.asked if asked.method == "POST" and asked.path.partition("?")[0].endswith("runs")
    )


def refused(status: int, code: str, **details: Any) -> Callable[[Asked], Told]:
    return lambda _: Told(status, {"error": {"code": code, "message": "it is so", "details": details or None}})


def test_what_is_given_is_sent_by_the_names_of_the_inputs_and_nothing_else(client: Any, server: ScriptedApi) -> None:
    result = client.Poster().run(prompt="a red fox", seed=-1, photo="s3://photos/a.png")
    assert sent(server).json == {"inputs": {"prompt": "a red fox", "seed": -1, "photo": "s3://photos/a.png"}}
    assert sent(server).path.endswith("runs?alias=live")
    assert sent(server).key == f"Bearer {KEY}"
    assert (result.id, result.version, result.seeds) == ("fox-1", "4", {"3.seed": 7})
    assert [one.name for one in result.picture] == ["fox_00001_.png"]
    assert result.outputs[0].bytes() == PNG


def test_options_go_beside_the_inputs(client: Any, server: ScriptedApi) -> None:
    poster = client.Poster().with_options(
        alias="staging",
        sticky="ana&co",
        idempotency_key="order-7",
        metadata={"a": "b"},
        webhook_url="https://x.example",
    )
    poster.with_options(deadline_s=60).run(photo="https://x.example/a.png")
    assert parse_qs(urlsplit(sent(server).path).query) == {"alias": ["staging"], "sticky": ["ana&co"]}
    assert sent(server).headers["idempotency-key"] == "order-7"
    assert {name: value for name, value in sent(server).json.items() if name != "inputs"} == {
        "metadata": {"a": "b"},
        "webhook_url": "https://x.example",
        "deadline_s": 60,
    }


def test_a_version_is_asked_for_by_its_number(client: Any, server: ScriptedApi) -> None:
    client.Poster().with_options(version=2).submit(photo="data:,")
    assert sent(server).path.endswith("runs?version=2")


def test_that_of_an_operators_workflow_runs_the_operators(
    client: Any, server: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.Poster, "_is_shared", True)
    client.Poster().submit(photo="data:,")
    assert parse_qs(urlsplit(sent(server).path).query) == {"alias": ["live"], "source": ["operator"]}


def test_files_on_this_machine_and_bytes_are_uploaded(client: Any, server: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    uploaded = client.Uploaded("asset-1")
    client.Poster().run(photo=tmp_path / "photo.jpg", frames=["photo.jpg", PNG, uploaded, "s3://a/b"])

    def asset(number: int) -> dict[str, object]:
        return {"__type": "core/ASSET", "info": {"id": f"asset-{number}"}}

    assert sent(server).json["inputs"] == {"photo": asset(9), "frames": [asset(9), asset(9), asset(1), "s3://a/b"]}
    puts = [asked for asked in server.asked if asked.method == "PUT"]
    assert [(put.body, put.headers["content-type"], put.key) for put in puts] == [
        (b"\xff\xd8\xff", "image/jpeg", f"Bearer {KEY}"),
        (b"\xff\xd8\xff", "image/jpeg", f"Bearer {KEY}"),
        (PNG, "image/png", f"Bearer {KEY}"),
    ]  # with the key only because this API takes the bytes itself
    begun = [asked.json for asked in server.asked if asked.path == "/api/v2/uploads"]
    assert begun[0] == {"file_path": "photo.jpg", "size_bytes": 3, "content_type": "image/jpeg"}
    assert begun[2]["file_path"].endswith(".png")


def test_a_file_that_is_not_there_is_said_before_anything_is_sent(client: Any, server: ScriptedApi) -> None:
    with pytest.raises(client.ComfyError, match=r"there is no file 'photo.png' on this machine") as caught:
        client.Poster().run(photo="photo.png")
    assert caught.value.code == "missing_asset"
    assert server.asked == []


def test_all_problems_of_the_inputs_are_one_exception(client: Any, server: ScriptedApi, world: World) -> None:
    errors = [{"field": "inputs.cfg", "problem": "is above 100"}, {"field": "inputs.sampler", "problem": "is none"}]
    world.answers[RUNS] = refused(422, "invalid_request", errors=errors)
    with pytest.raises(client.InvalidInputs, match="it is so") as caught:
        client.Poster().run(photo="s3://a/b")
    assert caught.value.problems == {"cfg": "is above 100", "sampler": "is none"}
    assert (caught.value.code, caught.value.status) == ("invalid_request", 422)


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        (Told(404, {"error": {"code": "not_found", "message": "no workflow"}}), "not_found", "no workflow"),
        (Told(403, {"message": "Forbidden"}), "unauthorized", "answered 403: Forbidden"),
        (Told(200, "<html>"), "upstream_error", "<html>"),
        (Told(302, "", {"location": "https://elsewhere.example"}), "upstream_error", "answered 302"),
    ],
)
def test_another_refusal_says_what_the_api_says(
    client: Any, server: ScriptedApi, world: World, told: Told, code: str, words: str
) -> None:
    world.answers[RUNS] = lambda _: told
    with pytest.raises(client.ComfyError, match=words) as caught:
        client.Poster().run(photo="s3://a/b")
    assert caught.value.code == code
    assert server.paths == [RUNS]


def test_what_passes_by_itself_is_sent_again_as_the_same_run(
    client: Any, server: ScriptedApi, world: World, pauses: list[float]
) -> None:
    left = [Told(503), Told(429, {}, {"retry-after": "7"}), Told(200, b"", promised=100)]
    world.answers[RUNS] = lambda _: left.pop(0) if left else Told(201, job())
    client.Poster().run(photo="s3://a/b")
    runs = [asked for asked in server.asked if asked.method == "POST"]
    assert len({asked.headers["idempotency-key"] for asked in runs}) == 1
    assert len(runs) == 4
    assert 7.0 in pauses


def test_an_api_that_does_not_answer_is_said_without_its_password(client: Any) -> None:
    with pytest.raises(
        client.ComfyError, match=r"http://127\.0\.0\.1:9/api/v2/workflows/poster/runs cannot be"
    ) as caught:
        client.Poster(base_url="http://ana:secret@127.0.0.1:9").run(photo="s3://a/b")
    assert caught.value.code == "unreachable"
    assert "secret" not in str(caught.value)


def test_a_job_that_fails_is_an_exception_with_the_job(client: Any, server: ScriptedApi, world: World) -> None:
    error = {"code": "node_execution_error", "message": "Node 3 broke", "node_id": "3"}
    world.answers["GET /api/v2/jobs/fox-1"] = lambda _: Told(body=job("failed", error=error))
    with pytest.raises(client.JobFailed, match="Node 3 broke") as caught:
        client.Poster().run(photo="s3://a/b")
    assert caught.value.code == "node_execution_error"
    assert caught.value.details["node_id"] == "3"
    assert caught.value.job["id"] == "fox-1"


def test_a_job_that_takes_too_long_goes_on_and_can_be_found_and_canceled(
    client: Any, server: ScriptedApi, world: World
) -> None:
    world.answers["GET /api/v2/jobs/fox-1"] = lambda _: Told(body=job("running", progress={"value": 0.5}))
    world.answers["POST /api/v2/jobs/fox-1/cancel"] = lambda _: Told(body=job("canceled"))
    seen: list[tuple[float, str]] = []
    poster = client.Poster().with_options(timeout_s=0.001, on_progress=lambda *told: seen.append(told))
    waiting = poster.submit(photo="s3://a/b")
    with pytest.raises(client.TimedOut) as caught:
        waiting.wait()
    assert caught.value.job_id == "fox-1"
    assert seen[0] == (0.0, "queued")
    assert waiting.cancel() == "canceled"
    with pytest.raises(client.JobFailed, match="canceled"):
        waiting.wait()


def test_outputs_are_saved_under_their_names_and_replace_nothing(
    client: Any, server: ScriptedApi, world: World, tmp_path: Path
) -> None:
    outputs = [output(PNG, url="/bytes"), output(PNG, name="../../evil\\fox.png"), output(PNG, name="..")]
    world.answers["GET /api/v2/jobs/fox-1"] = lambda _: Told(body=job(outputs=outputs))
    world.answers["GET /api/v2/assets/asset-1/content"] = lambda _: Told(302, "", {"location": f"{other.url}/there"})
    with scripted_api(lambda _: Told(body=PNG)) as other:
        result = client.Poster().run(photo="s3://a/b")
        paths = [str(path) for path in result.save("out") + result.save("out")]
        assert [asked.key for asked in other.asked] == [None] * 4
    assert paths[:2] == ["out/fox_00001_.png", "out/fox.png"]
    assert paths[3:5] == ["out/fox_00001__1.png", "out/fox_1.png"]
    assert len(set(paths)) == 6
    assert {path.read_bytes() for path in (tmp_path / "out").iterdir()} == {PNG}


def test_half_an_output_is_no_output(client: Any, server: ScriptedApi, world: World, tmp_path: Path) -> None:
    world.answers["GET /bytes"] = lambda _: Told(200, PNG, promised=1000)
    result = client.Poster().run(photo="s3://a/b")
    with pytest.raises(client.ComfyError, match="cannot be reached"):
        result.save("out")
    assert list((tmp_path / "out").iterdir()) == []


def test_all_pages_of_outputs_are_read(client: Any, server: ScriptedApi, world: World) -> None:
    world.answers["GET /api/v2/jobs/fox-1"] = lambda _: Told(body=job(outputs=[output(PNG)], outputs_total=2))
    pages = [{"outputs": [output(PNG, name="a")], "next_cursor": "n&t"}, {"outputs": [output(PNG, name="b")]}]
    world.answers["GET /api/v2/jobs/fox-1/outputs"] = lambda _: Told(body=pages.pop(0))
    assert [one.name for one in client.Poster().run(photo="s3://a/b").outputs] == ["a", "b"]
    assert "cursor=n%26t" in server.asked[-1].path


@pytest.mark.parametrize(("url", "key"), [("", KEY), ("ftp://x", KEY), ("http://127.0.0.1:1", "two\nlines")])
def test_it_says_what_is_not_set(client: Any, monkeypatch: pytest.MonkeyPatch, url: str, key: str) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", url)
    monkeypatch.setenv("COMFY_API_KEY", key)
    with pytest.raises(client.ComfyError, match="COMFY_"):
        client.Poster()


def test_the_key_is_in_no_text_of_it(client: Any, server: ScriptedApi) -> None:
    poster = client.Poster()
    assert KEY not in repr(poster._options) + json.dumps(vars(poster), default=repr)
