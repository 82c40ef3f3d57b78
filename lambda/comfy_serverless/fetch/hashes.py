"""Where the SHA-256 of a model comes from without a download: the answers of its own host.

Hugging Face tells it of large files in X-Linked-ETag, on the first answer to a `HEAD` of the resolve address, before
the redirect to where the bytes are; of small files that is a git hash of 40 digits, which is of no use. CivitAI lists
the files of a version with their hashes. What a host says is a claim: whoever fetches the file compares its content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, urljoin, urlsplit

from comfy_serverless.errors import NotJson, PayloadTooLarge
from comfy_serverless.fetch.model_hosts import CIVITAI, HUGGING_FACE, civitai_version, download_address, host_of
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.tokens import Tokens
from comfy_serverless.fetch.web import MAX_REDIRECTS, Answer, Network, ask
from comfy_serverless.json_text import parse_json

#: The most bytes that are read of what CivitAI says about a version: sample pictures and their prompts are in it.
MOST_BYTES = 4_000_000
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SIZE = re.compile(r"\d{1,18}")
_NOT_A_CHOICE = frozenset({"token"})


class Get(Protocol):
    """One request to a host, whose redirects are not followed. Raises Unusable: see `fetch.web.ask`."""

    def __call__(self, url: str, *, method: Literal["GET", "HEAD"], tokens: Tokens) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Pin:
    """What a host says of a file.

    Attributes:
        sha256: of its content, in lower-case hex.
        size_bytes: None if the host does not say.
        said_by: the host, for people.
        url: where the file is: an address with this very content.
        name: the file's name; "" if the host does not say.
        moved_to: where the host sends whoever asks for it: it was renamed; "" if it was not.
    """

    sha256: str
    size_bytes: int | None
    said_by: str
    url: str
    name: str = ""
    moved_to: str = ""


def getting(network: Network, *, deadline: float) -> Get:
    """Requests in a network until a deadline, on the monotonic clock."""

    def get(url: str, *, method: Literal["GET", "HEAD"], tokens: Tokens) -> Answer:
        return ask(url, method=method, network=network, deadline=deadline, tokens=tokens, most_bytes=MOST_BYTES)

    return get


def hash_of(url: str, *, get: Get, tokens: Tokens) -> Pin | None:
    """What the host of a file says of its content; None if it says nothing, or is none that we know.

    Raises:
        Unusable: the host does not know the file, or hands it out to others only (the message says which licence to
            accept and which setting takes a token); `transient` if it did not answer as it should.
    """
    host = host_of(url)
    if host is HUGGING_FACE:
        return _of_hugging_face(download_address(url), get=get, tokens=tokens)
    if host is CIVITAI and (version := civitai_version(url)) is not None:
        return _of_civitai(url, version, get=get, tokens=tokens)
    return None


def _of_hugging_face(url: str, *, get: Get, tokens: Tokens) -> Pin | None:
    """Ask, along redirects within the host: a repository that was renamed answers 307."""
    asked = url
    for _ in range(MAX_REDIRECTS + 1):
        answer = get(asked, method="HEAD", tokens=tokens)
        _check(answer)
        if "X-Linked-ETag" in answer.headers or not answer.location:
            return _linked(answer, url, moved_to=asked if asked != url else "")
        further = urljoin(asked, answer.location)
        if host_of(further) is not HUGGING_FACE or urlsplit(further).netloc.lower() != urlsplit(asked).netloc.lower():
            return None
        asked = further
    raise Unusable(f"is redirected more than {MAX_REDIRECTS} times by {HUGGING_FACE.name}")


def _linked(answer: Answer, url: str, *, moved_to: str) -> Pin | None:
    sha256 = answer.headers.get("X-Linked-ETag", "").strip().removeprefix("W/").strip('"')
    if not _SHA256.fullmatch(sha256):
        return None  # a small file: a git hash of 40 digits
    size = answer.headers.get("X-Linked-Size", "").strip()
    size_bytes = int(size) if _SIZE.fullmatch(size) else None
    return Pin(sha256.lower(), size_bytes, HUGGING_FACE.name, url, moved_to=moved_to)


def _of_civitai(url: str, version: str, *, get: Get, tokens: Tokens) -> Pin | None:
    address = f"https://{urlsplit(url).netloc}/api/v1/model-versions/{version}"
    chosen = _chosen(list(_files_of(address, get=get, tokens=tokens)), url)
    pin = _pin_of(chosen) if chosen is not None else None
    return None if pin is None else Pin(pin.sha256, pin.size_bytes, pin.said_by, url, pin.name)


def _files_of(address: str, *, get: Get, tokens: Tokens) -> Iterator[Mapping[str, Any]]:
    """The files of a version of a model."""
    answer = get(address, method="GET", tokens=tokens)
    _check(answer)
    if answer.status != 200:
        raise Unusable(f"{CIVITAI.name} does not say what it is (HTTP {answer.status})", transient=True)
    try:
        document = parse_json(answer.body, source=f"the answer of {CIVITAI.name}", most_bytes=MOST_BYTES)
    except (NotJson, PayloadTooLarge) as error:
        raise Unusable(f"cannot be looked up: {error}", transient=True) from error
    files = document.get("files") if isinstance(document, dict) else None
    yield from (file for file in files if isinstance(file, dict)) if isinstance(files, list) else ()


def _chosen(files: list[Mapping[str, Any]], url: str) -> Mapping[str, Any] | None:
    """The file that an address downloads: the one with this address, the only one that has all that it asks for, or,
    where it asks for nothing, the primary one. None if that cannot be told.
    """
    wanted = _choices(url)
    exact = [file for file in files if civitai_version(_text(file, "downloadUrl")) and _choices(_link(file)) == wanted]
    alike = exact or [file for file in files if _has(file, wanted)]
    if len(alike) > 1:
        alike = [file for file in alike if file.get("primary") is True]
    return alike[0] if len(alike) == 1 else None


def _choices(url: str) -> dict[str, str]:
    """What an address asks for, in lower case."""
    asked = parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=50)
    return {name.lower(): value.lower() for name, value in asked if name.lower() not in _NOT_A_CHOICE}


def _has(file: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    inner = file.get("metadata")
    facts = {**(inner if isinstance(inner, dict) else {}), "type": file.get("type"), "fileid": file.get("id")}
    return all(str(facts.get(name)).lower() == value for name, value in wanted.items())


def _link(file: Mapping[str, Any]) -> str:
    return _text(file, "downloadUrl")


def _text(file: Mapping[str, Any], name: str) -> str:
    value = file.get(name)
    return value if isinstance(value, str) else ""


def _pin_of(file: Mapping[str, Any]) -> Pin | None:
    hashes = file.get("hashes")
    sha256 = hashes.get("SHA256") if isinstance(hashes, dict) else None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        return None
    kilobytes = file.get("sizeKB")
    size_bytes = round(kilobytes * 1024) if isinstance(kilobytes, int | float) and 0 <= kilobytes < 1e12 else None
    return Pin(sha256.lower(), size_bytes, CIVITAI.name, _link(file), _text(file, "name"))


def _check(answer: Answer) -> None:
    """Raise Unusable if the host does not have the file, or does not answer as it should."""
    if answer.refusal is not None:
        raise Unusable(answer.refusal, is_guarded=True)
    if answer.status in {404, 410}:
        raise Unusable(f"is not there (HTTP {answer.status})")
    if answer.status == 429 or answer.status >= 500:
        raise Unusable(f"cannot be looked up now (HTTP {answer.status})", transient=True)
