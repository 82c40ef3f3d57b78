"""Writes the models that a workflow lacks as a list that jobs and MODELS_MANIFEST take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_serverless.cli.habits import print_json
from comfy_serverless.connector.model_folders import MODEL_FOLDERS
from comfy_serverless.errors import InvalidRequest

_MOST_NAMED = 10


def manifest_of(models: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, str]], list[str]]:
    """The entries of the models that are not there, and, in words, which are left out, and which have no SHA-256."""
    entries: list[dict[str, str]] = []
    without_address, without_hash, other = [], [], []
    for model in models:
        if model["there"]:
            continue
        subfolders, _, name = model["name"].replace("\\", "/").rpartition("/")
        folder = "/".join(filter(None, (model["folder"], subfolders)))
        if not model["url"]:
            without_address.append(model["name"])
        elif folder.partition("/")[0] not in MODEL_FOLDERS:
            other.append(f"{model['name']} ({model['folder'] or 'no folder is known'})")
        else:
            entry = {"url": model["url"], "folder": folder, "name": name}
            if model["sha256"]:
                entry["sha256"] = model["sha256"]
            else:
                without_hash.append(model["name"])
            entries.append(entry)
    return entries, [
        *_note(without_address, "left out of the manifest, because the workflow does not say where they are from"),
        *_note(other, "left out of the manifest, because jobs bring no models into these folders"),
        *_note(
            without_hash,
            "without a SHA-256 in the manifest: a worker asks their host for it, and if that says none it fetches them "
            "only with ALLOW_UNPINNED_MODELS; run this again when the hosts can be reached, or write the SHA-256 in",
        ),
    ]


def check_target(path: Path, source: str) -> None:
    """Raise InvalidRequest for a file that must not be replaced, or cannot be there."""
    if source != "-" and path.exists() and path.samefile(source):
        raise InvalidRequest(f"--manifest {path} is the workflow itself: give another name, or it would be lost.")
    if path.is_dir():
        raise InvalidRequest(f"--manifest {path} is a folder: name a file in it.")


def write_manifest(path: Path, entries: Sequence[Mapping[str, str]]) -> None:
    """Write the list, whole or not at all; to stdout for `-`. Raises InvalidRequest if it cannot be written."""
    if str(path) == "-":
        print_json(list(entries))
        return
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(list(entries), indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvalidRequest(f"--manifest {path}: the file cannot be written: {error.strerror}") from error


def _note(names: Sequence[str], what: str) -> list[str]:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return [f"{what}: {', '.join(names[:_MOST_NAMED])}{more}"] if names else []
