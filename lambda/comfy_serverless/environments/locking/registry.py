"""A client of the Comfy Registry: one method a route, and what its statuses mean for somebody who wants a pack.

Facts from its public reference (docs.comfy.org, api.comfy.org/openapi), November 2026. Nothing needs a key.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from comfy_serverless.environments.archives import MOST_PACKED_BYTES
from comfy_serverless.errors import NotJson, PayloadTooLarge
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.web import Answer, Network, ask, open_web_address
from comfy_serverless.graph.near import Guesses
from comfy_serverless.json_text import parse_json
from comfy_serverless.redaction import redact_url
from comfy_serverless.retry import attempts

DEFAULT_URL: Final = "https://api.comfy.org"
#: The variable that names another one.
VARIABLE: Final = "COMFY_REGISTRY_URL"
_ASK_TIMEOUT_S: Final = 30.0
_FETCH_TIMEOUT_S: Final = 900.0
_PAUSES_S: Final = (0.5, 2.0)
_MOST_BYTES: Final = 8_000_000
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ACTIVE: Final = "Active"
_Result = TypeVar("_Result")
#: What a status means, as the end of a sentence that begins with the pack and its version.
_STATUSES: Final = {
    "Pending": "is pending: the registry has not looked at it yet. Take an older version, or its repository",
    "Flagged": "has been flagged by the registry as possibly harmful. Take another version, or a commit of its "
    "repository that you have read",
    "Banned": "has been banned by the registry: do not use it",
    "Deleted": "has been deleted by its author. Take another version",
}


class NotThere(Exception):
    """The registry does not have what was asked for, or must not be asked; the message is the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Version:
    """A published version of a pack.

    Attributes:
        warning: what a person should know of it although it can be used; "" if nothing.
    """

    version: str
    url: str
    warning: str = ""


class Registry:
    """The registry at an address."""

    def __init__(self, url: str = DEFAULT_URL, *, network: Network | None = None) -> None:
        self._url = url.rstrip("/")
        # Whoever runs this names the registry, so it may be anywhere: in a company's network, on this machine.
        self._network = network or Network(allow_private=True, allow_own_host=True)

    def version(self, pack_id: str, version: str) -> Version:
        """A version that can be used; `latest` is the newest.

        Raises:
            NotThere: no such pack or version, or one that must not be used: pending, flagged, banned, deleted.
        """
        if not _ID.fullmatch(pack_id):
            raise NotThere(f"has an id that no pack of the registry has, {pack_id!r}: letters, digits, - and _")
        if version.lower() in {"nightly", "unknown"}:
            raise NotThere(
                f"has the version {version!r}, which is none: it is the newest commit of a repository. "
                f"Name that: repository and gitRef"
            )
        if version.lower() == "latest":
            version = self._latest(pack_id)
        found = self._get(f"/nodes/{pack_id}/versions/{quote(version, safe='')}")
        if found is None:
            raise NotThere(self._why_not(pack_id, version))
        status = str(found.get("status", "")).removeprefix("NodeVersionStatus")
        if status not in {_ACTIVE, ""}:
            raise NotThere(_STATUSES.get(status, f"has a status that is not known, {status}") + self._usable(pack_id))
        url = found.get("downloadUrl")
        if not isinstance(url, str) or not url:
            raise NotThere("has no archive in the registry" + self._usable(pack_id))
        deprecated = "its author has marked this version as deprecated" if found.get("deprecated") is True else ""
        return Version(str(found.get("version") or version), url, deprecated)

    def download(self, url: str, to: Path) -> None:
        """Fetch an archive into a file. Raises NotThere."""
        try:
            self._download(url, to)
        except Unusable as error:
            raise NotThere(f"cannot be fetched from {redact_url(url)}: {error}") from error
        except OSError as error:
            raise NotThere(f"cannot be written to {to}: {error.strerror}") from error

    def _download(self, url: str, to: Path) -> None:
        def once() -> None:
            deadline = time.monotonic() + _FETCH_TIMEOUT_S
            with open_web_address(url, network=self._network, deadline=deadline) as stream, to.open("wb") as file:
                size = 0
                for chunk in stream.chunks:
                    size += len(chunk)
                    if size > MOST_PACKED_BYTES:
                        raise Unusable(f"has more than {MOST_PACKED_BYTES:,} bytes")
                    file.write(chunk)

        _again(once)

    def _latest(self, pack_id: str) -> str:
        node = self._get(f"/nodes/{pack_id}")
        if node is None:
            raise NotThere(self._unknown(pack_id))
        latest = node.get("latest_version")
        version = latest.get("version") if isinstance(latest, Mapping) else None
        if not isinstance(version, str):
            raise NotThere("has no version in the registry that can be used")
        return version

    def _why_not(self, pack_id: str, version: str) -> str:
        node = self._get(f"/nodes/{pack_id}")
        if node is None:
            return self._unknown(pack_id)
        status = str(node.get("status", "")).removeprefix("NodeStatus")
        if status in {"Deleted", "Banned"}:
            return f"has been {status.lower()} in the registry, with all its versions"
        return f"has no version {version}" + self._usable(pack_id)

    def _unknown(self, pack_id: str) -> str:
        words = dict.fromkeys([pack_id, *re.split("[-_.]", pack_id)])
        answers = [self._get(f"/nodes/search?search={quote(word)}&limit=30") or {} for word in words if word]
        nodes = [node for answer in answers for node in _list(answer.get("nodes")) if isinstance(node, Mapping)]
        ids = sorted({str(node.get("id")) for node in nodes})
        near = Guesses().near(pack_id, ids, at_most=3, likeness=0.7)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"is not in the registry: it has no pack with the id {pack_id!r}{hint}"

    def _usable(self, pack_id: str) -> str:
        """The versions that can be used, as a part of a sentence."""
        try:
            answer = self._json(f"/nodes/{pack_id}/versions")
        except NotThere:
            return ""
        usable = [
            str(entry.get("version"))
            for entry in _list(answer)
            if isinstance(entry, Mapping) and str(entry.get("status", "")).endswith(_ACTIVE)
        ]
        return f" (it has {', '.join(usable[:5])}{', …' if len(usable) > 5 else ''})" if usable else ""

    def _get(self, path: str) -> Mapping[str, Any] | None:
        """The answer to a question; None if there is no such thing."""
        answer = self._json(path)
        if answer is not None and not isinstance(answer, Mapping):
            raise NotThere(f"cannot be looked up: the registry's answer to {path} is of another form than it was")
        return answer

    def _json(self, path: str) -> Any:  # noqa: ANN401 - JSON
        try:
            answer = self._ask(self._url + path)
        except Unusable as error:
            raise NotThere(
                f"cannot be looked up in the registry ({redact_url(self._url)}): {error}. {VARIABLE} names another one"
            ) from error
        if answer.status == 404:
            return None
        try:
            return parse_json(answer.body, source="the registry's answer")
        except (NotJson, PayloadTooLarge) as error:
            raise NotThere(f"cannot be looked up: {error.message.rstrip('.')} (HTTP {answer.status})") from error

    def _ask(self, url: str) -> Answer:
        def once() -> Answer:
            deadline = time.monotonic() + _ASK_TIMEOUT_S
            answer = ask(url, method="GET", network=self._network, deadline=deadline, most_bytes=_MOST_BYTES)
            if answer.status not in {200, 404}:
                is_transient = answer.status == 429 or answer.status >= 500
                raise Unusable(f"answers with HTTP {answer.status}", transient=is_transient)
            return answer

        return _again(once)


def _again(call: Callable[[], _Result]) -> _Result:
    """What a call returns, which is tried again where it may have failed by accident."""
    for attempt in attempts(_PAUSES_S):
        try:
            return call()
        except Unusable as error:
            if attempt.is_last or not error.transient:
                raise
    raise AssertionError("the last attempt returns or raises")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
