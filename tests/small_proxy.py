"""A small HTTP proxy on this machine that remembers who came, and leads everybody to one port of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

#: In either case, as an environment has them.
WAYS = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


class SmallProxy:
    """`with SmallProxy(port) as proxy:`; `proxy.asked` has what was asked for: `GET http://…`, `CONNECT host:port`.

    Args:
        port: where all ways lead, whatever was asked for.
        status: answered instead, if it is given.
    """

    def __init__(self, port: int = 0, *, status: int | None = None) -> None:
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle_one_request()

            def do_CONNECT(self) -> None:
                if not outer.takes(self):
                    return
                with socket.create_connection(("127.0.0.1", port)) as target:
                    self.send_response_only(200, "Connection established")
                    self.end_headers()
                    back = threading.Thread(target=pump, args=(target, self.connection), daemon=True)
                    back.start()
                    pump(self.connection, target)
                    back.join()
                self.close_connection = True

            def do_GET(self) -> None:
                if not outer.takes(self):
                    return
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection = HTTPConnection("127.0.0.1", port)
                headers = {name: value for name, value in self.headers.items() if not name.startswith("Proxy-")}
                target = f"{parts.path}?{parts.query}" if parts.query else parts.path
                connection.request(self.command, target, body=body or None, headers=headers)
                answer = connection.getresponse()
                content = answer.read()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            def do_POST(self) -> None:
                self.do_GET()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                pass

        self._status = status
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def takes(self, request: BaseHTTPRequestHandler) -> bool:
        """Whether a request goes on; it is remembered either way."""
        self.asked.append(f"{request.command} {request.path}")
        self.credentials.append(request.headers.get("Proxy-Authorization"))
        if self._status is not None:
            request.send_response(self._status)
            request.send_header("Content-Length", "0")
            request.end_headers()
        return self._status is None

    def __enter__(self) -> SmallProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Hand on bytes until one side ends."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
