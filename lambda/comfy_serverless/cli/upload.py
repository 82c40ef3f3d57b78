"""`comfy-serverless upload`: sends a file of any size to the deployed API, which then knows it by name and by hash.

hash ──► does the API have it? ──► a record of it
                 └──► POST /uploads ──► PUT to S3 ──► complete
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from comfy_serverless.errors import (
    ComfyError,
    Forbidden,
    HashMismatch,
    InvalidRequest,
    MissingAsset,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    UpstreamError,
)
from comfy_serverless.files import UNKNOWN_TYPE, type_of_name
from comfy_serverless.proxies import Proxy, pool_manager, proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import urllib3

_CHUNK_BYTES = 1 << 20
#: A request to S3 that fails is repeated; the rest of a file that takes this long is given up.
_ATTEMPTS, _CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 3, 10, 60
_FAILURES = (500, 502, 503, 504)
_REFUSALS: Mapping[str, type[ComfyError]] = {
    kind.code: kind for kind in (Forbidden, HashMismatch, InvalidRequest, NotFound, RateLimited, TooLarge, Unauthorized)
}

_EPILOG = """\
examples:
  export COMFY_BASE_URL=https://….execute-api.eu-central-1.amazonaws.com COMFY_API_KEY=…
  comfy-serverless upload film.mp4
  comfy-serverless upload scan.png --as team/scan.png --expires-in 86400

The id of the asset goes to stdout. In a workflow the file is named as it was uploaded ("image": "scan.png"), or by its
id: {"__type": "core/ASSET", "info": {"id": "…"}}. A file the API has already is not sent again.

exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 130 interrupted
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `upload` to the commands of the command line."""
    upload = commands.add_parser(
        "upload",
        help="upload a file of any size to the deployed API",
        description="Upload a file of any size to the deployed API.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    upload.add_argument("file", type=Path, metavar="FILE", help="what to upload")
    upload.add_argument("--as", dest="file_path", metavar="NAME", help="what to call it (default: the file's name)")
    upload.add_argument("--type", dest="content_type", metavar="TYPE", help="its media type (default: by its name)")
    upload.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG", help="mark it (repeat)")
    upload.add_argument("--expires-in", type=int, metavar="SECONDS", help="forget it after 60 to 604800 seconds")
    upload.add_argument("--json", action="store_true", help="print the whole asset as JSON")
    upload.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Upload the file and print its id. Returns the exit code."""
    from blake3 import blake3

    from comfy_serverless.table.asset_names import MAX_READ_BYTES

    api = _Api(os.environ.get("COMFY_BASE_URL", ""), os.environ.get("COMFY_API_KEY", ""))
    path: Path = options.file
    naming = {"file_path": options.file_path or path.name, "tags": options.tags, "expires_in": options.expires_in}
    naming = {name: value for name, value in naming.items() if value}
    content_type = options.content_type or type_of_name(naming["file_path"]) or UNKNOWN_TYPE
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn())
    with _opened(path) as file, Progress(*columns, console=console, transient=True) as bar:
        size_bytes = os.fstat(file.fileno()).st_size
        if not size_bytes:
            raise InvalidRequest(f"{path} is empty.")
        # S3 checks the SHA-256 of a file that the API would not read; an older release may know it by its blake3.
        hashers: dict[str, _Hasher] = {"blake3": blake3()}
        if size_bytes > MAX_READ_BYTES:
            hashers["sha256"] = hashlib.sha256()
        *others, digest = _hashes(file, hashers, _shown(bar, "reading", size_bytes))
        known = (api.from_hash(one, naming) for one in (digest, *others))
        asset = next((one for one in known if one is not None), None)
        if was_sent := asset is None:
            target = api.begin({**naming, "content_type": content_type, "size_bytes": size_bytes, "hash": digest})
            api.put(target, _Counted(file, size_bytes, _shown(bar, "sending", size_bytes)))
            asset = api.complete(target)
    print(json.dumps(asset, indent=2) if options.json else asset["id"], flush=True)
    what = "uploaded" if was_sent else "the API has its bytes already:"
    print(f"{what} {naming['file_path']} ({size_bytes:,} bytes, {digest[:23]}…)", file=sys.stderr)
    return 0


class _Hasher(Protocol):
    """Computes a hash of bytes as they come."""

    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


class _Api:
    """The operations of the deployed API that an upload needs."""

    def __init__(self, base_url: str, key: str) -> None:
        import urllib3  # here: it takes a while to load, and other commands do without

        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidRequest("set COMFY_BASE_URL to the address of the API, like https://….amazonaws.com")
        if not key.isascii() or not key.isprintable():
            raise InvalidRequest("COMFY_API_KEY has characters that no key has: set it again.")
        self._base_url = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        retries = urllib3.Retry(
            _ATTEMPTS, redirect=False, status_forcelist=_FAILURES, backoff_factor=0.5, raise_on_status=False
        )
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S)
        self._options = {"retries": retries, "timeout": timeout}
        self._pools: dict[Proxy | None, urllib3.PoolManager] = {}

    def from_hash(self, digest: str, naming: Mapping[str, object]) -> dict[str, Any] | None:
        """A record of bytes that the API has; None if it does not have them."""
        if self._ask("HEAD", f"{self._base_url}/api/v2/assets/by-hash/{digest}").status == 404:
            return None
        try:
            return self._post(f"{self._base_url}/api/v2/assets/from-hash", {**naming, "hash": digest})
        except NotFound:
            return None  # deleted meanwhile

    def begin(self, upload: Mapping[str, object]) -> dict[str, Any]:
        return self._post(f"{self._base_url}/api/v2/uploads", upload)

    def put(self, target: Mapping[str, Any], content: _Counted) -> None:
        answer = self._request(target["method"], target["url"], headers=target["headers"], body=content)
        if answer.status >= 300:
            raise UpstreamError(
                f"S3 has refused the file with {answer.status}: {answer.data[:500].decode('utf-8', 'replace')}"
            )

    def complete(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Let the API check the bytes and register them."""
        return self._post(urljoin(self._base_url, target["complete_url"]))

    def _ask(self, method: str, url: str, body: object = None) -> urllib3.BaseHTTPResponse:
        if body is None:
            return self._request(method, url, headers=self._headers)
        headers = {**self._headers, "content-type": "application/json"}
        return self._request(method, url, headers=headers, body=json.dumps(body).encode())

    def _request(self, method: str, url: str, **arguments: Any) -> urllib3.BaseHTTPResponse:  # noqa: ANN401
        import urllib3

        try:
            return self._pools_for(url).request(method, url, **arguments)
        except urllib3.exceptions.HTTPError as error:
            raise UpstreamError(f"{urlsplit(url).netloc} cannot be reached, or has broken off: {error}") from error

    def _pools_for(self, url: str) -> urllib3.PoolManager:
        """The connections to an address: S3's may be behind a proxy while that of `make dev` is not."""
        proxy = proxy_for(url)
        if proxy not in self._pools:
            self._pools[proxy] = pool_manager(proxy, **self._options)
        return self._pools[proxy]

    def _post(self, url: str, body: object = None) -> dict[str, Any]:
        answer = self._ask("POST", url, body)
        try:
            document = json.loads(answer.data)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise UpstreamError(f"{self._base_url} has answered {answer.status}, without a JSON object.")
        if answer.status < 300:
            return document
        error = document.get("error")
        if not isinstance(error, dict):
            raise UpstreamError(f"{self._base_url} has answered {answer.status}: {answer.data[:300]!r}")
        kind = _REFUSALS.get(str(error.get("code")), UpstreamError)
        raise kind(str(error.get("message")), details=error.get("details") or {})


class _Counted:
    """A file of which exactly `size_bytes` are sent and shown. It is rewound for another attempt."""

    def __init__(self, file: IO[bytes], size_bytes: int, show: Callable[[int], None]) -> None:
        self._file, self._size_bytes, self._show = file, size_bytes, show
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        position = self._file.tell()
        left = self._size_bytes - position
        chunk = self._file.read(left if size < 0 else min(size, left))
        if left and size and not chunk:
            raise InvalidRequest("the file has become shorter while it was sent.")
        self._show(position + len(chunk))
        return chunk

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        return self._file.seek(position)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise MissingAsset(f"{path} cannot be read: {error.strerror}") from error


def _hashes(file: IO[bytes], hashers: Mapping[str, _Hasher], show: Callable[[int], None]) -> list[str]:
    """The hashes of a file by these names, read once."""
    while chunk := file.read(_CHUNK_BYTES):
        for hasher in hashers.values():
            hasher.update(chunk)
        show(file.tell())
    return [f"{name}:{hasher.hexdigest()}" for name, hasher in hashers.items()]


def _shown(bar: Progress, description: str, total: int) -> Callable[[int], None]:
    task = bar.add_task(description, total=total)
    return lambda done: bar.update(task, completed=done)
