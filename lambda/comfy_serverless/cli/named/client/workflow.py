"""What a typed client is built on: the text of this file is in each client, below that of `transport`."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

from comfy_serverless.cli.named.client.transport import ComfyError, File, Uploaded, _Api, _Bytes, _new_file, _object

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
