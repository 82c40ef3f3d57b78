"""How a typed client asks the API. `generate` puts the text of this file into each client, so it needs Python 3.10 and
the standard library, and nothing of ours.
"""

from __future__ import annotations

import http.client
import json
import mimetypes
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast
from urllib.parse import quote, urlencode, urljoin, urlsplit

_Bytes = bytes  # of which a class here has a method

#: How often a request is sent again that nothing has answered, or that came too soon (429, 502, 503, 504).
_ATTEMPTS: Final = 6
_LONGEST_PAUSE_S: Final = 30.0
_SOCKET_TIMEOUT_S: Final = 60.0
_AGAIN: Final = frozenset({429, 502, 503, 504})
#: First bytes, and the ending that bytes without a name get: it says of which type they are.
_ENDINGS: Final = (
    (rb"\x89PNG", "png"),
    (rb"\xff\xd8\xff", "jpg"),
    (rb"GIF8", "gif"),
    (rb"RIFF....WEBP", "webp"),
    (rb"RIFF....WAVE", "wav"),
    (rb"OggS", "ogg"),
    (rb"fLaC", "flac"),
    (rb"ID3", "mp3"),
    (rb"....ftyp", "mp4"),
    (rb"\x1aE\xdf\xa3", "webm"),
    (rb"glTF", "glb"),
)


class ComfyError(Exception):
    """A refusal, a failure, or no answer.

    Attributes:
        code: says which, for programs: `invalid_request`, `node_execution_error`, `rate_limited`, …
        status: of HTTP; 0 if there was no answer, or it is a job's failure.
        details: whatever else is told.
    """

    def __init__(self, code: str, message: str, *, status: int = 0, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status, self.details = code, message, status, dict(details or {})


class InvalidInputs(ComfyError):
    """Values do not fit. `problems` has all of them: which input, and what is wrong with it."""

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by the name of the input."""
        told = self.details.get("errors") or ()
        return {str(one.get("field")).removeprefix("inputs."): str(one.get("problem")) for one in told}


@dataclass(frozen=True)
class Uploaded:
    """A file that the API has already: `upload` returns one, or give the id of an asset."""

    id: str

    def to_json(self) -> object:
        """What stands for it in a request."""
        return {"__type": "core/ASSET", "info": {"id": self.id}}


#: A file: a path on this machine, an address (`s3://`, `https://`, `data:`), bytes, or one that is there already.
File = str | bytes | os.PathLike[str] | Uploaded


class _StaysHere(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the key goes to the API and to nobody else."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: _Bytes


class _Api:
    """The API over HTTP."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url, self._key = base_url, key
        handlers: list[urllib.request.BaseHandler] = [_StaysHere()]
        if urlsplit(base_url).hostname in {"localhost", "127.0.0.1", "::1"}:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON object that an operation answers. Raises ComfyError for everything else."""
        content = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        answer = self._patiently(method, self._base_url + path, lambda: content, sent)
        document = _object_in(answer.content)
        if answer.status >= 300 or document is None:
            raise _refusal(answer)
        return document

    def outputs(self, job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """All outputs of a job: those in its document, or page by page if it has not all."""
        listed: list[Mapping[str, Any]] = list(job.get("outputs") or ())
        if job.get("outputs_total") in (None, len(listed)):
            return listed
        listed, cursor = [], ""
        while True:
            query = urlencode({"limit": 1000, **({"cursor": cursor} if cursor else {})})
            page = self.call("GET", f"/api/v2/jobs/{quote(str(job['id']), safe='')}/outputs?{query}")
            listed += page.get("outputs") or ()
            cursor = str(page.get("next_cursor") or "")
            if not cursor:
                return listed

    def fetch(self, url: str | None, asset_id: str, into: IO[_Bytes]) -> None:
        """Write the bytes of an output into a file: by its link or, if that has ended, by a fresh one."""
        if url and self._patiently("GET", urljoin(self._base_url, url), into=into).status == 200:
            return
        address = f"{self._base_url}/api/v2/assets/{quote(asset_id, safe='')}/content"
        answer = self._patiently("GET", address, into=into)
        if answer.status in {301, 302, 303, 307, 308}:
            answer = self._patiently("GET", urljoin(address, answer.headers.get("location", "")), into=into)
        if answer.status != 200:
            raise _refusal(answer)

    def uploaded(self, file: File) -> Uploaded:
        """The file, which the API has now."""
        if isinstance(file, Uploaded):
            return file
        if isinstance(file, bytes):
            content = file
            known = (ending for start, ending in _ENDINGS if re.match(start, content, re.DOTALL))
            return self._upload(f"{uuid.uuid4().hex}.{next(known, 'bin')}", len(content), lambda: content)
        path = Path(file).expanduser()
        if not path.is_file():
            raise ComfyError("missing_asset", f"there is no file {str(path)[:300]!r} on this machine.")
        return self._upload(path.name, path.stat().st_size, lambda: path.open("rb"))

    def _upload(self, name: str, size_bytes: int, content: Callable[[], _Bytes | IO[_Bytes]]) -> Uploaded:
        announced = {"file_path": name, "size_bytes": size_bytes}
        if kind := mimetypes.guess_type(name)[0]:
            announced["content_type"] = kind
        target = self.call("POST", "/api/v2/uploads", announced)
        headers = {**target["headers"], "Content-Length": str(size_bytes)}
        answer = self._patiently(str(target["method"]), str(target["url"]), content, headers)
        if answer.status >= 300:
            raise _refusal(answer)
        return Uploaded(str(self.call("POST", f"/api/v2/uploads/{quote(str(target['id']), safe='')}/complete")["id"]))

    def _patiently(
        self,
        method: str,
        url: str,
        content: Callable[[], _Bytes | IO[_Bytes] | None] = lambda: None,
        headers: Mapping[str, str] | None = None,
        into: IO[_Bytes] | None = None,
    ) -> _Answer:
        """Send a request, again after a while if it was not its fault. Each of ours may be sent twice."""
        sent = dict(headers or {})
        if self._key and _origin(url) == _origin(self._base_url):
            sent["Authorization"] = f"Bearer {self._key}"
        attempt = 0
        while True:
            attempt += 1
            pause_s, is_last = 0.25 * 2.0**attempt, attempt == _ATTEMPTS
            try:
                answer = self._once(method, url, content(), sent, into)
            except (OSError, http.client.HTTPException) as error:
                if is_last:
                    reason = getattr(error, "reason", None) or error
                    raise ComfyError("unreachable", f"{_plain(url)} cannot be reached: {reason}") from error
            else:
                if is_last or answer.status not in _AGAIN:
                    return answer
                asked = answer.headers.get("retry-after", "")
                pause_s = float(asked) if asked.isdecimal() else pause_s
            time.sleep(min(pause_s, _LONGEST_PAUSE_S))

    def _once(
        self,
        method: str,
        url: str,
        content: _Bytes | IO[_Bytes] | None,
        headers: Mapping[str, str],
        into: IO[_Bytes] | None,
    ) -> _Answer:
        request = urllib.request.Request(url, data=content, headers=dict(headers), method=method)  # noqa: S310
        try:
            with self._opened(request) as answer:
                told = {name.lower(): value for name, value in answer.headers.items()}
                if into is None or answer.status != 200:
                    return _Answer(int(answer.status), told, answer.read())
                into.seek(0)
                into.truncate()
                shutil.copyfileobj(answer, into)
                if told.get("content-length", str(into.tell())) != str(into.tell()):
                    raise http.client.IncompleteRead(b"")
                return _Answer(200, told, b"")
        finally:
            if content is not None and not isinstance(content, bytes):
                content.close()

    def _opened(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            return cast("http.client.HTTPResponse", self._opener.open(request, timeout=_SOCKET_TIMEOUT_S))
        except urllib.error.HTTPError as refused:  # which is an answer, too
            return cast("http.client.HTTPResponse", refused)


def _refusal(answer: _Answer) -> ComfyError:
    """What an answer means that is not as it should be."""
    document = _object_in(answer.content) or {}
    error = _object(document.get("error"))
    if not isinstance(error.get("code"), str):
        text = str(document.get("message") or answer.content[:200].decode("utf-8", "replace").strip() or "nothing")
        code = "unauthorized" if answer.status in {401, 403} else "upstream_error"
        return ComfyError(code, f"the API has answered {answer.status}: {text}", status=answer.status)
    details = _object(error.get("details"))
    kind = InvalidInputs if details.get("errors") else ComfyError
    return kind(error["code"], str(error.get("message") or ""), status=answer.status, details=details)


def _object_in(content: _Bytes) -> dict[str, Any] | None:
    try:
        document: Any = json.loads(content)
    except ValueError:
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def _object(value: object) -> dict[str, Any]:
    """The object of JSON that a value is; {} if it is none."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _plain(url: str) -> str:
    """An address without a password, and without a query, which may be a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _new_file(folder: Path, name: str) -> IO[_Bytes]:
    """A new file in a folder; a name that is taken gets the next free number."""
    plain = Path(name.replace("\\", "/")).name or "output"
    for number in range(10_000):
        numbered = plain if not number else f"{Path(plain).stem}_{number}{Path(plain).suffix}"
        try:
            return (folder / numbered).open("x+b")
        except FileExistsError:
            continue
    raise FileExistsError(f"{folder} has 10,000 files called like {plain}")
