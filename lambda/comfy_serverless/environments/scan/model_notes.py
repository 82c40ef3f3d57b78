"""Where a model is from, by what a manager of models has written beside it: JSON, of nobody's standard.

    name.civitai.info, name.cm-info.json, name.metadata.json, name.metadata, name.json, name.safetensors.json, …

Each that is told of in one of these forms names an address, and most a SHA-256: an address counts only for the content
that is told there. What is no address of a file (a page, a preview) is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from comfy_serverless.environments.build_file import rules
from comfy_serverless.files import MODEL_ENDINGS

_BEHIND_STEM: Final = (".civitai.info", ".cm-info.json", ".metadata.json", ".metadata", ".info", ".json")
_BEHIND_NAME: Final = (".civitai.info", ".metadata.json", ".metadata", ".json")
_MOST_BYTES: Final = 2_000_000
_MOST_DEPTH: Final = 6
#: Keys, in small letters without `_`, under which an address of the file stands.
_ADDRESSES: Final = frozenset({"downloadurl", "url", "source", "sourceurl", "sourceuri", "origin"})
_DOWNLOADS: Final = ("/api/download/models/", "/resolve/")


def address_beside(path: Path, sha256: str) -> tuple[str, str]:
    """The address that a file beside a model names for it, and a remark; either may be "".

    Args:
        sha256: of the model: an address is not taken that is told for another content.
    """
    remark = ""
    for note in _notes_of(path):
        found = _entries(_read(note))
        told = [(address, hashes) for address, hashes in found if hashes]
        for address, hashes in sorted(found, key=lambda one: sha256 not in one[1]):
            if sha256 in hashes or not (hashes or told):
                wrong = rules.model_address(address)
                if not wrong:
                    return address, ""
                remark = f"{note.name} beside it names an address that is not taken: {wrong}"
        if told and not any(sha256 in hashes for _, hashes in told):
            remark = f"{note.name} beside it is of another file, by the SHA-256 in it: its address is not taken"
    return "", remark


def _notes_of(path: Path) -> Iterator[Path]:
    names = [f"{path.stem}{ending}" for ending in _BEHIND_STEM] + [f"{path.name}{ending}" for ending in _BEHIND_NAME]
    return (note for name in dict.fromkeys(names) if (note := path.with_name(name)).is_file())


def _read(note: Path) -> Any:  # noqa: ANN401  (any JSON value)
    try:
        with note.open("rb") as file:
            return json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def _entries(value: Any, hashes: frozenset[str] = frozenset(), depth: int = 0) -> list[tuple[str, frozenset[str]]]:  # noqa: ANN401
    """Each address of a file, with the SHA-256 that is told for it: beside it, else further out."""
    if depth > _MOST_DEPTH:
        return []
    if isinstance(value, list):
        return [one for part in value for one in _entries(part, hashes, depth + 1)]
    if not isinstance(value, Mapping):
        return []
    hashes = frozenset(_hashes(value)) or hashes
    found = [
        (text, hashes)
        for key, text in value.items()
        if str(key).lower().replace("_", "") in _ADDRESSES and isinstance(text, str) and _is_of_file(text)
    ]
    inner = [one for part in value.values() for one in _entries(part, hashes, depth + 1)]
    return inner + found


def _hashes(value: Mapping[str, Any]) -> Iterator[str]:
    inside = value.get("hashes", value.get("Hashes"))
    for one in (value, inside):
        if isinstance(one, Mapping):
            for key, text in one.items():
                if str(key).lower() == "sha256" and isinstance(text, str) and len(text) == 64:
                    yield text.lower()


def _is_of_file(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    is_file = parts.path.lower().endswith(MODEL_ENDINGS) or any(one in parts.path for one in _DOWNLOADS)
    return parts.scheme in ("https", "s3") and is_file
