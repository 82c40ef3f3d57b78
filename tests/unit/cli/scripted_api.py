"""An API on this machine that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def key(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Told:
    """An answer. `promised` is the length that it announces, if that is not its own."""

    status: int = 200
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int | None = None

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


Answer = Callable[[Asked], Told]


class ScriptedApi:
    """The server: `answer` says what comes next."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                scripted.asked.append(asked)
                told = scripted.answer(asked)
                self.send_response(told.status)
                for name, value in told.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(told.promised or len(told.content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(told.content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="scripted API", daemon=True).start()

    @property
    def paths(self) -> list[str]:
        """What was asked, as "METHOD /path"."""
        return [f"{asked.method} {asked.path.partition('?')[0]}" for asked in self.asked]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def scripted_api(answer: Answer) -> Iterator[ScriptedApi]:
    """The server, from `with` to the end of the block."""
    server = ScriptedApi(answer)
    try:
        yield server
    finally:
        server.close()


def job(status: str = "succeeded", **more: Any) -> dict[str, Any]:
    """A job as the API tells of it."""
    ended = status in {"succeeded", "failed", "canceled", "expired"}
    return {
        "id": "fox-1",
        "status": status,
        "created_at": "2026-01-31T12:00:00.000Z",
        "started_at": None,
        "completed_at": "2026-01-31T12:01:30.000Z" if ended else None,
        "expires_at": "2026-03-02T12:00:00.000Z",
        "queue_position": None,
        "progress": None,
        "outputs": [],
        "error": None,
        "urls": {"self": "/api/v2/jobs/fox-1", "events": "/api/v2/jobs/fox-1/events", "cancel": "/c"},
        **more,
    }


def output(content: bytes, **more: Any) -> dict[str, Any]:
    """An output of that job."""
    return {
        "node_id": "9",
        "name": "fox_00001_.png",
        "type": "image",
        "content_type": "image/png",
        "size_bytes": len(content),
        "id": "asset-1",
        "hash": None,
        "url": None,
        "title": "Picture",
        "class_type": "SaveImage",
        "index": 0,
        **more,
    }
