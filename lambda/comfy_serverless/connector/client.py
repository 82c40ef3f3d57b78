"""ComfyUI's HTTP API: one method per route, typed, no policy.

Nothing is retried and nothing is judged here. An unusable answer raises `RequestFailed`, except where a method's
docstring says otherwise.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, BinaryIO, cast
from urllib.parse import quote, urlencode, urljoin

from urllib3.fields import RequestField
from urllib3.filepost import choose_boundary

from comfy_serverless.connector.http_connections import HTTP_ERRORS, Answer, HttpConnections
from comfy_serverless.connector.server import Server
from comfy_serverless.proxies import ProxyRefused
from comfy_serverless.redaction import UNREADABLE, redact_url
from comfy_serverless.uncollected import load_json

#: Read timeout of questions about a prompt, in seconds. It is short because unanswered questions are asked again.
_QUESTION_TIMEOUT_S = 3.0
_CHUNK_BYTES = 1 << 16
_CONNECTIONS = 16


class RequestFailed(Exception):
    """ComfyUI gave no usable answer.

    Attributes:
        status: of the answer; None without an answer (refused, reset, timed out).
        text: the beginning of the answer, without what we told the server.
        leads_to: where a redirect leads, as messages may show it; "" for none.
        reason: why there was no answer, without what was asked.
    """

    def __init__(
        self, message: str, *, status: int | None = None, text: str = "", leads_to: str = "", reason: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.status = status
        self.text = text
        self.leads_to = leads_to


@dataclass(frozen=True, slots=True)
class SubmitAnswer:
    """The answer of `POST /prompt`, accepted or refused.

    Attributes:
        accepted: whether the prompt was queued.
        prompt_id: its id; None if refused.
        number: its place in the order of submits; None if refused.
        node_errors: by node id. An accepted prompt can have some too: those outputs will not be made.
        error: ComfyUI's own `{type, message, details, extra_info}` for a refusal.
    """

    accepted: bool
    prompt_id: str | None
    number: float | None
    node_errors: Mapping[str, Any]
    error: Mapping[str, Any] | None


class ComfyClient:
    """The routes of one ComfyUI server.

    Args:
        timeout_s: longest silence of the server before and during an answer, in seconds.
    """

    def __init__(self, server: Server, *, timeout_s: float = 10.0) -> None:
        self.server = server
        self._timeout_s = timeout_s
        self._question_timeout_s = min(timeout_s, _QUESTION_TIMEOUT_S)
        self._connections = HttpConnections(server, most_kept=_CONNECTIONS)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def system_stats(self) -> dict[str, Any]:
        """`GET /system_stats`: versions, devices, and the arguments ComfyUI was started with."""
        return cast("dict[str, Any]", self._get_json("/system_stats"))

    def object_info(self, class_type: str | None = None) -> dict[str, Any]:
        """`GET /object_info[/{class_type}]`: node declarations; `{}` for an unknown class."""
        path = "/object_info" if class_type is None else f"/object_info/{quote(class_type, safe='')}"
        return cast("dict[str, Any]", self._get_json(path))

    def embeddings(self) -> list[str]:
        """`GET /embeddings`: their names, without endings."""
        return [str(name) for name in self._get_json("/embeddings")]

    def features(self) -> dict[str, Any]:
        """`GET /features`: what the server can do, with `max_upload_size` in bytes."""
        return cast("dict[str, Any]", self._get_json("/features"))

    def model_folders(self) -> list[dict[str, Any]]:
        """`GET /experiment/models`: `[{name, folders: [path, …]}]`, in the order in which they are searched."""
        return cast("list[dict[str, Any]]", self._get_json("/experiment/models"))

    def queue_remaining(self) -> int:
        """`GET /prompt`: how many prompts wait or run."""
        return int(self._get_json("/prompt", timeout_s=self._question_timeout_s)["exec_info"]["queue_remaining"])

    def submit(
        self,
        graph: Mapping[str, Any],
        *,
        client_id: str,
        prompt_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> SubmitAnswer:
        """`POST /prompt`. Not idempotent: the same id sent twice runs twice.

        Args:
            timeout_s: overrides the client's own; a submit that timed out may still be executed.

        Raises:
            RequestFailed: neither accepted (200) nor refused with a reason (400).
            ValueError: the graph has a value that JSON does not have, such as NaN.
        """
        body: dict[str, Any] = {"prompt": graph, "client_id": client_id}
        if prompt_id is not None:
            body["prompt_id"] = prompt_id
        if extra_data:
            body["extra_data"] = dict(extra_data)
        response = self._send("POST", "/prompt", body=_STRICT.encode(body).encode(), headers=_JSON, timeout_s=timeout_s)
        if response.status != HTTPStatus.BAD_REQUEST:
            self._check(response)
        answer = self._object(response)
        error = answer.get("error")
        if isinstance(error, str):
            error = {"type": "error", "message": error, "details": "", "extra_info": {}}
        return SubmitAnswer(
            accepted=response.status < HTTPStatus.BAD_REQUEST,
            prompt_id=answer.get("prompt_id"),
            number=answer.get("number"),
            # Some refusals carry an empty list where others carry a mapping.
            node_errors=answer.get("node_errors") or {},
            error=error,
        )

    def queue(self) -> dict[str, Any]:
        """`GET /queue`: `{queue_running: [...], queue_pending: [...]}`."""
        return cast("dict[str, Any]", self._get_json("/queue", timeout_s=self._question_timeout_s))

    def delete_from_queue(self, prompt_id: str) -> None:
        """`POST /queue {"delete": [...]}`: removes a waiting prompt and leaves a running one alone."""
        self._post("/queue", {"delete": [prompt_id]})

    def interrupt(self, prompt_id: str) -> None:
        """`POST /interrupt {"prompt_id": …}`: asks a running prompt to stop and leaves a waiting one alone."""
        self._post("/interrupt", {"prompt_id": prompt_id})

    def cancel_job(self, prompt_id: str) -> bool:
        """`POST /api/jobs/{id}/cancel` (ComfyUI 0.26 and later). False where the route does not exist."""
        response = self._send(
            "POST", f"/api/jobs/{quote(prompt_id, safe='')}/cancel", timeout_s=self._question_timeout_s
        )
        if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            # Old versions say "no such route", new ones "no such job": either way nothing was canceled.
            return False
        self._check(response)
        return True

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """`GET /history/{id}`: the entry, or None if the prompt is unknown or has not ended."""
        answer = self._get_json(f"/history/{quote(prompt_id, safe='')}", timeout_s=self._question_timeout_s)
        return cast("dict[str, Any] | None", answer.get(prompt_id))

    def delete_history(self, prompt_ids: Sequence[str]) -> None:
        """`POST /history {"delete": [...]}`: removes entries, if they exist; files stay."""
        self._post("/history", {"delete": list(prompt_ids)})

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """`POST /free`: unload models, and drop the node cache, after the current prompt."""
        self._post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    def view(self, filename: str, subfolder: str, folder_type: str) -> BinaryIO:
        """`GET /view`: a stream of the file's bytes. Close it; reading it may raise OSError.

        Raises:
            FileNotFoundError: ComfyUI has no such file.
        """
        response = self._send("GET", _view_path(filename, subfolder, folder_type), stream=True)
        if response.status == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(f"ComfyUI has no file {subfolder + '/' if subfolder else ''}{filename}")
        self._check(response)  # a proxy's redirect to its login page is no picture
        return io.BufferedReader(_Body(response), _CHUNK_BYTES)

    def changed_at(self, filename: str, subfolder: str, folder_type: str) -> float | None:
        """`HEAD /view`: when the file was last changed, in seconds since the epoch; None if ComfyUI has none.

        0 if the answer does not say.
        """
        response = self._send("HEAD", _view_path(filename, subfolder, folder_type))
        if response.status in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED):
            return 0.0  # what stands between lets no HEAD through
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            return None
        try:
            return parsedate_to_datetime(response.headers.get("last-modified", "")).timestamp()
        except (ValueError, OverflowError):
            return 0.0

    def upload_image(
        self,
        file: BinaryIO,
        name: str,
        *,
        subfolder: str | None = None,
        folder_type: str | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """`POST /upload/image`: any file, not only images. Use the `name` in the answer: it may differ.

        Args:
            file: must be seekable; is read from its current position.
        """
        form: dict[str, str] = {"overwrite": "true" if overwrite else "false"}
        if subfolder:
            form["subfolder"] = subfolder
        if folder_type:
            form["type"] = folder_type
        length, content_type, body = _multipart(form, file, name)
        headers = f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n"
        response = self._send("POST", "/upload/image", body=body, headers=headers)
        self._check(response)
        return self._object(response)

    def _get_json(self, path: str, *, timeout_s: float | None = None) -> Any:  # noqa: ANN401
        response = self._send("GET", path, timeout_s=timeout_s)
        self._check(response)
        return self._parsed(response)

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        # These routes answer with an empty body, even if they did nothing.
        content = json.dumps(body).encode()
        self._check(self._send("POST", path, body=content, headers=_JSON, timeout_s=self._question_timeout_s))

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterator[bytes] = b"",
        headers: str = "",
        timeout_s: float | None = None,
        stream: bool = False,
    ) -> Answer:
        """Ask; with `stream` the body of a success is still to be read."""
        timeout_s = timeout_s or self._timeout_s
        if isinstance(body, bytes) and (body or method == "POST"):
            headers += f"Content-Length: {len(body)}\r\n"
        try:
            answer = self._connections.request(method, path, headers=headers, body=body, timeout_s=timeout_s)
            if not stream or answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                answer.load()
        except HTTP_ERRORS as error:
            reason = reason_of(error)
            raise RequestFailed(f"{method} {self.server}{path.partition('?')[0]}: {reason}", reason=reason) from error
        return answer

    def _parsed(self, response: Answer) -> Any:  # noqa: ANN401
        try:
            return load_json(response.data)
        except ValueError as error:
            text = self.server.without_secrets(response.data[:2000].decode("utf-8", errors="replace"))
            said = f"it sent {excerpt(text) or 'nothing'} instead of JSON"
            raise RequestFailed(said, status=response.status, text=text) from error

    def _object(self, response: Answer) -> dict[str, Any]:
        answer = self._parsed(response)
        if not isinstance(answer, dict):
            raise RequestFailed("it sent JSON that is not an object", status=response.status)
        return answer

    def _check(self, response: Answer) -> None:
        if response.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        text = self.server.without_secrets(response.data[:2000].decode("utf-8", errors="replace"))
        location = response.headers.get("location", "")
        try:
            leads_to = self.server.without_secrets(redact_url(urljoin(self.server.url, location))) if location else ""
        except ValueError:
            leads_to = UNREADABLE
        raise RequestFailed(
            f"ComfyUI answered {response.status}: {leads_to or excerpt(text)}".rstrip(": "),
            status=response.status,
            text=text,
            leads_to=leads_to,
        )


class _Body(io.RawIOBase):
    """The body of an answer as a file: what breaks off while it is read is an OSError, as with any other file."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer, which typing cannot say yet
        try:
            return self._answer.readinto(buffer)
        except HTTP_ERRORS as error:
            raise ConnectionError(f"ComfyUI's answer broke off: {reason_of(error)}") from error

    def close(self) -> None:
        self._answer.close()
        super().close()


_STRICT = json.JSONEncoder(allow_nan=False)
_JSON = "Content-Type: application/json\r\n"
_TITLE = re.compile(r"<title[^>]*>\s*([^<]{1,100}?)\s*</title", re.IGNORECASE)


def _view_path(filename: str, subfolder: str, folder_type: str) -> str:
    # Half a character (a lone surrogate) is in no name that ComfyUI reads from an address: it has no such file.
    named = {"filename": filename, "subfolder": subfolder, "type": folder_type}
    return "/view?" + urlencode(named, errors="surrogatepass")


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in the words of the system rather than of the library that was told."""
    if isinstance(error, ProxyRefused):
        return str(error)
    innermost = error
    while (cause := innermost.__cause__ or getattr(innermost, "original_error", None)) is not None:
        innermost = cause
    is_plain = isinstance(innermost, OSError) and innermost is not error
    return str(innermost) if is_plain and str(innermost) else str(error) or type(error).__name__


def excerpt(text: str) -> str:
    """The beginning of an answer, for messages: of a page its title."""
    if text.lstrip()[:1] == "<":
        title = _TITLE.search(text)
        text = f"a web page, {title[1]!r}" if title else "a web page"
    return " ".join(text.split())[:300]


def _multipart(form: Mapping[str, str], file: BinaryIO, name: str) -> tuple[int, str, Iterator[bytes]]:
    """Length, content type and bytes of a form with a file. The file is read in chunks while it is sent."""
    boundary = choose_boundary()
    fields = [RequestField(field, value) for field, value in form.items()]
    for field in fields:
        field.make_multipart()
    file_field = RequestField("image", b"", filename=name)
    file_field.make_multipart(content_type="application/octet-stream")
    before = "".join(f"--{boundary}\r\n{field.render_headers()}{field.data!s}\r\n" for field in fields).encode()
    before += f"--{boundary}\r\n{file_field.render_headers()}".encode()
    after = f"\r\n--{boundary}--\r\n".encode()
    begin = file.tell()
    size_bytes = file.seek(0, 2) - begin
    file.seek(begin)

    def body() -> Iterator[bytes]:
        yield before
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
        yield after

    return len(before) + size_bytes + len(after), f"multipart/form-data; boundary={boundary}", body()
