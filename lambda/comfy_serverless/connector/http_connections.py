"""The connections to one server, which are kept. Requests go out in one piece.

An answer that has come whole, and is as plain as ComfyUI's are, is taken as it is; `http.client` reads all others.

Built on sockets because a short job waits for its submit: urllib3 and `http.client` take ten times as long to write a
request, and send its head and its body apart, so that the server begins twice. To read an answer they begin a parser
of e-mail, which takes longer than all else in it.
"""

from __future__ import annotations

import http.client
import io
import itertools
import re
import select
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from comfy_serverless.connector.server import Server

#: What answers may break off with, or be unreadable by: `http.client` believes every length, also one below 0.
HTTP_ERRORS = (OSError, http.client.HTTPException, ValueError, OverflowError, MemoryError)

_CONNECT_TIMEOUT_S = 3.05
_PIECE_BYTES = 1 << 16
#: The head of an answer of which nothing is open: its status has a body, and each field a line and a name.
_PLAIN_HEAD = re.compile(rb"HTTP/1\.1 (200|[45]\d\d)(?: [^\r\n]*)?\r\n((?:[A-Za-z0-9-]+:[^\r\n]*\r\n)*)\r\n")
#: What may say something else about the body than its length does, or about the connection.
_NOT_PLAIN = frozenset({"transfer-encoding", "connection"})


class Answer:
    """An answer, which has come whole; or one to be read, as long as which it must be closed.

    Attributes:
        headers: by their names in small letters; of those that come twice, the first.
        data: the body, once `load` has read it.
    """

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.data = data
        self._body = io.BytesIO(data)

    def load(self) -> None:
        """Read the whole body. Raises one of HTTP_ERRORS."""

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot say yet
        """Read a part of the body; 0 at its end. Raises one of HTTP_ERRORS."""
        return self._body.readinto(buffer)

    def close(self) -> None:
        """Let go of it. Does nothing the second time."""


class _AnswerToRead(Answer):
    """One that `http.client` reads; its connection is kept if it is read to its end."""

    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket, connections: HttpConnections) -> None:
        fields = response.headers.items()
        super().__init__(response.status, {name.lower(): value for name, value in reversed(fields)})
        self._response = response
        self._sock: socket.socket | None = sock
        self._connections = connections

    def load(self) -> None:
        """See Answer."""
        try:
            self.data = self._response.read()
        except BaseException:
            self._drop()
            raise
        self.close()

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot say yet
        """See Answer."""
        try:
            size = self._response.readinto(buffer)
            if not size and self._response.length:  # `http.client` takes that for the end
                raise http.client.IncompleteRead(b"", self._response.length)  # noqa: TRY301
        except BaseException:
            self._drop()
            raise
        return size

    def close(self) -> None:
        """See Answer."""
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
            first = sock.recv(_PIECE_BYTES)
            whole = None if method == "HEAD" else _whole(first)
            if whole is not None:
                self.keep(sock)
                return whole
            response = http.client.HTTPResponse(_Begun(sock, first), method=method)  # type: ignore[arg-type]
            response.begin()
            while response.status < HTTPStatus.OK:  # such as 103: an answer to come, of which a kept connection is full
                response.headers = None  # type: ignore[assignment]  # to begin again, with what was read ahead
                response.begin()
        except BaseException:
            if response is not None:  # it reads from a file of the socket's own, which would keep the descriptor open
                response.close()
            sock.close()
            raise
        return _AnswerToRead(response, sock, self)

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


def _whole(piece: bytes) -> Answer | None:
    """The answer that this is; None if it may be anything else, or not all of it."""
    head = _PLAIN_HEAD.match(piece)
    if head is None:
        return None
    headers: dict[str, str] = {}
    for line in head[2].decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), value.lstrip(" \t"))
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) != len(piece) - head.end() or not _NOT_PLAIN.isdisjoint(headers):
        return None
    return Answer(int(head[1]), headers, piece[head.end() :])


class _Begun(io.RawIOBase):
    """What a connection says, of which the first piece has been read."""

    def __init__(self, sock: socket.socket, first: bytes) -> None:
        super().__init__()
        self._first = first
        self._rest = sock.makefile("rb", buffering=0)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """As that of a socket: what `http.client` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a writable buffer, which typing cannot say yet
        if not self._first:
            return self._rest.readinto(buffer)
        taken, self._first = self._first[: len(buffer)], self._first[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._rest.close()
        super().close()
