"""Finds texts in headers of JSON: `__metadata__` of safetensors (and .latent), `extras` of GLB."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from comfy_serverless.sandbox.embedded.finds import Finds, check_containers, decoded
from comfy_serverless.sandbox.embedded.window import Window, numbers
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.uncollected import load_json

GLB = b"glTF"
_JSON_CHUNK = b"JSON"
#: As `model_headers` has it: no model that is published has a longer one.
_MOST_HEADER_BYTES = 25_000_000
_LENGTH_BYTES = 8
_MOST_SCENES = 100


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a header that may be, and with its first brace."""
    return len(head) > _LENGTH_BYTES and int.from_bytes(head[:_LENGTH_BYTES], "little") < 1 << 32 and head[8:9] == b"{"


def find_in_safetensors(window: Window, finds: Finds) -> None:
    """Look at the texts that stand beside the tensors."""
    size = int.from_bytes(window.read(0, _LENGTH_BYTES), "little")
    if size > _MOST_HEADER_BYTES:
        raise Refused(f"has a header of {size} bytes; the limit for safetensors is {_MOST_HEADER_BYTES}")
    header = _parsed(window.read(_LENGTH_BYTES, size))
    _look(header.get("__metadata__"), finds)


def find_in_glb(window: Window, finds: Finds) -> None:
    """Look at the extras of the asset, where SaveGLB writes them, of the scenes, and of the whole."""
    length, kind = numbers("<I4s", window.read(12, 8)) or (0, b"")
    if kind != _JSON_CHUNK:
        return
    document = _parsed(window.read(20, length))
    _look(_member(document.get("asset"), "extras"), finds)
    _look(document.get("extras"), finds)
    scenes = document.get("scenes")
    for scene in scenes[:_MOST_SCENES] if isinstance(scenes, list) else ():
        _look(_member(scene, "extras"), finds)


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        document = load_json(check_containers(decoded(content)))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, Mapping) else {}


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None


def _look(values: object, finds: Finds) -> None:
    """Look at texts, and at objects that others write where ComfyUI writes texts."""
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(value, str):
            finds.add(name, value)
        elif isinstance(value, Mapping) and name.lower() in finds.named:
            finds.add(name, json.dumps(value))
