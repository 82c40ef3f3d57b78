"""Reads what `run` is given: a workflow, a request with one, or a picture that ComfyUI has made; a file or stdin."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_serverless.errors import InvalidRequest, InvalidWorkflow
from comfy_serverless.graph.workflow import check_format
from comfy_serverless.jobs.shapes import shape
from comfy_serverless.json_text import parse_json

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_BYTES = 100_000_000
#: The fields of a request (docs/a-job.md) that a run here has a use for, and those that it has none for.
_USED = ("workflow", "set", "inputs", "deadline_s", "extra_data")
_UNUSED = ("job_id", "models", "output", "reply", "metadata")


@dataclass(frozen=True, slots=True)
class Document:
    """A workflow to be run, and what was written beside it.

    Attributes:
        graph: checked.
        values: `set` of a request.
        inputs: `inputs` of a request.
        beside: fields of a request that mean nothing for a run on this machine.
        extra_data: what ComfyUI gets beside the workflow.
        warnings: what was left out of what was read, for people.
    """

    graph: dict[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    extra_data: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of those fields."""
        return tuple(self.beside)


def read_document(name: str) -> Document:
    """Read a file, or stdin for `-`.

    Raises:
        InvalidRequest: it cannot be read, or is not what is wanted.
        InvalidWorkflow: the workflow is none.
    """
    content = _content(name)
    if content.startswith(_PNG):
        return _document(_prompt_in_png(content, name))
    return _document(parse_json(content, source=f"the workflow {name}"))


def _document(value: object) -> Document:
    shaped = shape(value, known=(*_USED, *_UNUSED))
    fields = shaped.fields
    if "workflow" not in fields:
        return Document(check_format(value))  # which says what it is instead
    unknown = sorted(set(fields) - {*_USED, *_UNUSED})
    if unknown:
        raise InvalidRequest(f"The request has fields that no request has: {', '.join(unknown)}; it has {_fields()}.")
    for name in ("set", "inputs", "extra_data"):
        if not isinstance(fields.get(name, {}), Mapping):
            raise InvalidRequest(f'`{name}` of the request must be an object: {{"3.seed": 42}}.')
    workflow = fields["workflow"]
    return Document(
        check_format(_named(workflow) if isinstance(workflow, str) else workflow),
        fields.get("set", {}),
        fields.get("inputs", {}),
        _deadline(fields.get("deadline_s")),
        {name: fields[name] for name in _UNUSED if name in fields},
        fields.get("extra_data", {}),
        shaped.warnings,
    )


def _named(workflow: str) -> object:
    """The workflow in a file that a request names."""
    from comfy_serverless.settings import Settings

    folders = [folder for folder in (Settings.from_environment().workflows_dir, Path("workflows"), Path()) if folder]
    candidates = [folder / name for folder in folders for name in (workflow, f"{workflow}.json")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise InvalidRequest(
            f"The request names the workflow {workflow[:200]!r}, and there is no such file in "
            f"{', '.join(dict.fromkeys(str(folder) for folder in folders))} (WORKFLOWS_DIR names another folder)."
        )
    return parse_json(found.read_bytes(), source=f"the workflow {found}")


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(_MOST_BYTES)
    try:
        with Path(name).open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InvalidRequest(f"the workflow {name} cannot be read: {error.strerror}") from error


def _prompt_in_png(content: bytes, name: str) -> object:
    """The workflow in a picture, with what the editor saved beside it."""
    texts = dict(_png_texts(content))
    if "prompt" in texts:
        pair = {part: texts[part] for part in ("prompt", "workflow") if part in texts}
        return {part: parse_json(text, source=f"the {part} in {name}") for part, text in pair.items()}
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


def _fields() -> str:
    return ", ".join((*_USED, *_UNUSED))
