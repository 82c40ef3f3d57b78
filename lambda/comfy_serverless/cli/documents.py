"""Reads what `run` is given: a workflow, a request with one, or a picture that ComfyUI has made; a file or stdin."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_serverless.errors import InvalidRequest, InvalidWorkflow
from comfy_serverless.graph.workflow import check_format

_GZIP, _PNG = b"\x1f\x8b", b"\x89PNG\r\n\x1a\n"
_MOST_BYTES = 100_000_000
#: The fields of a request (docs/a-job.md) that a run here has a use for, and those that it has none for.
_USED = ("workflow", "set", "inputs", "deadline_s")
_UNUSED = ("job_id", "models", "output", "reply", "metadata")
#: Where a file's kind is not JSON, its beginning tells.
_OTHERS = {b"\xff\xd8\xff": "a JPEG", b"RIFF": "a WebP or another RIFF file", b"PK\x03\x04": "a ZIP file"}


@dataclass(frozen=True, slots=True)
class Document:
    """A workflow to be run, and what was written beside it.

    Attributes:
        graph: checked.
        values: `set` of a request.
        inputs: `inputs` of a request.
        left_out: fields of a request that mean nothing for a run on this machine.
    """

    graph: dict[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    left_out: tuple[str, ...] = ()


def read_document(name: str) -> Document:
    """Read a file, or stdin for `-`.

    Raises:
        InvalidRequest: it cannot be read, or is not what is wanted.
        InvalidWorkflow: the workflow is none.
    """
    content = _content(name)
    if content.startswith(_PNG):
        return Document(check_format(_parsed(_prompt_in_png(content, name), f"the prompt in {name}")))
    return _document(_parsed(_text(content, name), name))


def _document(value: object) -> Document:
    if not isinstance(value, Mapping) or "workflow" not in value or _is_node(value["workflow"]):
        return Document(check_format(value))
    workflow = value["workflow"]
    if isinstance(value.get("output"), Mapping) and any(map(_is_node, value["output"].values())):
        return Document(check_format(value["output"]))  # what the editor's graphToPrompt gives
    if isinstance(value.get("prompt"), Mapping):
        return Document(check_format(value["prompt"]))
    unknown = sorted(set(value) - {*_USED, *_UNUSED})
    if unknown:
        raise InvalidRequest(f"The request has fields that no request has: {', '.join(unknown)}; it has {_fields()}.")
    values, inputs = (value.get(name) or {} for name in ("set", "inputs"))
    for name, given in (("set", values), ("inputs", inputs)):
        if not isinstance(given, Mapping):
            raise InvalidRequest(f'`{name}` of the request must be an object: {{"3.seed": 42}}.')
    return Document(
        check_format(_named(workflow) if isinstance(workflow, str) else workflow),
        values,
        inputs,
        _deadline(value.get("deadline_s")),
        tuple(name for name in _UNUSED if value.get(name) is not None),
    )


def _named(workflow: str) -> object:
    """The workflow that a request names: JSON in a text, or the name of a file."""
    if workflow.lstrip().startswith("{"):
        return _parsed(workflow, "the workflow of the request")
    from comfy_serverless.settings import Settings

    folders = [folder for folder in (Settings.from_environment().workflows_dir, Path("workflows"), Path()) if folder]
    candidates = [folder / name for folder in folders for name in (workflow, f"{workflow}.json")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise InvalidRequest(
            f"The request names the workflow {workflow[:200]!r}, and there is no such file in "
            f"{', '.join(dict.fromkeys(str(folder) for folder in folders))} (WORKFLOWS_DIR names another folder)."
        )
    return _parsed(_text(_content(str(found)), str(found)), str(found))


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_MOST_BYTES)
    try:
        with Path(name).open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InvalidRequest(f"the workflow {name} cannot be read: {error.strerror}") from error


def _text(content: bytes, name: str) -> str:
    """The text of a file in any Unicode encoding, with or without a mark, packed by gzip or not."""
    try:
        if content.startswith(_GZIP):
            content = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content, _MOST_BYTES)
        return content.decode(json.detect_encoding(content)).lstrip("\ufeff")
    except (UnicodeDecodeError, zlib.error) as error:
        kind = next((kind for head, kind in _OTHERS.items() if content.startswith(head)), None)
        found = f"it is {kind}" if kind else f"it is no Unicode text ({error}): save it as UTF-8"
        raise InvalidRequest(f"the workflow {name} is not JSON: {found}") from error


def _parsed(text: str, name: str) -> object:
    if not text.strip():
        raise InvalidRequest(f"the workflow {name} is empty")
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"the workflow {name} is not JSON: {error}") from error
    except RecursionError:
        raise InvalidWorkflow(f"{name} is nested too deeply to be a workflow.") from None


def _prompt_in_png(content: bytes, name: str) -> str:
    texts = dict(_png_texts(content))
    if "prompt" in texts:
        return texts["prompt"]
    if "workflow" in texts:
        raise InvalidWorkflow(
            f"{name} carries its workflow in the editor's own format only: open it in ComfyUI, "
            "and export it there (Workflow > Export (API))."
        )
    raise InvalidWorkflow(
        f"{name} is a picture that carries no workflow: only what ComfyUI has saved itself does, and services that "
        "show pictures strip it. Give the exported workflow (JSON)."
    )


def _png_texts(content: bytes) -> Iterator[tuple[str, str]]:
    """The texts of a PNG by their names: plain, packed and international ones."""
    position = len(_PNG)
    while position + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        data = content[position + 8 : position + 8 + length]
        position += 12 + length
        name, _, rest = data.partition(b"\0")
        if kind == b"tEXt":
            yield name.decode("latin-1"), rest.decode("latin-1")
        elif kind == b"zTXt":
            yield name.decode("latin-1"), _unpacked(rest[1:]).decode("latin-1")
        elif kind == b"iTXt":
            is_packed, text = rest[:1] == b"\x01", rest[2:].split(b"\0", 2)[-1]
            yield name.decode("latin-1"), (_unpacked(text) if is_packed else text).decode("utf-8", "replace")


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise InvalidRequest(f"the picture's texts are damaged: {error}") from error


def _deadline(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InvalidRequest("`deadline_s` of the request must be a number of seconds above 0.")
    return float(value)


def _is_node(value: object) -> bool:
    return isinstance(value, Mapping) and "class_type" in value


def _fields() -> str:
    return ", ".join((*_USED, *_UNUSED))
