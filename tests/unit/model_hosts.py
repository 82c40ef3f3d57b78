"""Hugging Face, CivitAI, their CDN and a thief, all on one server of this machine, which every name leads to."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from comfy_serverless.fetch.hashes import Get, getting
from comfy_serverless.fetch.tokens import Tokens
from comfy_serverless.fetch.web import Network
from tests.patience import PATIENCE_S
from tests.unit.hostile_server import QuietServer, make_certificate

HF, CIVITAI, CDN, THIEF = "huggingface.co", "civitai.com", "cdn-lfs.hf.example", "thief.example"
HF_TOKEN, CIVITAI_TOKEN = "hf_secretOfTheOperator", "civitai-secret-of-the-operator"

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Seen:
    """A request that reached a host."""

    method: str
    host: str
    path: str
    headers: dict[str, str]

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization")


def _leads_here(host: str, _port: int) -> list[str]:
    """Where a host is: an address is itself, and every name leads here."""
    is_address = ":" in host or host.replace(".", "").isdigit()
    return [host] if is_address else ["127.0.0.1"]


class Internet:
    """`internet.serve(HF, "/path", b"…")` lets a host answer; `internet.seen` is every request."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.seen: list[Seen] = []
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = self.headers["Host"].partition(":")[0]
                path = self.path.partition("?")[0]
                outer.seen.append(Seen(self.command, host, self.path, dict(self.headers)))
                answer = outer.answers.get((host, f"{self.command} {path}")) or outer.answers.get((host, path))
                try:
                    if answer is None:
                        self.send_error(404)
                    else:
                        answer(self)
                except OSError:
                    pass  # the client has had enough

            do_HEAD = do_GET  # noqa: N815 - the server's own name

            def log_message(self, *args: Any) -> None: ...

        certificate = make_certificate(folder / "hosts.pem", HF, CIVITAI, CDN, THIEF, f"{HF}.{THIEF}", f"cdn.{HF}")
        self._server = QuietServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_port
        self.network = Network(
            allow_private=True,
            allow_own_host=True,
            resolve=_leads_here,
            tls=ssl.create_default_context(cafile=str(certificate)),
        )
        self.tokens = Tokens({f"{HF}:{self.port}": lambda: HF_TOKEN, f"{CIVITAI}:{self.port}": lambda: CIVITAI_TOKEN})
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Internet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)

    @property
    def get(self) -> Get:
        return getting(self.network, deadline=time.monotonic() + PATIENCE_S)

    def url(self, host: str, path: str) -> str:
        return f"https://{host}:{self.port}{path}"

    def serve(self, host: str, path: str, content: bytes = b"", *, status: int = 200, **headers: str) -> str:
        """Let a path answer. Parts are answered in parts, so that models come whole."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            body, code, more = content, status, dict(headers)
            if status == 200 and (asked := request.headers.get("Range")):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                end = min(int(last), len(content) - 1)
                body, code = content[int(first) : end + 1], 206
                more["Content_Range"] = f"bytes {first}-{end}/{len(content)}"
            request.send_response(code)
            request.send_header("Content-Length", str(len(body)))
            for name, value in more.items():
                request.send_header(name.replace("_", "-"), value)
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body)

        self.answers[host, path] = answer
        return self.url(host, path.removeprefix("HEAD ").removeprefix("GET "))

    def redirect(self, host: str, path: str, location: str, *, status: int = 302, **headers: str) -> str:
        return self.serve(host, path, b"", status=status, Location=location, **headers)

    def hub_file(self, path: str, content: bytes, sha256: str, **headers: str) -> str:
        """A large file as Hugging Face has it: the answer tells its hash, and sends the caller to the CDN."""
        there = self.serve(CDN, f"/blobs{path}", content)
        linked: dict[str, Any] = {"X_Linked_ETag": f'"{sha256}"', "X_Linked_Size": str(len(content)), **headers}
        return self.redirect(HF, path, there, **linked)

    def civitai_version(self, version: int, *files: dict[str, Any]) -> str:
        """What CivitAI says of a version's files."""
        body = json.dumps({"id": version, "files": list(files)}).encode()
        return self.serve(CIVITAI, f"/api/v1/model-versions/{version}", body, Content_Type="application/json")
