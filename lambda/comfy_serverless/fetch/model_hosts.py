"""What we know of the two hosts that most models come from: Hugging Face and CivitAI. No IO.

Facts from their public documentation and answers, November 2026: `hub.docs` (resolve addresses, X-Linked-ETag,
X-Error-Code) and CivitAI's REST reference (`/api/v1/model-versions`, `/api/download/models`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit, urlunsplit

_RESOLVE = re.compile(r"/(?P<repo>(?:(?:datasets|spaces)/)?[^/]+(?:/[^/]+)?)/(?P<how>resolve|blob|raw)/[^/]+/.+")
_CIVITAI_DOWNLOAD = re.compile(r"/api/download/models/(?P<version>\d{1,18})/?")


@dataclass(frozen=True, slots=True)
class ModelHost:
    """A host of models.

    Attributes:
        host: its exact name; no name below it belongs to it.
        name: what people call it.
        setting: the variable with a token for it, here; on a stack the parameter of that name.
    """

    host: str
    name: str
    setting: str
    parameter: str


HUGGING_FACE = ModelHost("huggingface.co", "Hugging Face", "HF_TOKEN", "HuggingFaceTokenParameter")
CIVITAI = ModelHost("civitai.com", "CivitAI", "CIVITAI_TOKEN", "CivitaiTokenParameter")
MODEL_HOSTS = (HUGGING_FACE, CIVITAI)


class Headers(Protocol):
    """The headers of an answer, whose names are in any case."""

    def get(self, name: str, default: str, /) -> str: ...
    def __contains__(self, name: str, /) -> bool: ...


def host_of(url: str | SplitResult) -> ModelHost | None:
    """The host that an address leads to, if it is one of ours and TLS proves it."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else url
        name = parts.hostname
    except ValueError:
        return None
    if parts.scheme != "https":
        return None
    return next((host for host in MODEL_HOSTS if host.host == name), None)


def download_address(url: str) -> str:
    """The address that delivers a file, where the one of its page on Hugging Face is given (`/blob/`)."""
    if host_of(url) is not HUGGING_FACE:
        return url
    parts = urlsplit(url)
    match = _RESOLVE.fullmatch(parts.path)
    if match is None or match["how"] == "resolve":
        return url
    path = f"{parts.path[: match.start('how')]}resolve{parts.path[match.end('how') :]}"
    return urlunsplit(parts._replace(path=path, query="" if parts.query == "download=true" else parts.query))


def civitai_version(url: str | SplitResult) -> str | None:
    """The number of the model version that an address of CivitAI downloads."""
    match = _CIVITAI_DOWNLOAD.fullmatch((urlsplit(url) if isinstance(url, str) else url).path)
    return match["version"] if match else None


def licence_page(parts: SplitResult) -> str:
    """The page on which people accept what a model asks of them."""
    if host_of(parts) is HUGGING_FACE:
        match = _RESOLVE.fullmatch(parts.path)
        return f"https://{HUGGING_FACE.host}/{match['repo'] if match else ''}"
    version = civitai_version(parts)
    return f"https://{CIVITAI.host}/{f'model-versions/{version}' if version else ''}"


def refusal(parts: SplitResult, status: int, headers: Headers, *, with_token: bool) -> str | None:
    """Why a host of models does not hand out a file, and what to do: the end of a sentence that begins with the file.

    None if the answer is no such refusal, or comes from elsewhere.

    Args:
        parts: the address that was asked.
        headers: of the answer; nothing of them is shown, since an answer may repeat what was sent.
        with_token: whether a token was sent.
    """
    host = host_of(parts)
    if host is None or not _is_refusal(host, status, headers):
        return None
    page, told = licence_page(parts), f"{host.setting}, or {host.parameter} of the stack"
    if not with_token:
        unknown = ""
        if host is HUGGING_FACE and headers.get("X-Error-Code", "").lower() != "gatedrepo":
            unknown = ", if it exists at all (it says the same of what it does not have)"
        return (
            f"is handed out by {host.name} only to people who are signed in{unknown} (HTTP {status}): accept its "
            f"licence at {page}, and give a token of that account ({told})"
        )
    if status == 401:
        return f"is not handed out: {host.name} does not take the token (HTTP 401). Make a new one ({told}). See {page}"
    return (
        f"is not handed out: {host.name} knows the token, and the account may not have this file (HTTP {status}). "
        f"Accept its licence at {page} with that account, or give the token of another one that may read it ({told})"
    )


def _is_refusal(host: ModelHost, status: int, headers: Headers) -> bool:
    if status in {401, 403}:
        return True
    # CivitAI may send whoever is not signed in to its login page.
    is_elsewhere = 300 <= status < 400 and host is CIVITAI
    return is_elsewhere and urlsplit(headers.get("Location", "")).path.startswith("/login")
