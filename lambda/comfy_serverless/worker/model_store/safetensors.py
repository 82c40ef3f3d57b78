"""Checks models that can be loaded without running code. Safetensors can: a JSON header, then numbers."""

from __future__ import annotations

import json
import os
from pathlib import PurePosixPath
from typing import Any

ENDINGS = frozenset({".safetensors", ".sft"})
#: The format's own limit for its header.
_MAX_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8


class NotSafetensors(Exception):
    """A file that should be safetensors is not: the end of a sentence that begins with its name."""


def is_safetensors_name(name: str) -> bool:
    """Whether a file name says that it is safetensors."""
    return PurePosixPath(name).suffix.lower() in ENDINGS


def check_safetensors(descriptor: int, *, size_bytes: int) -> None:
    """Raise NotSafetensors unless an open file's header is right and the tensors it names fill the rest exactly."""
    header_bytes = int.from_bytes(os.pread(descriptor, _LENGTH_BYTES, 0), "little")
    tensors_bytes = size_bytes - _LENGTH_BYTES - header_bytes
    if not 2 <= header_bytes <= _MAX_HEADER_BYTES or tensors_bytes < 0:
        raise NotSafetensors("is not a safetensors file: its header does not fit into it")
    try:
        header = json.loads(os.pread(descriptor, header_bytes, _LENGTH_BYTES))
    except (ValueError, RecursionError):
        raise NotSafetensors("is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise NotSafetensors("is not a safetensors file: its header is no JSON object")
    ends = [_end_of(name, entry) for name, entry in header.items() if name != "__metadata__"]
    if max(ends, default=0) != tensors_bytes:
        raise NotSafetensors(
            f"is a damaged safetensors file: it has {tensors_bytes} bytes of tensors, not {max(ends, default=0)}"
        )


def _end_of(name: str, entry: Any) -> int:  # noqa: ANN401 - any JSON
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    match offsets:
        case [int(begin), int(end)] if 0 <= begin <= end:
            return end
    raise NotSafetensors(f"is a damaged safetensors file: tensor {name[:80]!r} has no place in it")
