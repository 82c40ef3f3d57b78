"""The connections to one server: what goes out, which are kept, and what breaks off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from comfy_serverless.connector import http_connections
from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.http_connections import HttpConnections
from comfy_serverless.connector.server import Server
from tests.patience import PATIENCE_S

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Served:
    """A server that gives the next of its answers to whatever comes in one piece, and closes after the last one.

    Args:
        connections: for each connection, its answers.
    """

    def __init__(self, *connections: list[bytes]) -> None:
        self.pieces: list[list[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server.of_process("127.0.0.1", self._listener.getsockname()[1])
        self._connections = connections
        self._connection: socket.socket | None = None
        self.closed = [threading.Event() for _ in connections]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for answers, closed in zip(self._connections, self.closed, strict=True):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # the test is over
            connection.settimeout(PATIENCE_S)
            self._connection = connection
            self.pieces.append([])
            with connection, suppress(OSError):  # whom it serves may be gone
                for answer in answers:
                    self.pieces[-1].append(connection.recv(1 << 16))
                    connection.sendall(answer)
            closed.set()

    def close(self) -> None:
        """End it, whatever it waits for: closing a socket alone wakes nobody up."""
        for waited_for in (self._listener, self._connection):
            with suppress(OSError):
                if waited_for is not None:
                    waited_for.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[type[Served]]:
    made: list[Served] = []

    class Kept(Served):
        def __init__(self, *connections: list[bytes]) -> None:
            super().__init__(*connections)
            made.append(self)

    yield Kept
    for served in made:
        served.close()


def asked(connections: HttpConnections, *, headers: str = "", body: bytes = b"") -> bytes:
    answer = connections.request("POST", "/prompt", headers=headers, body=body, timeout_s=PATIENCE_S)
    answer.load()
    return answer.data


def test_requests_go_out_in_one_piece_on_one_connection(serve: type[Served]) -> None:
    served = serve([OK, OK])
    connections = HttpConnections(served.server, most_kept=1)
    for _ in range(2):
        assert asked(connections, headers="Content-Length: 4\r\n", body=b"body") == b"{}"
    [[first, second]] = served.pieces
    assert first == second
    head, body = first.split(b"\r\n\r\n")
    assert head.startswith(b"POST /prompt HTTP/1.1\r\nHost: 127.0.0.1:")
    assert body == b"body"


def test_a_connection_that_the_server_has_closed_is_not_used_again(serve: type[Served]) -> None:
    served = serve([OK], [OK])
    connections = HttpConnections(served.server, most_kept=1)
    assert asked(connections) == b"{}"
    assert served.closed[0].wait(PATIENCE_S)
    assert asked(connections) == b"{}"
    assert len(served.pieces) == 2


def test_a_server_that_says_to_close_is_taken_at_its_word(serve: type[Served]) -> None:
    served = serve([OK.replace(b"200 OK", b"200 OK\r\nConnection: close"), b"never"], [OK])
    connections = HttpConnections(served.server, most_kept=1)
    assert [asked(connections), asked(connections)] == [b"{}", b"{}"]
    assert served.pieces[0][1:] == [b""], "it has closed it, too"


def test_an_answer_before_the_body_is_sent_is_heard(serve: type[Served]) -> None:
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
    served = serve([refused])
    connections = HttpConnections(served.server, most_kept=1)

    def body() -> Iterator[bytes]:
        assert served.closed[0].wait(PATIENCE_S)
        while True:  # until the system says that nobody listens
            yield b"a"

    answer = connections.request("POST", "/upload/image", body=body(), timeout_s=PATIENCE_S)
    answer.load()
    assert (answer.status, answer.data) == (413, b"too large")


@pytest.mark.parametrize("most_bytes", [3, -1])
def test_a_file_that_breaks_off_is_an_error_of_files(serve: type[Served], most_bytes: int) -> None:
    served = serve([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"])
    stream = ComfyClient(served.server).view("a.png", "", "output")
    with stream, pytest.raises(ConnectionError, match="broke off"):
        list(iter(lambda: stream.read(most_bytes), b""))


def test_what_is_read_in_parts_keeps_its_connection(serve: type[Served]) -> None:
    served = serve([OK.replace(b"{}", b"ab"), OK])
    client = ComfyClient(served.server)
    with client.view("a.png", "", "output") as stream:
        assert stream.read() == b"ab"
    assert client.queue() == {}
    assert len(served.pieces) == 1


def test_half_an_answer_is_none(serve: type[Served]) -> None:
    served = serve([OK[:-1]])
    with pytest.raises(RequestFailed, match="IncompleteRead"):
        ComfyClient(served.server).queue()


def test_what_is_closed_asks_no_more(serve: type[Served]) -> None:
    served = serve([OK])
    client = ComfyClient(served.server)
    client.queue()
    client.close()
    assert served.closed[0].wait(PATIENCE_S)
    with pytest.raises(RequestFailed, match="closed"):
        client.queue()


def test_a_connection_on_which_no_answer_comes_is_closed_at_once() -> None:
    """Whoever keeps the error, with its frames, keeps no descriptor."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = HttpConnections(Server.of_process("127.0.0.1", listener.getsockname()[1]), most_kept=1)
        with pytest.raises(TimeoutError) as kept:
            connections.request("GET", "/queue", timeout_s=0.05)
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(PATIENCE_S)
            assert accepted.recv(1 << 16).startswith(b"GET /queue ")
            assert accepted.recv(1) == b"", "closed"
        assert kept.tb is not None


def test_an_answer_is_heard_of_a_server_that_closes_with_a_body_unread(serve: type[Served]) -> None:
    """Its system then resets the connection, behind the answer."""
    served = serve([b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"])
    connections = HttpConnections(served.server, most_kept=1)
    body = b"a" * (1 << 26)  # more than systems take in for somebody who does not read
    answer = connections.request("POST", "/prompt", body=body, timeout_s=PATIENCE_S)
    answer.load()
    assert (answer.status, answer.data) == (413, b"too large")


@pytest.mark.parametrize("hint", ["100 Continue", "102 Processing", "103 Early Hints\r\nLink: </a.css>"])
def test_what_is_said_before_an_answer_is_not_taken_for_it(serve: type[Served], hint: str) -> None:
    """Else the answer would be that of the next request on the connection."""
    before = f"HTTP/1.1 {hint}\r\n\r\n".encode()
    served = serve([before + before + OK.replace(b"{}", b"ab"), OK])
    connections = HttpConnections(served.server, most_kept=1)
    assert [asked(connections), asked(connections)] == [b"ab", b"{}"]
    assert len(served.pieces) == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"Length: 2", b"Length: 99999999999999999"),
        OK.replace(b"Length: 2", b"Length: 99999999999999999999"),
        OK.replace(b"Content-Length: 2\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n-5\r\n"),
        OK.replace(b"200 OK", b"302 Found\r\nLocation: http://["),
        OK.replace(b"200 OK", b"404 Not Found\r\nLocation: http://a:port/"),
    ],
)
def test_what_no_server_should_say_is_no_usable_answer(serve: type[Served], answer: bytes) -> None:
    """And no workflow that cannot be sent: ComfyUI may run it."""
    served = serve([answer], [answer])
    client = ComfyClient(served.server)
    with pytest.raises(RequestFailed):
        client.submit({}, client_id="ours")
    with pytest.raises(RequestFailed):
        client.queue()


def test_a_time_that_no_clock_shows_tells_nothing(serve: type[Served]) -> None:
    served = serve([OK.replace(b"200 OK", b"200 OK\r\nLast-Modified: Tue, 10 Nov 99999999999 09:09:09 GMT")])
    assert ComfyClient(served.server).changed_at("a.png", "", "output") == 0.0


def test_a_name_that_no_address_can_hold_is_asked_for_all_the_same(serve: type[Served]) -> None:
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    served = serve([missing, missing])
    client = ComfyClient(served.server)
    assert client.changed_at("\udcff\ud800.png", "\ud800", "output") is None
    with pytest.raises(FileNotFoundError):
        client.view("\ud800.png", "", "output")


@pytest.mark.parametrize("read", [ComfyClient.queue, lambda client: client.view("a.png", "", "output").read()])
def test_what_follows_an_unreadable_answer_is_nobodys(
    serve: type[Served], read: Callable[[ComfyClient], object]
) -> None:
    unreadable = OK.replace(b"Content-Length: 2\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nlots\r\n")
    served = serve([unreadable, b"the rest"], [OK])
    client = ComfyClient(served.server)
    with pytest.raises((RequestFailed, ConnectionError)):
        read(client)
    assert client.queue() == {}
    assert len(served.pieces) == 2


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        OK.replace(b" OK", b""),
        OK.replace(b" OK", b" \xff ok"),
        OK.replace(b"200 OK", b"400 Bad Request"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK.replace(b"Length: 2", b"Length: 02"),
        OK.replace(b"Length: 2", b"Length: +2"),
        OK.replace(b"Length: 2", b"Length: 2, 2"),
        OK.replace(b"Length: 2", b"Length:2  "),
        OK.replace(b"Length: 2", b"Length: 2\r\nContent-Length: 1"),
        OK.replace(b"Length: 2", b"Length: 0"),
        OK.replace(b"Length: 2", b"Length: 1"),
        OK.replace(b"Content-Length: 2", b"location: /a?\xe9\r\nLocation: /b\r\nCONTENT-LENGTH: 2"),
        OK.replace(b"Content-Length: 2", b"Location: /a\r\n /b\r\nContent-Length: 2"),
        OK.replace(b"Content-Length: 2", b"Location : /a\r\nContent-Length: 2"),
        OK.replace(b"Content-Length: 2", b"X\r\nContent-Length: 2"),
        OK.replace(b"Content-Length: 2", b"Connection: close\r\nContent-Length: 2"),
        OK.replace(b"Content-Length: 2", b"Connection: keep-alive\r\nContent-Length: 2"),
        OK.replace(b"Content-Length: 2\r\n", b""),
        OK.replace(
            b"Content-Length: 2\r\n\r\n", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        ),
        OK.replace(b"200 OK", b"204 No Content"),
        OK.replace(b"200 OK", b"304 Not Modified"),
        OK.replace(b"200 OK", b"999 ?"),
        OK.replace(b"\r\n", b"\n"),
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK,
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_comes_whole_is_what_http_client_reads_in_pieces(
    serve: type[Served], monkeypatch: pytest.MonkeyPatch, answer: bytes, method: str
) -> None:
    def heard(piece_bytes: int) -> object:
        monkeypatch.setattr(http_connections, "_PIECE_BYTES", piece_bytes)
        connections = HttpConnections(serve([answer]).server, most_kept=1)
        try:
            got = connections.request(method, "/", timeout_s=PATIENCE_S)
            got.load()
        except http_connections.HTTP_ERRORS as error:
            return repr(error)
        buffer = bytearray(10)
        size = got.readinto(buffer) if method == "HEAD" else None
        return got.status, dict(got.headers), got.data, size, len(connections._kept)

    assert heard(1 << 16) == heard(1)
