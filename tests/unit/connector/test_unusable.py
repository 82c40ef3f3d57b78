"""A table: what each call becomes when the server gives each answer that is none of ComfyUI's."""

from __future__ import annotations

import http.server
import io
import json
import logging
import re
import socket as sockets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import websocket

from comfy_serverless.connector.client import ComfyClient
from comfy_serverless.connector.connector import ComfyConnector
from comfy_serverless.connector.events import EventStream
from comfy_serverless.connector.made_files import Place
from comfy_serverless.connector.server import Server
from comfy_serverless.errors import ComfyError, InvalidSetting
from comfy_serverless.proxies import proxy_for
from comfy_serverless.settings import Settings
from tests.patience import PATIENCE_S
from tests.small_proxy import SmallProxy
from tests.unit.hostile_server import HostileServer, make_certificate

STATS = {"system": {"comfyui_version": "0.3.64"}, "exec_info": {"queue_remaining": 0}, "max_upload_size": 2000}
GRAPH = {"1": {"class_type": "SaveImage", "inputs": {}}}
PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Welcome</body></html>"


class Front(http.server.ThreadingHTTPServer):
    """A server that is a ComfyUI until it is told to answer otherwise."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes, str] | None = None
        self.seen: list[tuple[str, dict[str, str]]] = []
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                front.seen.append((self.path.partition("?")[0], dict(self.headers)))
                status, content, location = front.answer or (200, json.dumps(STATS).encode(), "")
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.do_GET()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that has heard enough leaves."""


class AnotherConnector(ComfyConnector):
    """Beside the one of this process."""

    _instance = None


@pytest.fixture
def front() -> Iterator[Front]:
    with Front() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def connected(front: Front, **settings: Any) -> Iterator[ComfyConnector]:
    connector = AnotherConnector(settings=Settings(comfyui_url=settings.pop("comfyui_url", front.url), **settings))
    try:
        yield connector
    finally:
        connector.kill_api()


def upload(connector: ComfyConnector) -> object:
    return connector.upload_file(io.BytesIO(b"x" * 100), "clip.mp4")


CALLS: dict[str, Callable[[ComfyConnector], object]] = {
    "submit": lambda connector: connector.run(GRAPH, deadline_s=5),
    "queue_prompt": lambda connector: connector.queue_prompt(GRAPH),
    "upload": upload,
    "view": lambda connector: connector.get_image("a.png", "", "output"),
    "history": lambda connector: connector.get_history("a"),
    "free": lambda connector: connector.free(unload_models=True, free_memory=True),
    "model_places": lambda connector: connector.model_places(),
}
#: By status, what each call becomes; `U` is engine_unavailable, `A` missing_asset, `W` invalid_workflow.
TABLE = {
    #     submit q_prompt upload view history free models
    301: "U      U        U      U    U       U    U",
    307: "U      U        U      U    U       U    U",
    400: "W      W        A      U    U       U    U",
    401: "U      U        U      U    U       U    U",
    403: "U      U        U      U    U       U    U",
    404: "U      U        U      F    U       U    U",
    405: "U      U        U      U    U       U    U",
    407: "U      U        U      U    U       U    U",
    413: "W      W        A      U    U       U    U",
    415: "W      W        A      U    U       U    U",
    429: "U      U        U      U    U       U    U",
    500: "W      W        U      U    U       U    U",
    502: "U      U        U      U    U       U    U",
    503: "U      U        U      U    U       U    U",
    504: "U      U        U      U    U       U    U",
}
CODES = {"U": "engine_unavailable", "A": "missing_asset", "W": "invalid_workflow", "F": "FileNotFoundError"}
ROWS = [
    (status, call, CODES[code]) for status, row in TABLE.items() for call, code in zip(CALLS, row.split(), strict=True)
]


@pytest.mark.parametrize(("status", "call", "code"), ROWS)
def test_no_answer_of_an_engine_is_our_own_mistake(
    front: Front, status: int, call: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventStream, "connect", lambda _: "client")
    monkeypatch.setattr("comfy_serverless.connector.follower.UNREACHABLE_S", 0.1)
    content = b"{}" if status == 400 else PAGE
    with connected(front) as connector:
        front.answer = (status, content, "/login" if status < 400 else "")
        with pytest.raises((ComfyError, FileNotFoundError)) as raised:
            CALLS[call](connector)
    assert getattr(raised.value, "code", type(raised.value).__name__) == code
    assert str(status) in str(raised.value) or code == "FileNotFoundError" or status == 400
    assert "<html" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "location", "words"),
    [
        (401, "", "requires credentials.*401.*Sign in.*COMFYUI_URL.*COMFYUI_TOKEN"),
        (403, "", "does not let us in.*403.*COMFYUI_TOKEN"),
        (404, "", "no ComfyUI at .*404.*path in COMFYUI_URL"),
        (301, "https://gpu.example/prompt?key=s3cret", "301 to https://gpu.example/prompt.*https:// in COMFYUI_URL"),
        (302, "/login?next=x", "302 to http://127.0.0.1.*/login.*COMFYUI_TOKEN"),
        (302, "https://login.example/oauth?to=x", "302 to https://login.example/oauth.*If that is a login, set user"),
        (407, "", "407.*HTTP_PROXY"),
        (500, "", "cannot do it: 500"),
        (502, "", "no ComfyUI behind it.*502"),
        (503, "", "no ComfyUI behind it.*503"),
        (200, "", "not a ComfyUI.*a web page, 'Sign in'"),
        (204, "", "not a ComfyUI.*nothing"),
    ],
)
def test_the_first_contact_says_what_is_there_and_what_to_do(
    front: Front, status: int, location: str, words: str
) -> None:
    front.answer = (status, b"" if status == 204 else PAGE, location)
    with pytest.raises(ComfyError, match=words) as raised:
        AnotherConnector(settings=Settings(comfyui_url=front.url))
    assert raised.value.code == "engine_unavailable"
    assert front.url in raised.value.message
    assert "s3cret" not in raised.value.message


def test_json_of_another_program_is_told(front: Front) -> None:
    front.answer = (200, b'{"hello": "world"}', "")
    with pytest.raises(ComfyError, match=r"is not a ComfyUI: it says nothing of a queue"):
        AnotherConnector(settings=Settings(comfyui_url=front.url))


def test_nobody_there_is_told_with_the_words_of_the_system() -> None:
    with pytest.raises(ComfyError, match=r"http://127\.0\.0\.1:1 \(COMFYUI_URL\): .*Connection refused.*listens"):
        AnotherConnector(settings=Settings(comfyui_url="http://127.0.0.1:1"))


def test_what_is_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with SmallProxy(status=403) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("://", "://me:s3cret@"))
        with pytest.raises(
            ComfyError, match=rf"gpu\.example \(COMFYUI_URL, through the proxy {proxy.url} \(ALL_PROXY"
        ) as raised:
            AnotherConnector(settings=Settings(comfyui_url="http://gpu.example"))
        with pytest.raises(
            ComfyError, match=r"gives no way to gpu\.example:443: HTTP/1\.1 403.*name gpu\.example in NO_PROXY"
        ):
            AnotherConnector(settings=Settings(comfyui_url="https://gpu.example"))
    assert "s3cret" not in raised.value.message


def test_a_certificate_of_nobody_we_know_is_told_with_the_variable_for_it(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "server.pem", "localhost")
    words = r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"
    with HostileServer(certificate=certificate) as server, pytest.raises(ComfyError, match=words):
        AnotherConnector(settings=Settings(comfyui_url=server.url("", "localhost")))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, r"websocket at ws://127.*although .* answers: 200.*Upgrade"),
        (302, "redirected.*Upgrade"),
        (401, "websocket.*requires credentials.*401"),
        (404, "websocket.*404.*Upgrade"),
    ],
)
def test_a_websocket_that_does_not_open_is_told_at_once(front: Front, status: int, words: str) -> None:
    with connected(front) as connector:
        front.answer = (status, PAGE, "/login" if status == 302 else "")
        with pytest.raises(ComfyError, match=words) as raised:
            connector.run(GRAPH, deadline_s=30)
    assert raised.value.code == "engine_unavailable"


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"x" * 1900)
    with connected(front) as connector:
        for call in (lambda: connector.upload_image(file), lambda: connector.upload_file(file, "clip.mp4")):
            with pytest.raises(
                ComfyError, match=r"clip\.mp4 has 1,900 bytes.*at most 2,000.*--max-upload-size"
            ) as raised:
                call()
            assert raised.value.code == "missing_asset"
    assert "/upload/image" not in [path for path, _ in front.seen]


def test_a_file_of_this_machine_that_is_not_there_is_pythons_own_error(front: Front, tmp_path: Path) -> None:
    gone, folder = tmp_path / "gone.png", tmp_path
    with connected(front) as connector:
        for call in (connector.upload_image, lambda path: connector.upload_file(path, "a.png"), connector.load_payload):
            for path, kind in ((gone, FileNotFoundError), (folder, IsADirectoryError)):
                with pytest.raises(OSError, match=re.escape(str(path))) as raised:
                    call(path)
                assert type(raised.value) is kind
    assert "/upload/image" not in [path for path, _ in front.seen]


@pytest.mark.parametrize("status", [401, 403, 500, 502])
def test_an_output_that_cannot_be_read_is_an_error_of_reading(
    front: Front, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(front) as connector:
        files = connector._engine.made_files(None)
        monkeypatch.setattr(connector._engine.client, "changed_at", lambda *_: time.time())
        made = files.claim(Place("a.png", "", "output"), cached=False)
        assert made is not None
        assert made.fetch is not None
        front.answer = (status, PAGE, "")
        with pytest.raises(ConnectionError, match=f"{status} a web page, 'Sign in'"):
            made.fetch()


@pytest.mark.parametrize(("status", "changed_at"), [(404, None), (302, None), (405, 0.0), (501, 0.0), (200, 0.0)])
def test_where_no_head_comes_through_a_file_may_be_there_all_the_same(
    front: Front, status: int, changed_at: float | None
) -> None:
    front.answer = (status, b"", "")
    assert ComfyClient(Server.at(front.url)).changed_at("a.png", "", "output") == changed_at


# What it is told, and what is never shown.


@pytest.mark.parametrize(
    ("url", "settings", "expected"),
    [
        ("us%20er:p%40ss%3Aw@", {}, {"Authorization": "Basic dXMgZXI6cEBzczp3"}),
        ("", {"comfyui_token": "abc.def"}, {"Authorization": "Bearer abc.def"}),
        (
            "",
            {"comfyui_headers": (("X-Api-Key", "k"), ("Cookie", "a=b; c=d"))},
            {"X-Api-Key": "k", "Cookie": "a=b; c=d"},
        ),
        ("u:p@", {"comfyui_headers": (("X-Api-Key", "k"),)}, {"X-Api-Key": "k", "Authorization": "Basic dTpw"}),
    ],
)
def test_every_request_and_the_websocket_say_who_asks(
    front: Front, url: str, settings: dict[str, Any], expected: dict[str, str]
) -> None:
    address = front.url.replace("://", f"://{url}") + "/base/"
    with connected(front, comfyui_url=address, **settings) as connector:
        front.answer = (404, b"", "")
        with pytest.raises(ComfyError):
            connector.run(GRAPH, deadline_s=5)
    assert {path for path, _ in front.seen} >= {"/base/prompt", "/base/system_stats", "/base/ws"}
    for _, headers in front.seen:
        assert {name: headers.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"comfyui_url": "http://me:pw@gpu.example", "comfyui_token": "t"},
        {"comfyui_url": "http://gpu.example", "comfyui_token": "t", "comfyui_headers": (("authorization", "x"),)},
        {"comfyui_url": "http://me:pw@gpu.example", "comfyui_headers": (("Authorization", "x"),)},
    ],
)
def test_two_who_say_who_asks_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match="both say who asks") as raised:
        Server.of_settings(Settings(**settings))
    assert "pw" not in raised.value.message


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@host:port", "ftp://host", "host", "http://host:99999", "http://.host"]
)
def test_an_address_that_a_program_gives_is_checked_too(url: str) -> None:
    with pytest.raises(InvalidSetting, match="COMFYUI_URL") as raised:
        AnotherConnector(settings=Settings(comfyui_url=url))
    assert "s3cret" not in raised.value.message


def test_a_proxy_that_is_not_there_is_named_by_the_websocket_too() -> None:
    proxy = proxy_for("http://gpu.example", {"HTTP_PROXY": "http://127.0.0.1:1"})
    server = replace(Server.at("http://gpu.example"), proxy=proxy)
    with pytest.raises(OSError, match=r"the proxy http://127\.0\.0\.1:1 \(HTTP_PROXY\) cannot be reached.*NO_PROXY"):
        EventStream(server, app_name="test").connect()


@pytest.mark.parametrize("fails", ["getstatus", "send"])
def test_a_websocket_that_does_not_open_is_closed_at_once(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps the error, with its frames, keeps no descriptor."""

    def opened(address: str, *, socket: sockets.socket, **options: object) -> websocket.WebSocket:
        assert address
        assert options
        made = websocket.WebSocket()
        made.sock = socket
        return made

    def broken(self: websocket.WebSocket, *said: object) -> int:
        if fails == "send" and said:
            raise BrokenPipeError(said)
        return 302 if fails == "getstatus" else 101  # older libraries take a redirect for a yes

    monkeypatch.setattr(websocket, "create_connection", opened)
    monkeypatch.setattr(websocket.WebSocket, "getstatus", broken)
    monkeypatch.setattr(websocket.WebSocket, "send", broken)
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        server = Server.of_process("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(ConnectionError) as kept:
            EventStream(server, app_name="test").connect()
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(PATIENCE_S)
            assert accepted.recv(1) == b"", "closed"
        assert kept.tb is not None


@pytest.mark.parametrize("status", [200, 301, 400, 401, 404, 413, 500, 502])
def test_what_a_server_repeats_of_the_secrets_is_shown_nowhere(
    front: Front, status: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.connector.follower.UNREACHABLE_S", 0.1)
    secret: dict[str, Any] = {"comfyui_token": "s3cret-token", "comfyui_headers": (("X-Api-Key", "s3cret-key"),)}
    repeated = (status, b"you sent s3cret-key and Bearer s3cret-token", "/x/s3cret-token" if status == 301 else "")
    shown = [repr(Settings(comfyui_url="http://me:s3cret@gpu.example", **secret))]
    with caplog.at_level(logging.DEBUG):
        front.answer = repeated
        with pytest.raises(ComfyError) as raised:
            AnotherConnector(settings=Settings(comfyui_url=front.url, **secret))
        shown += [raised.value.message, json.dumps(raised.value.details)]
        front.answer = None
        with connected(front, **secret) as connector:
            front.answer = repeated
            for call in CALLS.values():
                shown += words_of(call, connector)
            shown += [str(connector.server_address), str(connector.ws_address), repr(connector._engine.server)]
    assert "s3cret" not in " ".join([*shown, caplog.text])
    assert "…" in shown[1]


def words_of(call: Callable[[ComfyConnector], object], connector: ComfyConnector) -> list[str]:
    """What a call that may fail tells its caller."""
    try:
        call(connector)
    except (ComfyError, FileNotFoundError) as error:
        return [str(error), json.dumps(getattr(error, "details", None))]
    return []
