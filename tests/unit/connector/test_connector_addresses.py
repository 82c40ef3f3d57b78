"""A ComfyUI behind somebody else's front: its password, and a login page in the place of a file."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator

import pytest

from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.events import EventStream


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
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_way_to_a_login_page_is_no_file(front: Front) -> None:
    client = ComfyClient(f"http://127.0.0.1:{front.server_port}")
    with pytest.raises(RequestFailed, match="302"):
        client.view("a.png", "", "output")
    assert not client.exists("a.png", "", "output")


def test_the_password_in_the_address_goes_with_both_ways_and_into_no_message(front: Front) -> None:
    address = f"http://me:s3cr3t@127.0.0.1:{front.server_port}"
    assert not ComfyClient(address).exists("a.png", "", "output")
    with pytest.raises(OSError, match="refused") as raised:
        EventStream(address, app_name="test").connect()
    assert "s3cr3t" not in str(raised.value)
    expected = "Basic " + base64.b64encode(b"me:s3cr3t").decode()
    assert front.seen == [("/view", expected), ("/ws", expected)]
