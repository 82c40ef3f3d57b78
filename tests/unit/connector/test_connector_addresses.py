"""A ComfyUI behind somebody else's front: its password, and a login page in the place of a file."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.connector import ComfyConnector
from comfy_serverless.connector.events import EventStream
from comfy_serverless.connector.server import Server
from comfy_serverless.errors import ComfyError, InvalidSetting
from comfy_serverless.settings import Settings


class Front(http.server.ThreadingHTTPServer):
    """Answers everything with a redirect, and remembers who came."""

    def __init__(self) -> None:
        front = self
        self.seen: list[tuple[str, str | None]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                front.seen.append((self.path.partition("?")[0], self.headers["Authorization"]))
                self.send_response(302)
                self.send_header("Location", "/login")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def front() -> Iterator[Front]:
    with Front() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_way_to_a_login_page_is_no_file(front: Front) -> None:
    client = ComfyClient(Server.at(f"http://127.0.0.1:{front.server_port}"))
    with pytest.raises(RequestFailed, match="302"):
        client.view("a.png", "", "output")
    assert client.changed_at("a.png", "", "output") is None


def test_the_password_in_the_address_goes_with_both_ways_and_into_no_message(front: Front) -> None:
    address = f"http://me:s3cr3t@127.0.0.1:{front.server_port}"
    assert ComfyClient(Server.at(address)).changed_at("a.png", "", "output") is None
    with pytest.raises(OSError, match="redirected") as raised:
        EventStream(Server.at(address), app_name="test").connect()
    assert "s3cr3t" not in str(raised.value)
    expected = "Basic " + base64.b64encode(b"me:s3cr3t").decode()
    assert front.seen == [("/view", expected), ("/ws", expected)]


class Answers(http.server.ThreadingHTTPServer):
    """A server that looks like ComfyUI until a job comes: then it answers with a status."""

    def __init__(self, status: int, *, looks_like_comfyui: bool) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200 if looks_like_comfyui else status)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(status)

            def answer(self, code: int) -> None:
                content = b'{"exec_info": {"queue_remaining": 0}, "system": {"comfyui_version": "0.3.64"}}'
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture(params=["me:s3cret@{}", "s3cret@{}", "me:s3cret%40@{}", "{}/base?token=s3cret", "me:s3cret@{}/?a#b"])
def address(request: pytest.FixtureRequest) -> str:
    return f"http://{request.param}"


@pytest.mark.parametrize("looks_like_comfyui", [True, False])
@pytest.mark.parametrize("status", [301, 401, 404, 500])
def test_no_error_and_no_line_of_log_has_what_lets_somebody_in(
    address: str, status: int, looks_like_comfyui: bool, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr(EventStream, "connect", lambda _: "client")  # it has no websocket
    with Answers(status, looks_like_comfyui=looks_like_comfyui) as server, caplog.at_level(logging.DEBUG):
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = address.format(f"127.0.0.1:{server.server_port}")
        connector = AnotherConnector(settings=Settings(comfyui_url=url), wait=False)
        try:
            with pytest.raises(ComfyError) as raised:
                connector.run({"1": {"class_type": "SaveImage", "inputs": {}}}, deadline_s=5)
        finally:
            connector.kill_api()
            server.shutdown()
            thread.join()
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    assert "s3cret" not in json.dumps(raised.value.details)
    assert "s3cret" not in caplog.text
    if status != 500 or not looks_like_comfyui:
        assert f"http://127.0.0.1:{server.server_port}" in raised.value.message


def test_nor_has_the_error_of_an_engine_that_is_not_there(address: str) -> None:
    with pytest.raises(ComfyError, match=r"http://127\.0\.0\.1:1") as raised:
        AnotherConnector(settings=Settings(comfyui_url=address.format("127.0.0.1:1")))
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    with pytest.raises(OSError) as refused:
        EventStream(Server.at(address.format("127.0.0.1:1")), app_name="test").connect()
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


class AnotherConnector(ComfyConnector):
    """Beside the one of this process."""

    _instance = None


@pytest.mark.parametrize("written", ["http://[fe80::1%25eth0.1]:8188/a", "http://[fe80::1%eth0.1]:8188/a"])
def test_a_zone_is_this_machines_and_is_written_as_in_addresses(written: str) -> None:
    server = Server.at(written)
    assert server.host == "fe80::1%eth0.1", "as sockets take it"
    assert server.url == "http://[fe80::1%25eth0.1]:8188/a"
    assert server.websocket_url == "ws://[fe80::1%25eth0.1]:8188/a/ws"
    assert "Host: [fe80::1]:8188\r\n" in server.head


def test_a_percent_sign_in_a_name_is_no_zone() -> None:
    assert Server.at("http://[::1]:8188").host == "::1"
    assert Server.at("http://a.example/%25eth0").url == "http://a.example/%25eth0"


def test_who_says_another_name_of_the_program_says_one_only() -> None:
    head = Server.at("http://a.example", headers={"user-agent": "mine"}).head
    assert [line for line in head.splitlines() if line.lower().startswith("user-agent:")] == ["user-agent: mine"]
    assert "User-Agent: comfy-serverless\r\n" in Server.at("http://a.example").head


@pytest.mark.parametrize(
    "given",
    [
        *({"token": "s3cret\r\nX-More: yes"}, {"headers": {"X-Key": "s3cret\n"}}),
        *({"headers": {name: "s3cret"}} for name in ("", "X Key", "X-Key: more")),
    ],
)
def test_a_program_cannot_say_more_than_one_header_as_one(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=r"characters that no header has") as raised:
        Server.at("http://a.example", **given)
    assert "s3cret" not in str(raised.value)
