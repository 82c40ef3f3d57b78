"""Clients that leave in the middle, or speak no HTTP: nobody who runs `make dev` reads a trace of it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from comfy_serverless.api.event_streams import Asked, Streamed
from local.aws.gateway import Gateway, GatewayServer
from local.aws.processes import LOOPBACK, free_port
from tests.patience import PATIENCE_S

HEAD = b"Host: x\r\nAuthorization: Bearer k\r\n"
POST = b"POST /generate HTTP/1.1\r\n" + HEAD
RUDE = {
    "leaves a stream": b"GET /api/v2/jobs/a/events HTTP/1.1\r\n" + HEAD + b"\r\n",
    "sends half a body": POST + b"Content-Length: 100\r\n\r\nabc",
    "sends half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
    "sends a chunk without a length": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "sends what is no gzip": POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "sends half a head": b"GET / HTTP/1.1\r\nHos",
    "sends too long a head": b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000 + b"\r\n\r\n",
    "speaks TLS": b"\x16\x03\x01hello\r\n\r\n",
    "asks for no address": b"GET http://[bad/ HTTP/1.1\r\n" + HEAD + b"\r\n",
    "does not read": b"GET /large HTTP/1.1\r\n" + HEAD + b"\r\n",
}


class Functions:
    """The function behind the gateway: there is always something new."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, event: Any) -> Future[Any]:
        self.calls += 1
        answer: Future[Any] = Future()
        body = "x" * 3_000_000 if event["rawPath"] == "/large" else "{}"
        answer.set_result({"statusCode": 200, "headers": {}, "body": body})
        return answer


def may_everything(_event: Any) -> Future[Any]:
    answer: Future[Any] = Future()
    answer.set_result({"isAuthorized": True})
    return answer


class Endless:
    """Live events that never end."""

    def clock(self) -> float:
        return time.monotonic()

    def answer(self, _asked: Asked, *, until: float) -> Streamed:
        assert until > self.clock()
        headers = {"content-type": "text/event-stream"}
        return Streamed(status=200, headers=headers, body=map("event: progress\ndata: {}\n\n".format, self._ticks()))

    def _ticks(self) -> Iterator[int]:
        for tick in itertools.count():
            time.sleep(0.01)
            yield tick


def gateway(functions: Callable[[Any], Future[Any]], *, port: int) -> GatewayServer:
    streams: Any = Endless  # of EventStreams only what the gateway calls
    return GatewayServer(Gateway(functions, may_everything, Functions(), streams), port=port)


@pytest.fixture
def port() -> Iterator[int]:
    number = free_port()
    server = gateway(Functions(), port=number)
    server.start()
    yield number
    server.stop()


@pytest.mark.parametrize("at_once", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("what", RUDE)
def test_a_client_that_is_rude_or_gone_leaves_no_trace(
    port: int, what: str, caplog: pytest.LogCaptureFixture, *, at_once: bool
) -> None:
    client = socket.create_connection((LOOPBACK, port), timeout=PATIENCE_S)
    client.sendall(RUDE[what])
    if what in {"leaves a stream", "does not read"}:
        assert client.recv(10)
    if at_once:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE_S) as polite:
        polite.sendall(RUDE["leaves a stream"])
        seen = b""
        while seen.count(b"event: ") < 3:  # by the third look the gateway has seen that the first client is gone
            seen += polite.recv(1000)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_body_that_cannot_be_read_is_the_clients_mistake(port: int) -> None:
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE_S) as client:
        client.sendall(RUDE["sends what is no gzip"])
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


class Slow:
    """The API's function: it answers when it is told to."""

    def __init__(self) -> None:
        self.begun: queue.Queue[tuple[str, Future[Any]]] = queue.Queue()

    def __call__(self, event: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        self.begun.put((event["rawPath"], answer))
        return answer


def test_files_of_the_console_take_one_process_whatever_a_browser_asks_at_once() -> None:
    slow, number = Slow(), free_port()
    server = gateway(slow, port=number)
    server.start()
    try:
        with contextlib.ExitStack() as clients:
            for path in ("/", "/console/main.js", "/console/dom.js"):
                client = clients.enter_context(socket.create_connection((LOOPBACK, number), timeout=PATIENCE_S))
                client.sendall(f"GET {path} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
            _, first = slow.begun.get(timeout=PATIENCE_S)
            client = clients.enter_context(socket.create_connection((LOOPBACK, number), timeout=PATIENCE_S))
            client.sendall(b"GET /api/v2/jobs HTTP/1.1\r\n" + HEAD + b"\r\n")
            path, answer = slow.begun.get(timeout=PATIENCE_S)
            assert path == "/api/v2/jobs", "what is no file waits for none"
            answer.set_result({"statusCode": 200, "headers": {}, "body": "{}"})
            for _ in range(2):
                assert slow.begun.empty(), "the next file is asked for when the one before it is there"
                first.set_result({"statusCode": 200, "headers": {}, "body": ""})
                _, first = slow.begun.get(timeout=PATIENCE_S)
            first.set_result({"statusCode": 200, "headers": {}, "body": ""})
    finally:
        server.stop()
