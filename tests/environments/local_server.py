"""A small server on 127.0.0.1, which answers badly where a test asks it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        delay_s: how long nothing comes.
        cut_after: the connection ends after so many bytes of the body, whatever Content-Length has promised.
        status: 0 closes the connection without any answer.
        times: after so many of these the right answer comes; 0: always this one.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_after: int | None = None
    times: int = 0


def as_json(document: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode())


class LocalServer:
    """Serves `answer(path, query, accept)` of the class below it, for the length of a `with` block.

    Attributes:
        requests: the paths that were asked for, with their query, in order.
        trouble: what a path answers in place of the right thing.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.trouble: dict[str, Answer] = {}
        self._closing = threading.Event()
        self._counted: dict[str, int] = {}
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._serve(self)

            def do_HEAD(self) -> None:
                server._serve(self)

            def log_message(self, *words: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name=type(self).__name__)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, path: str, query: Mapping[str, str], accept: str) -> Answer:
        raise NotImplementedError

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        address = urlsplit(request.path)
        path = unquote(address.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        with self._lock:
            self.requests.append(request.path)
            answer = self._troubled(path)
        self._send(request, answer or self.answer(path, query, request.headers.get("Accept", "")))

    def _troubled(self, path: str) -> Answer | None:
        answer = self.trouble.get(path)
        if answer is None:
            return None
        self._counted[path] = self._counted.get(path, 0) + 1
        return None if answer.times and self._counted[path] > answer.times else answer

    def _send(self, request: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.delay_s:
            self._closing.wait(answer.delay_s)
        request.close_connection = request.close_connection or answer.status == 0 or answer.cut_after is not None
        if answer.status == 0:
            return
        try:
            request.send_response(answer.status)
            request.send_header("Content-Type", answer.content_type)
            request.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                request.send_header(name, value)
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(answer.body[: answer.cut_after])
        except ConnectionError:
            request.close_connection = True
