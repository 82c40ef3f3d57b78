"""ComfyUI's HTTP API: one method per route, typed, no policy.

Nothing is retried and nothing is judged here. Network failures come out as `requests.RequestException`; an answer
that is not 2xx raises `requests.HTTPError`, except where a method says what it makes of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter

_CONNECT_TIMEOUT_S = 3.05
#: Questions about a prompt are asked again when they are not answered: better soon than late, in seconds.
_QUESTION_TIMEOUT_S = 3.0
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class SubmitAnswer:
    """The answer of `POST /prompt`, accepted or refused.

    Attributes:
        accepted: whether the prompt was queued.
        prompt_id: under which id; None when refused.
        number: its place in the order of submits; None when refused.
        node_errors: by node id. Also an accepted prompt can have some: those outputs will not be made.
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
        server_address: `http://host:port`.
        timeout_s: longest silence of the server while it answers, in seconds.
    """

    def __init__(self, server_address: str, *, timeout_s: float = 10.0) -> None:
        self.server_address = server_address.rstrip("/")
        self._timeout = (_CONNECT_TIMEOUT_S, timeout_s)
        self._question_timeout = (_CONNECT_TIMEOUT_S, min(timeout_s, _QUESTION_TIMEOUT_S))
        self._session = requests.Session()
        # A proxy from the environment must never stand between us and the engine beside us.
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_maxsize=16)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def system_stats(self) -> dict[str, Any]:
        """`GET /system_stats`: versions, devices, and the arguments ComfyUI was started with."""
        return cast("dict[str, Any]", self._get_json("/system_stats"))

    def object_info(self, class_type: str | None = None) -> dict[str, Any]:
        """`GET /object_info[/{class_type}]`: node declarations; `{}` for an unknown class."""
        path = "/object_info" if class_type is None else f"/object_info/{quote(class_type, safe='')}"
        return cast("dict[str, Any]", self._get_json(path))

    def queue_remaining(self) -> int:
        """`GET /prompt`: how many prompts wait or run."""
        return int(self._get_json("/prompt", timeout=self._question_timeout)["exec_info"]["queue_remaining"])

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
            timeout_s: instead of the client's own; a submit that timed out may still be executed.

        Raises:
            requests.HTTPError: neither accepted (200) nor refused with a reason (400).
        """
        body: dict[str, Any] = {"prompt": graph, "client_id": client_id}
        if prompt_id is not None:
            body["prompt_id"] = prompt_id
        if extra_data:
            body["extra_data"] = dict(extra_data)
        timeout = self._timeout if timeout_s is None else (_CONNECT_TIMEOUT_S, timeout_s)
        response = self._session.post(f"{self.server_address}/prompt", json=body, timeout=timeout)
        if response.status_code != requests.codes.bad_request:
            response.raise_for_status()
        answer = _json(response)
        error = answer.get("error")
        if isinstance(error, str):
            error = {"type": "error", "message": error, "details": "", "extra_info": {}}
        return SubmitAnswer(
            accepted=response.ok,
            prompt_id=answer.get("prompt_id"),
            number=answer.get("number"),
            # An empty set of errors comes as a list in some refusals.
            node_errors=answer.get("node_errors") or {},
            error=error,
        )

    def queue(self) -> dict[str, Any]:
        """`GET /queue`: `{queue_running: [...], queue_pending: [...]}`."""
        return cast("dict[str, Any]", self._get_json("/queue", timeout=self._question_timeout))

    def delete_from_queue(self, prompt_id: str) -> None:
        """`POST /queue {"delete": [...]}`: removes a waiting prompt; a running one is not touched."""
        self._post("/queue", {"delete": [prompt_id]})

    def interrupt(self, prompt_id: str) -> None:
        """`POST /interrupt {"prompt_id": …}`: asks a running prompt to stop; nothing happens to a waiting one."""
        self._post("/interrupt", {"prompt_id": prompt_id})

    def cancel_job(self, prompt_id: str) -> bool:
        """`POST /api/jobs/{id}/cancel` (ComfyUI 0.26 and later). False where the route does not exist."""
        response = self._session.post(
            f"{self.server_address}/api/jobs/{quote(prompt_id, safe='')}/cancel", timeout=self._question_timeout
        )
        if response.status_code in (requests.codes.not_found, requests.codes.method_not_allowed):
            # "No such route" in old versions, "no such job" in new ones: either way nothing was canceled.
            return False
        response.raise_for_status()
        return True

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """`GET /history/{id}`: the entry, or None when the prompt is unknown or has not ended."""
        answer = self._get_json(f"/history/{quote(prompt_id, safe='')}", timeout=self._question_timeout)
        return cast("dict[str, Any] | None", answer.get(prompt_id))

    def delete_history(self, prompt_id: str) -> None:
        """`POST /history {"delete": [...]}`: forgets an entry; files stay."""
        self._post("/history", {"delete": [prompt_id]})

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """`POST /free`: unload models, and drop the node cache, after the current prompt."""
        self._post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    def view(self, filename: str, subfolder: str, folder_type: str) -> BinaryIO:
        """`GET /view`: a stream of the file's bytes. Close it.

        Raises:
            FileNotFoundError: ComfyUI has no such file.
        """
        response = self._session.get(
            f"{self.server_address}/view",
            params={"filename": filename, "subfolder": subfolder, "type": folder_type},
            timeout=self._timeout,
            stream=True,
        )
        if response.status_code == requests.codes.not_found:
            response.close()
            raise FileNotFoundError(f"ComfyUI has no file {subfolder + '/' if subfolder else ''}{filename}")
        if not response.ok:
            response.close()
            response.raise_for_status()
        response.raw.decode_content = True
        return cast("BinaryIO", response.raw)

    def exists(self, filename: str, subfolder: str, folder_type: str) -> bool:
        """`HEAD /view`: whether ComfyUI still has the file."""
        response = self._session.head(
            f"{self.server_address}/view",
            params={"filename": filename, "subfolder": subfolder, "type": folder_type},
            timeout=self._timeout,
        )
        return response.ok

    def upload_image(
        self,
        file: BinaryIO,
        name: str,
        *,
        subfolder: str | None = None,
        folder_type: str | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """`POST /upload/image`: any file, also no image. The answer's `name` is the one to use: it may differ."""
        form: dict[str, str] = {"overwrite": "true" if overwrite else "false"}
        if subfolder:
            form["subfolder"] = subfolder
        if folder_type:
            form["type"] = folder_type
        response = self._session.post(
            f"{self.server_address}/upload/image",
            files={"image": (name, file)},
            data=form,
            timeout=self._timeout,
        )
        response.raise_for_status()
        return _json(response)

    def _get_json(self, path: str, *, timeout: tuple[float, float] | None = None) -> Any:  # noqa: ANN401
        response = self._session.get(f"{self.server_address}{path}", timeout=timeout or self._timeout)
        response.raise_for_status()
        return response.json()

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        # Answers of these routes are empty, also when they did nothing.
        response = self._session.post(f"{self.server_address}{path}", json=body, timeout=self._question_timeout)
        response.raise_for_status()


def _json(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except json.JSONDecodeError as error:
        raise requests.HTTPError(f"ComfyUI answered something that is not JSON: {error}", response=response) from error
    if not isinstance(answer, dict):
        raise requests.HTTPError("ComfyUI answered JSON that is not an object", response=response)
    return answer
