"""The container's HTTP, with an application that says what it got."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from comfy_serverless.handlers import front_door
from comfy_serverless.jobs.sources import MAX_PAYLOAD_BYTES
from tests.patience import PATIENCE_S, wait_until


class Echo:
    """An application of two places. An invocation takes as long as `gate` is closed."""

    places = 2

    def __init__(self) -> None:
        self.in_hand = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()

    def ping(self) -> front_door.Answer:
        return 200, {"status": "healthy"}

    def take_place(self) -> int | None:
        with self.lock:
            if self.in_hand >= self.places:
                return self.in_hand
            self.in_hand += 1
        return None

    def invoke(self, body: bytes, inference_id: str) -> front_door.Answer:
        self.gate.wait(PATIENCE_S)
        with self.lock:
            self.in_hand -= 1
        return 200, {"bytes": len(body), "id": inference_id}


class Door:
    """A server in a thread of its own."""

    def __init__(self) -> None:
        self.application = Echo()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        goes_on = lambda: not self.is_over.is_set()  # noqa: E731
        asyncio.run(front_door.serve(self.application, [self.listener], goes_on=goes_on))

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=PATIENCE_S)

    def say(self, *parts: bytes) -> tuple[int, dict[str, Any]]:
        """Send parts of one request on a new connection. Returns status and document of the answer."""
        with self.connect() as sock:
            for part in parts:
                sock.sendall(part)
            return answer_of(sock)

    def close(self) -> None:
        self.application.gate.set()
        self.is_over.set()
        self.thread.join(PATIENCE_S)


def answer_of(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    with sock.makefile("rb") as stream:
        while (line := stream.readline()).startswith(b"HTTP/1.1 100") or line == b"\r\n":
            continue
        status, length = int(line.split()[1]), 0
        while (header := stream.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        content = stream.read(length)
    return status, json.loads(content) if content[:1] == b"{" else {"text": content.decode()}


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(front_door, "_ASK_EVERY_S", 0.02)
    opened = Door()
    yield opened
    opened.close()


def is_cut_off(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def request(length: int, *headers: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_body_in_pieces_is_one_body(door: Door) -> None:
    answer = door.say(request(6, "X-Amzn-SageMaker-Inference-Id: fox"), b"abc", b"def")
    assert answer == (200, {"bytes": 6, "id": "fox"})


def test_who_asks_first_is_told_to_go_on(door: Door) -> None:
    with door.connect() as sock:
        sock.sendall(request(3, "Expect: 100-continue"))
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert answer_of(sock) == (200, {"bytes": 3, "id": ""})


@pytest.mark.parametrize("excess", [0, 1])
def test_the_limit_is_to_the_byte(door: Door, excess: int) -> None:
    size = MAX_PAYLOAD_BYTES + excess
    assert door.say(request(size), *([] if excess else [b"x" * size]))[0] == (413 if excess else 200)


def test_a_body_that_does_not_come_is_given_up_and_has_had_no_place(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_door, "BODY_S", 0.1)
    status, document = door.say(request(100), b"{")
    assert (status, document["error"]["code"]) == (422, "invalid_request")
    assert door.application.in_hand == 0


def test_a_body_that_breaks_off_takes_no_place(door: Door) -> None:
    for _ in range(5):
        with door.connect() as sock:
            sock.sendall(request(100) + b"{")
    assert door.say(request(2), b"{}")[0] == 200
    assert wait_until(lambda: door.application.in_hand == 0)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /invocations HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_takes_no_place(door: Door, head: bytes) -> None:
    assert door.say(head)[0] in (400, 422)
    assert door.application.in_hand == 0


def test_pings_are_answered_while_all_places_are_taken_and_more_is_sent_away(door: Door) -> None:
    door.application.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(door.say, request(2), b"{}") for _ in range(2)]
        assert wait_until(lambda: door.application.in_hand == 2)
        assert door.say(PING)[0] == 200
        status, document = door.say(request(2), b"{}")
        assert (status, document["error"]["code"]) == (429, "queue_full")
        door.application.gate.set()
        assert [job.result()[0] for job in running] == [200, 200]


def test_the_one_that_has_waited_longest_makes_room_and_one_that_runs_never(door: Door) -> None:
    door.application.gate.clear()
    with ExitStack() as opened:
        running = opened.enter_context(door.connect())
        running.sendall(request(2) + b"{}")
        assert wait_until(lambda: door.application.in_hand == 1)
        first = opened.enter_context(door.connect())
        first.sendall(b"GET /p")
        for _ in range(front_door.MOST_WAITING + 5):
            opened.enter_context(door.connect()).sendall(b"GET /p")
        assert door.say(PING)[0] == 200
        assert is_cut_off(first)
        door.application.gate.set()
        assert answer_of(running)[0] == 200


def test_one_connection_serves_many_requests(door: Door) -> None:
    with door.connect() as sock:
        for _ in range(3):
            sock.sendall(PING)
            assert answer_of(sock)[0] == 200
            sock.sendall(request(2) + b"{}")
            assert answer_of(sock)[0] == 200
