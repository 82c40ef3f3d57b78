"""A list of models in a file of this machine: an entry is added, and nothing else of it changes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.request import ModelRequest, parse_manifest
from comfy_serverless.json_text import parse_json


def check_manifest(path: Path) -> None:
    """Raise InvalidRequest unless an entry can be written into a list of models: it is one, or is not there yet."""
    _entries(path)
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise InvalidRequest(f"{path} cannot be written.")


def write_entry(path: Path, entry: Mapping[str, str], *, replaces: bool) -> None:
    """Write a model's entry into a list of models, which is made if it is not there.

    Raises:
        InvalidRequest: it has another entry for that name, and may not be replaced.
        InvalidRequest: it is no list of models, or cannot be written.
    """
    entries = _entries(path)
    model = ModelRequest(**entry)
    same = [at for at, one in enumerate(entries) if ModelRequest(**one).called == model.called]
    if any(entries[at] == entry for at in same):
        return
    if same and not replaces:
        raise InvalidRequest(
            f"{path} has another entry for {model.path!r} already: {json.dumps(entries[same[0]])}. With --replace it "
            "is replaced; or give the model another --name."
        )
    kept = [one for at, one in enumerate(entries) if at not in same]
    _write(path, [*kept, dict(entry)])


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    entries = parse_json(content, source=str(path))
    parse_manifest(entries, source=str(path))
    return list(entries)


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write all of it or nothing: a list that breaks off would be none."""
    text = "[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in entries) + "\n]\n"
    new = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.absolute().parent, delete=False, encoding="utf-8") as file:
            new = Path(file.name)
            file.write(text)
        new.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        new.replace(path)
    except OSError as error:
        if new is not None:
            new.unlink(missing_ok=True)
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}.") from error
