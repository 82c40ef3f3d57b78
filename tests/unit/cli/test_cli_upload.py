"""`comfy-serverless upload` against the API in this process, behind a small HTTP server."""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.api import assets as routes
from comfy_serverless.cli import remote
from comfy_serverless.cli import upload as cli_upload
from comfy_serverless.errors import ComfyError, InvalidRequest, MissingAsset, TooLarge, Unauthorized, UpstreamError
from comfy_serverless.table import asset_names, presigned_uploads
from tests.unit.api_world import ASSETS, ApiWorld, api_world


class Front:
    """The API and S3 on one port of this machine.

    Attributes:
        requests: what was asked, as "METHOD /path".
        failures: statuses that PUTs are answered before they work.
    """

    def __init__(self, world: ApiWorld) -> None:
        self.world = world
        self.requests: list[str] = []
        self.failures: list[int] = []
        front = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                front.requests.append(f"{self.command} {self.path.partition('?')[0]}")
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.command == "PUT":
                    status, text = front.store(self.path, body), ""
                else:
                    key = (self.headers.get("authorization") or "").removeprefix("Bearer ")
                    answer = world.request(
                        self.command, self.path, body=body.decode() or None, owner="team" if key == "good" else ""
                    )
                    status, text = answer.status, answer.text
                self.send_response(status)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text.encode())

            do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), name="front", daemon=True).start()

    def store(self, path: str, body: bytes) -> int:
        if self.failures:
            return self.failures.pop(0)
        self.world.s3.put_object(Bucket=ASSETS, Key=path.partition("?")[0].removeprefix("/s3/"), Body=body)
        return 200


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    with api_world(monkeypatch) as world:
        front = Front(world)
        presigned = world.services.s3.generate_presigned_url

        def link(operation: str, Params: dict[str, Any], **rest: Any) -> str:  # noqa: N803
            if operation == "put_object":
                return f"{front.url}/s3/{Params['Key']}?signature=1"
            return str(presigned(operation, Params=Params, **rest))

        monkeypatch.setattr(world.services.s3, "generate_presigned_url", link)
        monkeypatch.setenv("COMFY_BASE_URL", front.url)
        monkeypatch.setenv("COMFY_API_KEY", "good")
        yield front
        front.server.shutdown()
        front.server.server_close()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(range(256)) * 20_000)
    return path


def upload(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    cli_upload.add_parser(parser.add_subparsers())
    return cli_upload.run(parser.parse_args(["upload", *map(str, arguments)]))


def test_a_file_larger_than_a_request_is_uploaded_and_known_by_its_name(
    front: Front, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(film) == 0
    asset = front.world.services.assets.get("team", capsys.readouterr().out.strip())
    assert (asset.file_path, asset.content_type, asset.size_bytes) == ("film.mp4", "video/mp4", 5_120_000)
    assert front.world.services.assets.by_paths("team", ["film.mp4"])["film.mp4"].id == asset.id
    stored = front.world.s3.get_object(Bucket=ASSETS, Key=asset.address.key)["Body"].read()
    assert stored == film.read_bytes()


def test_a_file_the_api_has_is_not_sent_again(front: Front, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upload(film)
    upload(film, "--as", "team/other.mp4", "--expires-in", "3600", "--tag", "input", "--json")
    first, _, document = capsys.readouterr().out.partition("\n")
    asset = json.loads(document)
    assert (asset["file_path"], asset["created_new"]) == ("team/other.mp4", False)
    assert asset["expires_at"] is not None
    assert asset["id"] != first
    assert len([request for request in front.requests if request.startswith("PUT")]) == 1


def test_a_file_that_only_s3_hashes_is_known_by_its_sha256(
    front: Front, film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (asset_names, presigned_uploads, routes):
        monkeypatch.setattr(module, "MAX_READ_BYTES", 5_000_000)
    upload(film, "--json")
    upload(film, "--as", "again.mp4", "--json")
    digest = hashlib.sha256(film.read_bytes()).hexdigest()
    out, err = capsys.readouterr()
    assert out.count(f'"sha256": "{digest}"') == 2
    assert f"sha256:{digest[:16]}…" in err
    assert len([request for request in front.requests if request.startswith("PUT")]) == 1


def test_s3_is_asked_again_when_it_fails(front: Front, film: Path) -> None:
    front.failures = [503, 500]
    assert upload(film) == 0


def test_a_refusal_of_s3_is_told(front: Front, film: Path) -> None:
    front.failures = [403]
    with pytest.raises(UpstreamError, match="403"):
        upload(film)


def test_a_wrong_key_is_told(front: Front, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_API_KEY", "bad")
    with pytest.raises(Unauthorized, match="does not accept the key in COMFY_API_KEY"):
        upload(film)


def test_a_file_beyond_the_limit_is_refused_before_it_is_sent(
    front: Front, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object.__setattr__(front.world.services.settings, "max_upload_bytes", 10)
    with pytest.raises(TooLarge, match="at most 10"):
        upload(film)
    assert not [request for request in front.requests if request.startswith("PUT")]


def test_a_name_that_cannot_be_is_told(front: Front, film: Path) -> None:
    with pytest.raises(InvalidRequest, match="file_path"):
        upload(film, "--as", "../x.mp4")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("COMFY_BASE_URL", "", "set COMFY_BASE_URL"),
        ("COMFY_BASE_URL", "ftp://x", "set COMFY_BASE_URL"),
        ("COMFY_API_KEY", "a\nb", "COMFY_API_KEY"),
        ("COMFY_BASE_URL", "http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_an_environment_that_leads_nowhere_is_told(
    front: Front, film: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setattr(remote, "pause", lambda _seconds: None)
    monkeypatch.setenv(name, value)
    with pytest.raises(ComfyError, match=told):
        upload(film)


def test_a_file_that_is_not_there_or_empty_is_told(front: Front, tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(MissingAsset, match="cannot be read"):
            upload(path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(InvalidRequest, match="is empty"):
        upload(tmp_path / "empty.png")
