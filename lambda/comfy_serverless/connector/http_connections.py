"""The connections to one server, which are kept. Requests go out in one piece, and `http.client` reads the answers.

Built on sockets because a short job waits for its submit: urllib3 and `http.client` take ten times as long to write a
request, and send its head and its body apart, so that the server begins twice.
"""

from __future__ import annotations

import http.client
import itertools
import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from comfy_serverless.connector.server import Server

#: What answers may break off with, or be unreadable by: `http.client` believes every length, also one below 0.
HTTP_ERRORS = (OSError, http.client.HTTPException, ValueError, OverflowError, MemoryError)

_CONNECT_TIMEOUT_S = 3.05


class Answer:
    """An answer. As long as its body is to be read it must be closed; one that is read to its end keeps its connection.

    Attributes:
        data: the body, once `load` has read it.
    """

    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket, connections: HttpConnections) -> None:
        self.status = response.status
        self.headers = response.headers
        self.data = b""
        self._response = response
        self._sock: socket.socket | None = sock
        self._connections = connections

    def load(self) -> None:
        """Read the whole body. Raises one of HTTP_ERRORS."""
        try:
            self.data = self._response.read()
        except BaseException:
            self._drop()
            raise
        self.close()

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot say yet
        """Read a part of the body; 0 at its end. Raises one of HTTP_ERRORS."""
        try:
            size = self._response.readinto(buffer)
            if not size and self._response.length:  # `http.client` takes that for the end
                raise http.client.IncompleteRead(b"", self._response.length)  # noqa: TRY301
        except BaseException:
            self._drop()
            raise
        return size

    def close(self) -> None:
        """Let go of it. Does nothing the second time."""
        if self._sock is not None and self._response.isclosed() and not self._response.will_close:
            sock, self._sock = self._sock, None
            self._connections.keep(sock)
        else:
            self._drop()

    def _drop(self) -> None:
        """Close its connection, on which something may still come that is no answer to anything else."""
        sock, self._sock = self._sock, None
        self._response.close()
        if sock is not None:
            sock.close()


class HttpConnections:
    """Thread-safe: each request has a connection of its own until its answer is read.

    Args:
        most_kept: how many are kept while nobody needs them.
    """

    def __init__(self, server: Server, *, most_kept: int) -> None:
        self._server = server
        self._before_path, self._head = server.target(""), server.head
        self._most_kept = most_kept
        self._kept: list[socket.socket] = []
        self._is_closed = False

    def close(self) -> None:
        """Close those that nobody uses now, and the others when their answers are read."""
        self._is_closed = True
        while (sock := self._any_kept()) is not None:
            sock.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: str = "",
        body: bytes | Iterable[bytes] = b"",
        timeout_s: float,
    ) -> Answer:
        """Send a request, and wait for the head of its answer.

        Args:
            headers: lines, each with its end; with `Content-Length`.
            timeout_s: longest silence of the server, in seconds.

        Raises one of HTTP_ERRORS.
        """
        head = f"{method} {self._before_path}{path} HTTP/1.1\r\n{self._head}{headers}\r\n".encode("ascii")
        sock = self._open()
        response = None
        try:
            sock.settimeout(timeout_s)
            for piece in (head + body,) if isinstance(body, bytes) else itertools.chain((head,), body):
                if not _send(sock, piece):
                    break
            response = http.client.HTTPResponse(sock, method=method)
            response.begin()
            while response.status < HTTPStatus.OK:  # such as 103: an answer to come, of which a kept connection is full
                response.headers = None  # type: ignore[assignment]  # to begin again, with what was read ahead
                response.begin()
        except BaseException:
            if response is not None:  # it reads from a file of the socket's own, which would keep the descriptor open
                response.close()
            sock.close()
            raise
        return Answer(response, sock, self)

    def keep(self, sock: socket.socket) -> None:
        """Take back a connection whose last answer was read to its end."""
        if self._is_closed or len(self._kept) >= self._most_kept:
            sock.close()
            return
        self._kept.append(sock)
        if self._is_closed:  # just now
            self.close()

    def _open(self) -> socket.socket:
        if self._is_closed:
            raise ConnectionError("the connections are closed")
        while (sock := self._any_kept()) is not None:
            if _is_quiet(sock):
                return sock
            sock.close()
        return self._server.open_connection(timeout_s=_CONNECT_TIMEOUT_S)

    def _any_kept(self) -> socket.socket | None:
        with suppress(IndexError):
            return self._kept.pop()
        return None


def _send(sock: socket.socket, piece: bytes) -> bool:
    """Send something. Return whether the server still listens: if it has heard enough, its answer says why."""
    try:
        sock.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):  # the latter if it has closed with something unread
        return False
    return True


def _is_quiet(sock: socket.socket) -> bool:
    """Whether the server has not closed it, nor says anything that nobody has asked for."""
    look = select.poll()
    look.register(sock, select.POLLIN)
    return not look.poll(0)
