"""Finds the models of an install, and says of every file that is none why it is left out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comfy_serverless.environments.build_file import Model, rules
from comfy_serverless.files import MODEL_ENDINGS

#: What is beside a model that is a folder: its configuration, and the words of its tokenizer.
_BESIDE: Final = (".json", ".txt", ".model", ".jinja")
_FOLDER_MODELS: Final = ("config.json", "model_index.json")
_NO_MODELS: Final = frozenset({"configs", "custom_nodes"})
_UNFINISHED: Final = (".part", ".partial", ".crdownload", ".aria2", ".download", ".incomplete", ".tmp", ".opdownload")
_HEAD_BYTES: Final = 200
_MOST_HEADER_BYTES: Final = 100_000_000
_MOST_FILES, _MOST_DEPTH = 200_000, 12


@dataclass(slots=True)
class ModelFiles:
    """The files below `models/`: those that are models, and, in words, those that are not."""

    models: list[tuple[Model, Path]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_models(folder: Path, *, of_type: str = "") -> ModelFiles:
    """The models below a folder `models/`, without their hashes. Links are followed, and never in a circle.

    Args:
        of_type: the folder below `models/` that this folder stands for, if it is another one.
    """
    found = ModelFiles()
    for path in sorted(_walk(folder, found, (), is_whole=not of_type)):
        inner = Path(of_type) / path.relative_to(folder)
        told = path if of_type else Path("models") / inner
        if reason := _reason_against(path, None if of_type else folder):
            found.left_out.append(f"{told.as_posix()}: {reason}")
        elif _is_wanted(path, folder):
            model = Model(
                filename=path.name,
                type=inner.parent.as_posix(),
                size_bytes=path.stat().st_size,
                local_path=inner.as_posix(),
            )
            wrong = rules.model_folder(model.type) or rules.file_name(model.filename)
            if wrong:
                found.left_out.append(f"{told.as_posix()}: {wrong}")
            else:
                found.models.append((model, path))
    return found


def _walk(folder: Path, found: ModelFiles, around: tuple[tuple[int, int], ...], *, is_whole: bool) -> Iterator[Path]:
    """The files below a folder; `around` are the folders that it is in, so that links in a circle have an end.

    Args:
        is_whole: whether the first is `models/` itself, in which not all folders are of models.
    """
    try:
        status = folder.stat()
        entries = sorted((entry.name, entry.is_dir()) for entry in os.scandir(folder))
    except OSError as error:
        found.left_out.append(f"{folder.name}: it cannot be read: {error.strerror}")
        return
    here = (status.st_dev, status.st_ino)
    if here in around or len(around) > _MOST_DEPTH:
        found.left_out.append(f"{folder.name}: it is a link to a folder that it is in")
        return
    for name, is_folder in entries:
        if name.startswith("."):
            continue
        if not is_folder:
            yield folder / name
        elif around or not is_whole or name not in _NO_MODELS:
            yield from _walk(folder / name, found, (*around, here), is_whole=is_whole)


def _is_wanted(path: Path, folder: Path) -> bool:
    name = path.name.lower()
    if name.endswith(MODEL_ENDINGS):
        return True
    if not name.endswith(_BESIDE):
        return False
    inside = [above for above in path.parents if folder in above.parents][:-1]
    return any((above / marker).is_file() for above in inside for marker in _FOLDER_MODELS)


def _reason_against(path: Path, folder: Path | None) -> str:
    """Why something that looks like a model is none; "" for a model, and for what does not look like one."""
    name = path.name.lower()
    if name.endswith(_UNFINISHED) and not name.startswith("put_"):
        return "it is a download that has not ended"
    if not name.endswith(MODEL_ENDINGS):
        return ""
    if path.parent == folder:
        return "it is in no folder of models/: move it into the one that its loader reads"
    try:
        if not path.exists():
            return "it is a link to a file that is not there"
        if not path.is_file():
            return "it is no file"
        size_bytes = path.stat().st_size
        if (path.parent / f"{path.name}.aria2").exists():
            return "it is a download that has not ended (.aria2 beside it)"
        with path.open("rb") as file:
            return _wrong_content(file.read(_HEAD_BYTES), path, size_bytes)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _wrong_content(head: bytes, path: Path, size_bytes: int) -> str:
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of git LFS, and not the file: run `git lfs pull` where it is from"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page, and not the file: whoever downloaded it was shown a login or an error"
    if path.suffix in (".safetensors", ".sft") and (needed := _bytes_needed(head, path)) > size_bytes:
        return f"it ends after {size_bytes:,} of {needed:,} bytes: the download has broken off"
    return ""


def _bytes_needed(head: bytes, path: Path) -> int:
    """How long a safetensors file says that it is; 0 if it says nothing of the kind."""
    length = int.from_bytes(head[:8], "little")
    if len(head) < 9 or head[8:9] != b"{" or length > _MOST_HEADER_BYTES:
        return 0
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(length)
    try:
        tensors = json.loads(header) if len(header) == length else {}
    except (ValueError, RecursionError):
        return 0
    if len(header) < length:
        return 8 + length
    ends = [
        one["data_offsets"][1]
        for one in tensors.values()
        if isinstance(one, dict)
        and isinstance(one.get("data_offsets"), list)
        and len(one["data_offsets"]) == 2
        and isinstance(one["data_offsets"][1], int)
    ]
    return 8 + length + max(ends, default=0)
