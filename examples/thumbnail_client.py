"""The workflow thumbnail, as Python: what it takes, with types, and what it makes.

Made by `comfy-serverless workflows client thumbnail` from version 0.
It runs what `live` is. Do not edit it: make it again when the inputs have changed.
It needs Python 3.10 or later, COMFY_BASE_URL and COMFY_API_KEY.

    result = Thumbnail().run()
    for output in result.outputs:
        print(output.name, output.save("out"))
"""

from __future__ import annotations

import http.client
import io
import json
import mimetypes
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, Generic, TypeVar, cast
from urllib.parse import quote, urlencode, urljoin, urlsplit

# How it is called: the same in each client.


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
        request = urllib.request.Request(url, data=content, headers=dict(headers), method=method)
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


_T = TypeVar("_T")
_R = TypeVar("_R", bound="Result")
_W = TypeVar("_W", bound="Workflow[Any]")

_OVER: Final = frozenset({"succeeded", "failed", "canceled", "expired"})
_SCHEMES: Final = ("s3://", "https://", "http://", "data:")


class JobFailed(ComfyError):
    """The job has ended without success: `code` says how, `job` has everything about it."""

    def __init__(self, code: str, message: str, *, job: Mapping[str, Any]) -> None:
        super().__init__(code, message, details=cast("Mapping[str, Any] | None", job.get("error")))
        self.job = dict(job)


class TimedOut(ComfyError):
    """The job has not ended in time. It goes on: `job_id` finds it again."""

    def __init__(self, job_id: str, timeout_s: float) -> None:
        super().__init__("timed_out", f"the job {job_id} has not ended within {timeout_s:g} s; it goes on.")
        self.job_id = job_id


class _Default:
    """Stands for a value that was not given, and is not sent: the version that runs has its own."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return repr(self._value)


def default(value: _T) -> _T:
    """What stands in the workflow if nothing is given: shown, and not sent."""
    return cast("_T", _Default(value))


#: Of an input that need not be given, and whose own value is not shown here.
not_given: Any = _Default(...)


@dataclass(frozen=True)
class _Options:
    base_url: str
    api_key: str = field(repr=False)
    alias: str
    version: int | None
    sticky: str | None = None
    idempotency_key: str | None = None
    metadata: Mapping[str, str] | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)
    deadline_s: float | None = None
    timeout_s: float | None = None
    on_progress: Callable[[float, str], None] | None = None

    def api(self) -> _Api:
        return _Api(self.base_url, self.api_key)


class Output:
    """Something that a job has made.

    Attributes:
        name: of its file.
        url: where its bytes are, for a while; None if only `bytes()` and `save()` find them.
        node_id: the node that made it.
    """

    def __init__(self, api: _Api, document: Mapping[str, Any]) -> None:
        self._api, self.document = api, dict(document)
        self.name = str(document.get("name") or document.get("id"))
        self.url = cast("str | None", document.get("url"))
        self.content_type = str(document.get("content_type") or "application/octet-stream")
        self.size_bytes = int(document.get("size_bytes") or 0)
        self.node_id = str(document.get("node_id") or "")

    def __repr__(self) -> str:
        return f"Output({self.name!r}, {self.content_type}, {self.size_bytes} bytes)"

    def bytes(self) -> _Bytes:
        """Its content."""
        held = io.BytesIO()
        self._api.fetch(self.url, str(self.document.get("id")), held)
        return held.getvalue()

    def save(self, folder: str | os.PathLike[str] = ".") -> Path:
        """Write it into a folder, under its name; one that is taken gets the next free number. Returns the path."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with _new_file(target, self.name) as file:
            try:
                self._api.fetch(self.url, str(self.document.get("id")), file)
            except BaseException:
                Path(file.name).unlink()
                raise
            return Path(file.name)


class Result:
    """What a job has made.

    Attributes:
        job: everything the API tells of it.
        outputs: all of them, in order.
        version: of the workflow, that has run; "" if the API does not say.
        seeds: those that were drawn, by address.
    """

    def __init__(self, api: _Api, job: Mapping[str, Any]) -> None:
        self.job = dict(job)
        self.id = str(job["id"])
        self.version = str(_object(job.get("metadata")).get("version") or "")
        self.seeds: dict[str, int] = dict(job.get("seeds") or {})
        self.warnings: list[str] = list(job.get("warnings") or ())
        self.outputs = tuple(Output(api, one) for one in api.outputs(job))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, outputs={self.outputs!r})"

    def save(self, folder: str | os.PathLike[str] = "out") -> list[Path]:
        """Write all outputs into a folder. Returns their paths."""
        return [one.save(folder) for one in self.outputs]

    def _of(self, node_id: str) -> tuple[Output, ...]:
        return tuple(one for one in self.outputs if one.node_id == node_id)


class Job(Generic[_R]):
    """A job that was submitted."""

    def __init__(self, api: _Api, document: Mapping[str, Any], result: type[_R], options: _Options) -> None:
        self._api, self._result, self._options = api, result, options
        self.document = dict(document)
        self.id = str(document["id"])

    @property
    def status(self) -> str:
        """As it was last seen: `queued`, `running`, `succeeded`, `canceling`, `canceled`, `failed` or `expired`."""
        return str(self.document.get("status"))

    def refresh(self) -> str:
        """Ask for it again. Returns its status."""
        self.document = self._api.call("GET", f"/api/v2/jobs/{quote(self.id, safe='')}")
        return self.status

    def cancel(self) -> str:
        """Ask for its end. Returns its status."""
        self.document = self._api.call("POST", f"/api/v2/jobs/{quote(self.id, safe='')}/cancel")
        return self.status

    def wait(self, timeout_s: float | None = None) -> _R:
        """Wait for its end. Raises JobFailed, or TimedOut after `timeout_s` (by default there is no end)."""
        limit_s = self._options.timeout_s if timeout_s is None else timeout_s
        begun, pause_s = time.monotonic(), 0.1
        while self.status not in _OVER:
            if self._options.on_progress is not None:
                self._options.on_progress(*_how_far(self.document))
            left_s = None if limit_s is None else limit_s - (time.monotonic() - begun)
            if left_s is not None and left_s <= 0:
                raise TimedOut(self.id, cast("float", limit_s))
            time.sleep(pause_s if left_s is None else min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, 2.0)
            self.refresh()
        if self.status != "succeeded":
            error = _object(self.document.get("error"))
            message = str(error.get("message") or f"the job {self.id} is {self.status}")
            raise JobFailed(str(error.get("code") or self.status), message, job=self.document)
        return self._result(self._api, self.document)


class Workflow(Generic[_R]):
    """A named workflow of the API at `base_url` (COMFY_BASE_URL), with a key of it (COMFY_API_KEY)."""

    _name: str
    _alias: str = "live"
    _version: int | None = None
    _is_shared: bool = False  # whether the operator's is meant, whatever the key's owner has of that name
    _result: type[_R]

    def __init__(self, base_url: str | None = None, api_key: str | None = None) -> None:
        url = (base_url or os.environ.get("COMFY_BASE_URL", "")).strip().rstrip("/")
        parts = urlsplit(url)
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # there is a key, and no password
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ComfyError("invalid_request", "set COMFY_BASE_URL to the address of the API, or give `base_url`.")
        key = os.environ.get("COMFY_API_KEY", "").strip() if api_key is None else api_key
        if not all("!" <= letter <= "~" for letter in key):
            raise ComfyError("invalid_request", "COMFY_API_KEY, or `api_key`, has characters that no key has.")
        self._options = _Options(url, key, self._alias, self._version)

    def with_options(
        self: _W,
        *,
        alias: str | None = None,
        version: int | None = None,
        sticky: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        deadline_s: float | None = None,
        timeout_s: float | None = None,
        on_progress: Callable[[float, str], None] | None = None,
    ) -> _W:
        """The same workflow, called with these; what is None stays as it is.

        Args:
            alias: whose version runs.
            version: its number, instead of an alias.
            sticky: with an alias between two versions, the same key always gets the same one.
            idempotency_key: two runs with the same key are one job, if they ask for the same: give files as `upload`
                returned them. By default each run has a key of its own.
            metadata: labels of the job.
            webhook_url: is called with the job.
            webhook_secret: signs those calls.
            deadline_s: how long the job may take once it has begun.
            timeout_s: how long `run` and `wait` wait.
            on_progress: is told how far the job is, from 0 to 1, and what goes on.
        """
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        if alias is not None:
            given["version"] = version
        copy = object.__new__(type(self))
        copy._options = replace(self._options, **given)
        return copy

    def upload(self, file: File) -> Uploaded:
        """Upload a file once, for many runs."""
        return self._options.api().uploaded(file)

    def _submit(self, values: Mapping[str, object]) -> Job[_R]:
        api, asked = self._options.api(), self._options
        inputs = {name: value for name, value in values.items() if not isinstance(value, _Default)}
        more = {
            "metadata": asked.metadata,
            "webhook_url": asked.webhook_url,
            "webhook_secret": asked.webhook_secret,
            "deadline_s": asked.deadline_s,
        }
        body = {"inputs": inputs, **{name: value for name, value in more.items() if value is not None}}
        query = {"alias": asked.alias} if asked.version is None else {"version": str(asked.version)}
        if asked.sticky is not None:
            query["sticky"] = asked.sticky
        if self._is_shared:
            query["source"] = "operator"
        path = f"/api/v2/workflows/{quote(self._name, safe='')}/runs?{urlencode(query)}"
        key = asked.idempotency_key or str(uuid.uuid4())
        return Job(api, api.call("POST", path, body, {"Idempotency-Key": key}), self._result, asked)

    def _file(self, value: File | _Default) -> object:
        """What is sent for a file, which is uploaded if it is here."""
        if isinstance(value, _Default):
            return value
        if isinstance(value, str) and value.lower().startswith(_SCHEMES):
            return value
        return self._options.api().uploaded(value).to_json()

    def _files(self, value: File | Sequence[File]) -> object:
        if isinstance(value, str | bytes | os.PathLike | Uploaded | _Default):
            return self._file(value)
        return [self._file(one) for one in value]


def _how_far(job: Mapping[str, Any]) -> tuple[float, str]:
    progress = _object(job.get("progress"))
    value = progress.get("value")
    return float(value) if isinstance(value, int | float) else 0.0, str(progress.get("message") or job.get("status"))


# The workflow "thumbnail".


class ThumbnailResult(Result):
    """What a run of thumbnail has made."""

    @property
    def thumbnail(self) -> tuple[Output, ...]:
        """What the output "thumbnail" has: node 3."""
        return self._of("3")


class Thumbnail(Workflow[ThumbnailResult]):
    """The named workflow thumbnail."""

    _name = "thumbnail"
    _alias = "live"
    _version = None
    _result = ThumbnailResult

    def submit(
        self,
        *,
        photo: File | Sequence[File] = not_given,
        width: int = default(256),
        height: int = default(256),
    ) -> Job[ThumbnailResult]:
        """Submit a job, and do not wait for it. Arguments, and InvalidInputs, as of `run`."""
        return self._submit(
            {
                "photo": self._files(photo),
                "width": width,
                "height": height,
            }
        )

    def run(
        self,
        *,
        photo: File | Sequence[File] = not_given,
        width: int = default(256),
        height: int = default(256),
    ) -> ThumbnailResult:
        """Run it, and wait for what it makes. What is not given is as the version that runs has it.

        Args:
            photo: Photo.
            width: from 0 to 16384.
            height: from 0 to 16384.

        Raises:
            InvalidInputs: values do not fit; `problems` has all of them.
            JobFailed: it did not succeed.
        """
        return self.submit(
            photo=photo,
            width=width,
            height=height,
        ).wait()
