"""A package index on 127.0.0.1 (PEP 503 and PEP 691): a folder of wheels, with hashes, sizes, and what was yanked."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.environments.local_server import Answer, LocalServer, as_json
from tests.environments.wheels import YANKED

_JSON = "application/vnd.pypi.simple.v1+json"


class WheelIndex(LocalServer):
    """`simple` is the address for `--index-url`.

    Attributes:
        login: `user:password` without which nothing is handed out; "" lets everybody in.
    """

    def __init__(self, folder: Path, *, login: str = "") -> None:
        super().__init__()
        self._folder, self.login = folder, login

    @property
    def simple(self) -> str:
        return f"{self.url}/simple/"

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and request.headers.get("Authorization") != wanted:
            self._send(request, Answer(401, b"who is it?", "text/plain", {"WWW-Authenticate": 'Basic realm="kit"'}))
        else:
            super()._serve(request)

    def answer(self, path: str, query: Mapping[str, str], accept: str) -> Answer:
        match path.strip("/").split("/"):
            case ["simple", name]:
                found = sorted(file for file in self._folder.iterdir() if _project(file.name) == _normal(name))
                if found:
                    return self._as_json(name, found) if _JSON in accept else _as_page(found)
            case ["files", name] if (self._folder / name).is_file():
                return Answer(body=(self._folder / name).read_bytes(), content_type="application/octet-stream")
        return Answer(404, b"404 Not Found", "text/html")

    def _as_json(self, name: str, found: list[Path]) -> Answer:
        files = [
            {
                "filename": file.name,
                "url": f"{self.url}/files/{file.name}",
                "hashes": {"sha256": _sha256(file)},
                "size": file.stat().st_size,
                "upload-time": "2026-10-01T12:00:00Z",
                "yanked": YANKED.get(file.name, False),
            }
            for file in found
        ]
        versions = sorted({file.name.removesuffix(".tar.gz").split("-")[1] for file in found})
        document = {"meta": {"api-version": "1.1"}, "name": _normal(name), "versions": versions, "files": files}
        return Answer(body=as_json(document).body, content_type=_JSON)


def _as_page(found: list[Path]) -> Answer:
    lines = []
    for file in found:
        yanked = f' data-yanked="{html.escape(YANKED[file.name])}"' if file.name in YANKED else ""
        lines.append(f'<a href="/files/{file.name}#sha256={_sha256(file)}"{yanked}>{file.name}</a><br>')
    return Answer(body=f"<!DOCTYPE html><html><body>{''.join(lines)}</body></html>".encode(), content_type="text/html")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _project(file_name: str) -> str:
    return _normal(file_name.split("-")[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
