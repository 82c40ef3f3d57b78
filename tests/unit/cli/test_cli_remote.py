"""The command line and the API: what is sent where, what is sent again, and how an answer that is no good is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli import following, remote
from comfy_serverless.cli.main import main
from comfy_serverless.cli.remote_events import frames
from comfy_serverless.errors import (
    Canceled,
    ComfyError,
    InvalidRequest,
    InvalidWorkflow,
    NodeExecutionError,
    RateLimited,
    Unauthorized,
    UpstreamError,
)
from tests.unit.cli.scripted_api import Asked, ScriptedApi, Told, job, output, scripted_api

KEY = "sk-very-secret"
PROXIES = [name for stem in ("http_proxy", "https_proxy", "no_proxy", "all_proxy") for name in (stem, stem.upper())]
BUSY = {"error": {"code": "rate_limited", "message": "too many", "details": None}}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """What is waited for, without waiting; and an environment with nothing in it but the key."""
    waited: list[float] = []
    monkeypatch.setattr(remote, "pause", waited.append)
    for name in (*PROXIES, "COMFY_STACK", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMFY_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return waited


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApi]:
    with scripted_api(lambda _asked: Told(body=job())) as scripted:
        monkeypatch.setenv("COMFY_BASE_URL", scripted.url)
        yield scripted


def api() -> remote.Api:
    return remote.Api.from_environment()


def in_turn(*answers: Told) -> Any:
    """Each answer once, and the last one from then on."""
    left = list(answers)
    return lambda _asked: left.pop(0) if len(left) > 1 else left[0]


# What is sent again.


@pytest.mark.parametrize(
    "first",
    [
        [Told(503)],
        [Told(502, "<html>")],
        [Told(504), Told(503), Told(502)],
        [Told(429, BUSY)],
        [Told(429, {"message": "Too Many Requests"})],
    ],
)
def test_what_passes_by_itself_is_asked_again(server: ScriptedApi, first: list[Told]) -> None:
    server.answer = in_turn(*first, Told(body=job()))
    assert remote.job(api(), "fox-1")["status"] == "succeeded"
    assert len(server.asked) == len(first) + 1


def test_what_no_waiting_brings_is_said_at_once(server: ScriptedApi) -> None:
    """Nodes that nobody has told of: a job makes them known."""
    untold = {"error": {"code": "engine_unavailable", "message": "run a job first", "details": None}}
    server.answer = lambda _: Told(503, untold)
    with pytest.raises(ComfyError, match="run a job first"):
        remote.job(api(), "fox-1")
    assert len(server.asked) == 1


def test_it_waits_as_long_as_it_is_asked_to(
    server: ScriptedApi, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = in_turn(Told(429, BUSY, {"retry-after": "60"}), Told(body=job()))
    remote.job(api(), "fox-1")
    assert pauses == [60.0]
    assert "answers 429: asked again in 60 s" in capsys.readouterr().err


@pytest.mark.parametrize("retry_after", ["", "20", "7200", "Thu, 01 Jan 2099 00:00:00 GMT", "soon"])
def test_what_does_not_pass_is_given_up_in_time(server: ScriptedApi, pauses: list[float], retry_after: str) -> None:
    server.answer = in_turn(Told(429, BUSY, {"retry-after": retry_after} if retry_after else {}))
    with pytest.raises(RateLimited, match="too many"):
        remote.job(api(), "fox-1")
    assert sum(pauses) <= remote.PATIENCE_S
    assert len(server.asked) <= len(remote.PAUSES_S) + 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 501])
def test_nothing_else_is_asked_again(server: ScriptedApi, status: int) -> None:
    server.answer = in_turn(Told(status, {"error": {"code": "invalid_request", "message": "no"}}))
    with pytest.raises(ComfyError):
        remote.job(api(), "fox-1")
    assert len(server.asked) == 1


def test_a_job_whose_answer_was_lost_is_sent_again_as_the_same_job(server: ScriptedApi) -> None:
    server.answer = in_turn(Told(200, b"", promised=100), Told(202, job("queued")))
    assert remote.submit(api(), {"job_id": "fox-1", "workflow": {}})["status"] == "queued"
    assert [asked.json["job_id"] for asked in server.asked] == ["fox-1", "fox-1"]
    assert server.asked[0].json["wait_s"] == 0


# How answers are told.


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        (Told(422, {"error": {"code": "invalid_workflow", "message": "Node 3"}}), "invalid_workflow", "Node 3"),
        (Told(404, {"error": {"code": "not_found", "message": "no job"}}), "not_found", "no job"),
        (Told(402, {"error": {"code": "insufficient_credits", "message": "pay"}}), "upstream_error", "insufficient_"),
        (Told(401, {"message": "Unauthorized"}), "unauthorized", "does not accept the key in COMFY_API_KEY"),
        (Told(403, {"message": "Forbidden"}), "forbidden", "does not accept the key in COMFY_API_KEY"),
        (Told(413, {"message": "Request Too Long"}), "payload_too_large", "--input"),
        (Told(404, {"message": "Not Found"}), "not_found", "is COMFY_BASE_URL right?"),
        (Told(404, "<html>nginx"), "not_found", "is no Comfy API"),
        (Told(200, "<html>\x1b[2Jhello"), "upstream_error", "\\x1b[2Jhello"),
        (Told(200, "[1]"), "upstream_error", "has answered 200"),
        (Told(200, {"hello": "world"}), "upstream_error", "has answered 200"),
        (Told(500, ""), "upstream_error", "has answered 500"),
        (Told(302, "", {"location": "https://u:p@sso.example/in?t=1"}), "invalid_request", "https://sso.example/in?…"),
        (Told(301, "", {"location": "/v3"}), "invalid_request", "set COMFY_BASE_URL"),
    ],
)
def test_a_refusal_is_an_error_of_ours_with_its_code_and_words(
    server: ScriptedApi, told: Told, code: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = in_turn(told)
    assert main(["jobs", "show", "fox-1", "--json"]) == 1
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert printed.err.startswith(f"{code}: ")
    assert KEY not in printed.out + printed.err


def test_without_a_key_it_is_asked_for(
    server: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COMFY_API_KEY")
    server.answer = in_turn(Told(401, {"message": "Unauthorized"}))
    assert main(["jobs", "ls"]) == 1
    assert "set COMFY_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"COMFY_BASE_URL": ""}, "set COMFY_BASE_URL"),
        ({"COMFY_BASE_URL": "ftp://x"}, "set COMFY_BASE_URL"),
        ({"COMFY_BASE_URL": '"http://127.0.0.1:9"'}, "COMFY_BASE_URL has quotation marks"),
        ({"COMFY_API_KEY": "'sk'"}, "COMFY_API_KEY has quotation marks"),
        ({"COMFY_BASE_URL": "api.example"}, "set COMFY_BASE_URL"),
        ({"COMFY_BASE_URL": "http://[::1"}, "set COMFY_BASE_URL"),
        ({"COMFY_BASE_URL": "http://x:99999"}, "set COMFY_BASE_URL"),
        ({"COMFY_API_KEY": "a\nb"}, "COMFY_API_KEY has characters"),
        ({"COMFY_API_KEY": "schlüssel"}, "COMFY_API_KEY has characters"),
        ({"COMFY_BASE_URL": "http://ana:pass-word@127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ({"COMFY_BASE_URL": "http://127.0.0.1:9"}, "Connection refused"),
        ({"COMFY_BASE_URL": "http://nowhere.invalid"}, "http://nowhere.invalid cannot be reached"),
    ],
)
@pytest.mark.parametrize("command", [("jobs", "ls"), ("jobs", "cancel", "x"), ("upload", "photo.png")])
def test_an_environment_that_leads_nowhere_is_told(
    command: tuple[str, ...],
    variables: dict[str, str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pauses: list[float],
) -> None:
    (tmp_path / "photo.png").write_bytes(b"1")
    for name, value in {"COMFY_BASE_URL": "http://127.0.0.1:9", **variables}.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 1
    printed = capsys.readouterr()
    assert words in printed.err
    assert "pass-word" not in printed.out + printed.err
    assert len(pauses) <= 3, "an address that is wrong is told soon"


@pytest.mark.parametrize("behind", ["/", "/api/v2", "/api/v2/"])
def test_what_people_write_behind_the_address_is_no_other_api(
    server: ScriptedApi, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", f"{server.url}{behind}")
    remote.job(api(), "fox-1")
    assert server.paths == ["GET /api/v2/jobs/fox-1"]


def test_what_comfyui_itself_writes_goes_to_the_api_as_it_is(server: ScriptedApi) -> None:
    """Its pictures have `"is_changed": [NaN]`, which JSON does not have and the API takes."""
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "is_changed": [float("nan")]}}
    remote.submit(api(), {"job_id": "fox-1", "workflow": graph})
    assert b'"is_changed": [NaN]' in server.asked[0].body
    assert server.asked[0].headers["content-type"] == "application/json"


# Where the key goes.


def test_the_key_goes_to_the_api_and_to_nobody_else(
    server: ScriptedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ana password netrc-word\n")
    (tmp_path / ".netrc").chmod(0o600)
    content = b"a picture"
    with scripted_api(lambda _asked: Told(body=content)) as elsewhere:
        made = output(content, url=f"{elsewhere.url}/signed?X-Amz-Signature=1")

        def answer(asked: Asked) -> Told:
            if asked.path.endswith("/content"):
                return Told(302, "", {"location": f"{elsewhere.url}/fresh?X-Amz-Signature=2"})
            return Told(body=job(outputs=[made]))

        server.answer = answer
        assert main(["jobs", "download", "fox-1", "--out", "o"]) == 0
        made["url"] = None  # then by the API's own route
        assert main(["jobs", "download", "fox-1", "--out", "o"]) == 0
    assert {asked.key for asked in server.asked} == {f"Bearer {KEY}"}
    assert [asked.path for asked in elsewhere.asked] == ["/signed?X-Amz-Signature=1", "/fresh?X-Amz-Signature=2"]
    assert {asked.key for asked in elsewhere.asked} == {None}
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["fox_00001_.png", "fox_00002_.png"]


def test_a_redirect_of_the_api_is_not_followed(server: ScriptedApi) -> None:
    with scripted_api(lambda _asked: Told(body=job())) as elsewhere:
        server.answer = in_turn(Told(307, "", {"location": f"{elsewhere.url}/api/v2/jobs"}))
        for operation in (remote.job, remote.cancel):
            with pytest.raises(InvalidRequest, match="COMFY_BASE_URL"):
                operation(api(), "fox-1")
    assert elsewhere.asked == []


def test_proxies_of_the_environment_are_used_but_never_for_this_machine(
    server: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_api(lambda _asked: Told(body=job())) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        remote.job(api(), "here")
        assert proxy.asked == []
        monkeypatch.setenv("COMFY_BASE_URL", "http://api.example/mounted")
        remote.job(api(), "there")
        assert [asked.path for asked in proxy.asked] == ["http://api.example/mounted/api/v2/jobs/there"]
        monkeypatch.setenv("no_proxy", "api.example")
        with pytest.raises(UpstreamError, match=r"api\.example/mounted cannot be reached"):
            remote.job(api(), "there")
        assert len(proxy.asked) == 1


# Following.


def sse(*events: tuple[str, object]) -> Told:
    body = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in events)
    return Told(body=body, headers={"content-type": "text/event-stream"})


def test_events_are_shown_and_the_job_itself_says_how_it_ended(server: ScriptedApi) -> None:
    ended = job(outputs=[output(b"")])
    stream = sse(
        ("status", {"status": "running"}),
        ("progress", {"value": 0.5, "nodes_done": 1, "nodes_total": 2, "message": "KSampler 1/2"}),
        ("preview", {"data_base64": "x" * 10_000}),
        ("status", {"status": "succeeded"}),
    )
    server.answer = in_turn(Told(body=job("queued")), stream, Told(body=ended))
    shown: list[tuple[float, str]] = []
    assert following.follow(api(), "fox-1", lambda *seen: shown.append(seen)) == ended
    assert (0.5, "KSampler 1/2") in shown
    assert shown[0] == (0.0, "queued")


@pytest.mark.parametrize(
    "events",
    [Told(501, {"error": {"code": "not_implemented", "message": "no"}}), Told(404), Told(429, BUSY), Told(200, "{}")],
)
def test_where_there_are_no_events_the_job_is_asked_and_that_is_said(
    server: ScriptedApi, events: Told, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = iter(["queued", "running", "running", "running", "running", "running", "failed"])
    server.answer = lambda request: events if request.path.endswith("/events") else Told(body=job(next(asked)))
    assert following.follow(api(), "fox-1", lambda *_: None)["status"] == "failed"
    assert pauses == [1.0] * 6
    assert server.paths.count("GET /api/v2/jobs/fox-1/events") == 3, "no more are tried for a minute"
    assert capsys.readouterr().err.count("No live events (") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (": hello\n\n", []),
        ('event: status\ndata: {"a": 1}\n\n', [("status", {"a": 1})]),
        ('data: {"a":\ndata: 1}\n\n', [("message", {"a": 1})]),
        ("event: x\ndata: no json\n\n", []),
        ("event: x\ndata: [1]\n\n", []),
        ('event: x\ndata: {"a": 1}', []),
        ('event:x\ndata:{"a": 1}\nid: 3\nretry: 5\n\n', [("x", {"a": 1})]),
    ],
)
def test_frames(text: str, expected: list[tuple[str, object]]) -> None:
    assert [(event.kind, event.data) for event in frames(text.split("\n"))] == expected


def test_a_stream_that_ends_goes_on_behind_the_last_event(
    server: ScriptedApi, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(following, "_SHORT_STREAM_S", 0.0)
    running = Told(body=job("running"))
    first = Told(
        body='event: progress\ndata: {"value": 0.5}\nid: one\n\nevent: output\ndata: {}\nid: two\n\n',
        headers={"content-type": "text/event-stream"},
        promised=10_000,  # it breaks off
    )
    server.answer = in_turn(running, first, running, sse(("status", {"status": "succeeded"})), Told(body=job()))
    following.follow(api(), "fox-1", lambda *_: None)
    asked = [one for one in server.asked if one.path.endswith("/events")]
    assert [one.headers.get("last-event-id") for one in asked] == [None, "two"]


def test_a_link_to_another_place_is_followed_without_the_key(server: ScriptedApi, pauses: list[float]) -> None:
    with scripted_api(lambda _: sse(("status", {"status": "succeeded"}))) as streaming:
        links = {"events": f"{streaming.url}/live/api/v2/jobs/fox-1/events?token=t"}
        server.answer = in_turn(Told(body=job("running", urls=links)), Told(body=job()))
        following.follow(api(), "fox-1", lambda *_: None)
        (asked,) = streaming.asked
        assert (asked.path, asked.key) == ("/live/api/v2/jobs/fox-1/events?token=t", None)
        assert server.paths == ["GET /api/v2/jobs/fox-1"] * 2
    assert pauses == []


def test_streams_that_fail_are_tried_again_after_a_minute_and_told_once() -> None:
    streams = following.Streams()
    for now in (0.0, 1.0, 2.0):
        assert streams.is_due(now)
        streams.ended(now, now + 0.9, "refused", has_told=False)  # a slow refusal is one, too
    assert streams.is_given_up
    assert not streams.is_due(30.0)
    assert streams.is_due(63.0)
    streams.ended(63.0, 63.1, "refused", has_told=False)
    assert not streams.is_given_up, "it was said"
    assert streams.is_due(124.0)
    assert streams.ended(124.0, 200.0, None, has_told=True) == 0.0, "a good one: the job is asked at once"
    assert streams.is_due(200.0)


def test_ctrl_c_leaves_a_watched_job_to_itself(
    server: ScriptedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    server.answer = lambda _: Told(body=job("running"))
    monkeypatch.setattr(following, "events", interrupted)
    assert main(["jobs", "watch", "fox-1"]) == 130
    assert "goes on without you" in capsys.readouterr().err
    assert server.paths == ["GET /api/v2/jobs/fox-1"], "nothing is canceled"


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        (job("canceled"), Canceled, "was canceled"),
        (job("expired"), ComfyError, "submit it again"),
        (job("failed"), UpstreamError, "does not say why"),
        (
            job("failed", error={"code": "node_execution_error", "message": "boom", "node_id": "3"}),
            NodeExecutionError,
            "boom",
        ),
        (job("failed", error={"code": "new_code", "message": "boom"}), UpstreamError, "new_code: boom"),
    ],
)
def test_an_end_that_is_no_success_is_an_error(document: dict[str, Any], kind: type[ComfyError], words: str) -> None:
    failure = following.failure_of(document)
    assert isinstance(failure, kind)
    assert words in failure.message
    assert following.failure_of(job()) is None


# Downloads.


class Store:
    """Serves bytes in ranges, and breaks off after some of them."""

    def __init__(self, content: bytes, *, piece: int) -> None:
        self.content, self.piece = content, piece

    def __call__(self, asked: Asked) -> Told:
        if not asked.path.startswith("/file"):
            return Told(body=job(outputs=[self.made(asked)]))
        start = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = self.content[start:]
        return Told(206 if start else 200, rest[: self.piece], promised=len(rest))

    def made(self, asked: Asked) -> dict[str, Any]:
        digest = hashlib.sha256(self.content).hexdigest()
        return output(self.content, url=f"http://{asked.headers['host']}/file", sha256=digest)


def test_a_download_that_breaks_off_goes_on_where_it_was(server: ScriptedApi, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    server.answer = Store(content, piece=70_000)
    assert main(["jobs", "download", "fox-1", "--out", "o"]) == 0
    assert (tmp_path / "o" / "fox_00001_.png").read_bytes() == content
    assert server.paths.count("GET /file") == 4


def test_a_download_that_breaks_off_for_good_leaves_no_half_file(
    server: ScriptedApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = Store(b"content", piece=0)
    assert main(["jobs", "download", "fox-1", "--out", "o", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "delivery_failed"
    assert "broken off" in error["message"]
    assert list((tmp_path / "o").iterdir()) == []


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size_bytes": 3}])
def test_other_bytes_than_the_job_has_made_are_refused(
    server: ScriptedApi, tmp_path: Path, wrong: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = output(b"content", url=f"{server.url}/file", **wrong)
    server.answer = lambda asked: Told(body=b"content" if asked.path == "/file" else job(outputs=[made]))
    assert main(["jobs", "download", "fox-1", "--out", "o"]) == 1
    assert "not what the job has made" in capsys.readouterr().err
    assert list((tmp_path / "o").iterdir()) == []


def test_a_link_that_has_expired_is_made_anew(server: ScriptedApi, tmp_path: Path) -> None:
    made = output(b"content", url=f"{server.url}/old")

    def answer(asked: Asked) -> Told:
        match asked.path:
            case "/old":
                return Told(403, "<Error>Request has expired</Error>")
            case "/new":
                return Told(body=b"content")
            case "/api/v2/assets/asset-1/content":
                return Told(302, "", {"location": "/new"})
        return Told(body=job(outputs=[made]))

    server.answer = answer
    assert main(["jobs", "download", "fox-1", "--out", "o"]) == 0
    assert (tmp_path / "o" / "fox_00001_.png").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "", "a\\b.png", "a\x00b.png", "\x1b[2J.png", None])
def test_a_name_from_elsewhere_stays_in_the_folder(server: ScriptedApi, tmp_path: Path, name: str | None) -> None:
    made = output(b"content", url=f"{server.url}/file", name=name)
    server.answer = lambda asked: Told(body=b"content" if asked.path == "/file" else job(outputs=[made]))
    assert main(["jobs", "download", "fox-1", "--out", "o"]) == 0
    (path,) = (tmp_path / "o").iterdir()
    assert path.name.isprintable()
    assert [entry.name for entry in tmp_path.iterdir()] == ["o"]


def test_more_outputs_than_a_job_lists_come_page_by_page(server: ScriptedApi, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Told:
        path, _, query = asked.path.partition("?")
        if path == "/file":
            return Told(body=b"content")
        if path.endswith("/outputs"):
            start = 2 if "cursor=2" in query else 0
            page = [output(b"content", url=f"{server.url}/file", name=f"{start + n}.png") for n in range(2)]
            return Told(body={"outputs": page, **({} if start else {"next_cursor": "2"})})
        return Told(body=job(outputs=[output(b"")], outputs_total=4))

    server.answer = answer
    assert main(["jobs", "download", "fox-1", "--out", "o"]) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]


# Lists.


def test_lists_are_filtered_by_the_api_and_go_on_over_pages(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"id": "fox-1", "status": "failed", "created_at": "2026-01-31T12:00:00.000Z", "metadata": {"a": "b=c"}}
    pages = in_turn(Told(body={"jobs": [entry] * 100, "next_cursor": "two"}), Told(body={"jobs": [entry] * 20}))
    server.answer = pages
    assert main(["jobs", "ls", "--status", "failed", "--label", "a=b=c", "--limit", "150", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (len(listed["jobs"]), listed["next_cursor"]) == (120, None)
    first, second = (asked.path for asked in server.asked)
    assert first == ("/api/v2/jobs?limit=100&status=failed&expand=outputs%2Cprogress%2Cerror&metadata%5Ba%5D=b%3Dc")
    assert "limit=50&cursor=two" in second


def test_a_list_says_how_it_goes_on(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {**job(), "metadata": {"campaign": "autumn \x1b[2J"}}
    server.answer = in_turn(Told(body={"jobs": [entry], "next_cursor": "more"}))
    assert main(["jobs", "ls", "--limit", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split() == ["id", "status", "created", "took", "files", "what", "labels"]
    assert "1:30" in printed.out
    assert "\x1b" not in printed.out
    assert "--cursor more" in printed.err


def test_a_list_says_how_far_jobs_are_and_why_they_failed(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    error = {"code": "node_error", "message": f"no room\n\x1b[2J{'x' * 500}", "class_type": "KSampler"}
    progress = {"value": 0.5, "nodes_done": 1, "nodes_total": 2, "message": "KSampler, step 5 of 10"}
    jobs = [
        {**job("failed"), "error": error, "outputs": [], "outputs_total": 0, "progress": progress},
        {**job("running"), "completed_at": None, "progress": progress, "error": None, "outputs_total": 0},
        {**job("succeeded"), "progress": progress, "error": None, "outputs": [{}], "outputs_total": 12},
    ]
    server.answer = in_turn(Told(body={"jobs": jobs}))
    assert main(["jobs", "ls"]) == 0
    failed, running, succeeded = (line for line in capsys.readouterr().out.splitlines() if "fox-1" in line)
    assert "node_error at KSampler: no room" in failed
    assert "…" in failed
    assert "\x1b" not in failed
    assert "50% KSampler, step 5 of 10" in running
    assert succeeded.endswith(" 12")
    assert "%" not in succeeded


def test_an_api_that_knows_no_expand_is_asked_without(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    refusal = {"code": "invalid_request", "message": "The request cannot be used: query.expand: is no parameter"}
    server.answer = in_turn(Told(422, {"error": refusal}), Told(body={"jobs": [job()]}))
    assert main(["jobs", "ls"]) == 0
    assert "fox-1" in capsys.readouterr().out
    assert "expand" not in server.asked[1].path


def test_the_log_of_a_job_is_read_with_a_key_alone(server: ScriptedApi, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["got prompt", "\x1b[2Jout of memory"]
    server.answer = lambda _: Told(body={"lines": lines, "is_complete": True, "note": None})
    assert main(["jobs", "logs", "fox-1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert (printed[0], "\x1b" in printed[1], "out of memory" in printed[1]) == ("got prompt", False, True)
    assert main(["jobs", "logs", "fox-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"] == lines
    assert {asked.path for asked in server.asked} == {"/api/v2/jobs/fox-1/log"}


def test_a_log_is_waited_for_with_follow_and_says_why_there_is_none(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str], pauses: list[float]
) -> None:
    states = iter(["running", "running", "succeeded"])

    def answer(asked: Any) -> Told:
        if asked.path.endswith("/log"):
            return Told(body={"lines": [], "is_complete": False, "note": "KEEP_LOGS keeps others"})
        return Told(404) if asked.path.endswith("/events") else Told(body=job(next(states)))

    server.answer = answer
    assert main(["jobs", "logs", "fox-1", "--follow"]) == 0
    assert "KEEP_LOGS keeps others" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["jobs", "logs", "fox-1", "--since", "1d"])
    assert "--stack NAME" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("canceled", 130), ("expired", 1)])
def test_watching_ends_as_the_job_does(
    server: ScriptedApi, status: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = in_turn(Told(body=job(status)))
    assert main(["jobs", "watch", "fox-1", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["status"] == status


def test_a_job_runs_again_once_however_often_the_answer_is_lost(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = in_turn(Told(503), Told(201, {**job("queued"), "id": "fox-2", "warnings": ["it runs without"]}))
    assert main(["jobs", "again", "fox/1", "--seed", "new"]) == 0
    first, second = server.asked
    assert (second.method, second.path) == ("POST", "/api/v2/jobs/fox%2F1/again")
    assert second.json == {"seed": "new"}
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    said = capsys.readouterr().err
    assert "Note: it runs without." in said
    assert "jobs watch fox-2" in said
    assert main(["jobs", "again", "fox-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "fox-2"
    assert server.asked[-1].json == {"seed": "same"}


def test_of_several_jobs_one_that_is_unknown_costs_the_others_nothing(
    server: ScriptedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = Told(404, {"error": {"code": "not_found", "message": "there is no job"}})
    server.answer = lambda asked: unknown if "/b/" in asked.path else Told(body=job("canceling"))
    assert main(["jobs", "cancel", "a", "b", "c", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (len(answer["jobs"]), [error["job_id"] for error in answer["errors"]]) == (2, ["b"])


# run --remote.

CANCELING = Told(body=job("canceling"))
UNKNOWN = Told(404, {"error": {"code": "not_found", "message": "there is no job"}})

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
    "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "area", "scale_by": 0.5}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "fox"}, "_meta": {"title": "P"}},
}


class Service:
    """The routes that a run needs: uploads, the job, its output."""

    def __init__(self, url: str, *, ends: dict[str, Any]) -> None:
        self.url, self.ends = url, ends
        self.has_bytes = False

    def __call__(self, asked: Asked) -> Told:
        path = asked.path.partition("?")[0]
        if path.startswith("/api/v2/assets/by-hash/"):
            return Told(200 if self.has_bytes else 404)
        if path == "/api/v2/assets/from-hash":
            return Told(201, {"id": "known-asset"})
        if path == "/api/v2/uploads":
            target = {"id": "up-1", "method": "PUT", "url": f"{self.url}/put?X-Amz-Signature=1", "headers": {"a": "b"}}
            return Told(201, target)
        if path == "/api/v2/uploads/up-1/complete":
            return Told(201, {"id": "new-asset"})
        if path == "/generate":
            return Told(202, job("queued", id=asked.json["job_id"]))
        if path == "/file":
            return Told(body=b"content")
        if path.endswith("/events"):
            return sse(("status", {"status": self.ends["status"]}))
        return Told(body=self.ends)


@pytest.fixture
def workflow(tmp_path: Path) -> str:
    (tmp_path / "photo.png").write_bytes(b"a photo")
    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    return "w.json"


def submitted(server: ScriptedApi) -> Any:
    (asked,) = [asked for asked in server.asked if asked.path == "/generate"]
    return asked.json


def test_a_run_uploads_submits_follows_and_downloads(
    server: ScriptedApi, workflow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = output(b"content", url=f"{server.url}/file")
    server.answer = Service(
        server.url, ends=job(outputs=[made], seeds={"3.seed": 5}, warnings=["w"], engine="ComfyUI 1")
    )
    command = ["run", workflow, "--remote", "--input", "1.image=photo.png", "--set", "scale_by=0.25", "--json"]
    assert main([*command, "--label", "campaign=autumn", "--deadline", "90", "--out", "o"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["outputs"][0] == {
        "node_id": "9",
        "class_type": "SaveImage",
        "title": "Picture",
        "index": 0,
        "type": "image",
        "content_type": "image/png",
        "size_bytes": 7,
        "path": "o/fox_00001_.png",
    }
    assert (result["seeds"], result["total_ms"], result["warnings"][-1]) == ({"3.seed": 5}, 90_000.0, "w")
    sent = submitted(server)
    assert sent["workflow"]["1"]["inputs"]["image"] == {"__type": "core/ASSET", "info": {"id": "new-asset"}}
    assert sent["workflow"]["2"]["inputs"]["scale_by"] == 0.25
    assert (sent["metadata"], sent["deadline_s"], sent["wait_s"]) == ({"campaign": "autumn"}, 90, 0)
    (put,) = [asked for asked in server.asked if asked.method == "PUT"]
    assert (put.body, put.key, put.headers["a"]) == (b"a photo", None, "b")
    assert (tmp_path / "o" / "fox_00001_.png").read_bytes() == b"content"


def test_a_file_is_sent_once_and_not_at_all_if_the_api_has_it(server: ScriptedApi, workflow: str) -> None:
    service = Service(server.url, ends=job())
    service.has_bytes = True
    server.answer = service
    inputs = ["--input", "1.image=photo.png", "--input", "1.image=photo.png", "--input", "1.image=photo.png"]
    assert main(["run", workflow, "--remote", *inputs]) == 0
    assert (
        submitted(server)["workflow"]["1"]["inputs"]["image"]
        == [{"__type": "core/ASSET", "info": {"id": "known-asset"}}] * 3
    )
    assert server.paths.count("POST /api/v2/assets/from-hash") == 1
    assert not [path for path in server.paths if path.startswith("PUT")]


def test_addresses_and_a_mask_go_along(server: ScriptedApi, workflow: str) -> None:
    server.answer = Service(server.url, ends=job())
    inputs = ["--input", "1.image=https://example.org/a.png", "--input", "1.mask=photo.png"]
    assert main(["run", workflow, "--remote", *inputs]) == 0
    sent = submitted(server)
    assert sent["inputs"] == {"1.image": "https://example.org/a.png"}
    assert sent["workflow"]["1"]["inputs"]["mask"]["info"] == {"id": "new-asset"}


def test_a_request_file_keeps_its_id_labels_and_models(server: ScriptedApi, tmp_path: Path) -> None:
    server.answer = Service(server.url, ends=job())
    request = {"job_id": "fox-1", "workflow": WORKFLOW, "metadata": {"a": "1", "b": "2"}, "models": [], "reply": "auto"}
    (tmp_path / "r.json").write_text(json.dumps(request))
    assert main(["run", "r.json", "--remote", "--label", "b=3"]) == 0
    sent = submitted(server)
    assert (sent["job_id"], sent["metadata"], "reply" in sent) == ("fox-1", {"a": "1", "b": "3"}, False)


@pytest.mark.parametrize(
    ("ends", "code", "told"),
    [
        (job("failed", error={"code": "out_of_memory", "message": "the GPU"}), 1, "out_of_memory: the GPU"),
        (job("canceled"), 130, "canceled: "),
        (job("expired"), 1, "job_expired: "),
    ],
)
def test_a_run_that_fails_keeps_what_it_has_made(
    server: ScriptedApi,
    workflow: str,
    tmp_path: Path,
    ends: dict[str, Any],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answer = Service(server.url, ends={**ends, "outputs": [output(b"content", url=f"{server.url}/file")]})
    assert main(["run", workflow, "--remote", "--out", "o"]) == code
    printed = capsys.readouterr()
    assert told in printed.err
    assert "made before the failure: o/fox_00001_.png" in printed.err
    assert printed.out == ""


def test_what_does_not_fit_is_told_before_anything_is_sent(
    server: ScriptedApi, workflow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--set", "2.scale=1"], ["--input", "1.image=missing.png"]):
        assert main(["run", workflow, "--remote", *wrong]) == 1
    assert server.asked == []
    capsys.readouterr()
    for wrong in (["--remote", "--log", "-"], ["--label", "a=b"]):
        with pytest.raises(SystemExit) as exit_:
            main(["run", workflow, *wrong])
        assert exit_.value.code == 2
        assert wrong[-2] in capsys.readouterr().err


@pytest.mark.parametrize("answers", [[CANCELING], [UNKNOWN, CANCELING]], ids=["known", "not known yet"])
def test_ctrl_c_asks_the_api_to_cancel_the_job_and_waits_for_its_end(
    server: ScriptedApi,
    workflow: str,
    answers: list[Told],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = Service(server.url, ends=job("running"))
    cancels = in_turn(*answers)

    def answer(asked: Asked) -> Told:
        if asked.path.endswith("/cancel"):
            told: Told = cancels(asked)
            service.ends = job("canceled")
            return told
        return service(asked)

    def interrupted(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    server.answer = answer
    monkeypatch.setattr(following, "events", interrupted)
    assert main(["run", workflow, "--remote"]) == 130
    assert "was canceled on request" in capsys.readouterr().err
    assert any(path.endswith("/cancel") for path in server.paths)


def test_ctrl_c_before_the_job_was_taken_ends_without_one(
    server: ScriptedApi, workflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = in_turn(UNKNOWN)

    def interrupted(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote, "submit", interrupted)
    assert main(["run", workflow, "--remote"]) == 130
    assert set(server.paths) == {f"POST {server.asked[0].path}"}


def test_a_run_here_says_that_there_is_an_api(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", "http://127.0.0.1:9")
    assert main(["run", "missing.json"]) == 1
    assert "with --remote it runs there" in capsys.readouterr().err


def test_errors_of_a_workflow_are_of_the_class_that_a_run_here_raises() -> None:
    error = remote.error_of({"code": "invalid_workflow", "message": "m", "details": {"node_errors": {"3": []}}})
    assert type(error) is InvalidWorkflow
    assert error.details == {"node_errors": {"3": []}}
    assert type(remote.error_of({"code": "unauthorized", "message": "m"})) is Unauthorized
