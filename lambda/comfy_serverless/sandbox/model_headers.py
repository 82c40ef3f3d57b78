"""Checks models that can be loaded without running code. Safetensors can: a JSON header, then numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO

from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.uncollected import load_json

if TYPE_CHECKING:
    from comfy_serverless.sandbox.limits import Budget

#: The longest header that Hugging Face's Hub and client read (`huggingface_hub`'s SAFETENSORS_MAX_HEADER_LENGTH):
#: no model that is published there has a longer one. A tensor takes some 100 bytes of it, and the largest models have
#: a few thousand tensors. The format itself allows 100 MB.
_MAX_HEADER_BYTES = 25_000_000
#: Python's objects for a header of so many bytes, of tensors with names of usual length: measured.
_OBJECTS_BYTES = 320 << 20
_LENGTH_BYTES = 8


def check_model_header(file: BinaryIO, *, budget: Budget) -> None:
    """Raise Refused unless a file's safetensors header is right and the tensors it names fill the rest exactly."""
    budget.allow(memory_bytes=_OBJECTS_BYTES)
    descriptor = file.fileno()  # its position is shared with the program, which may be reading
    size_bytes = os.fstat(descriptor).st_size
    header_bytes = int.from_bytes(os.pread(descriptor, _LENGTH_BYTES, 0), "little")
    tensors_bytes = size_bytes - _LENGTH_BYTES - header_bytes
    if header_bytes < 2 or tensors_bytes < 0:
        raise Refused("is not a safetensors file: its header does not fit into it")
    if header_bytes > _MAX_HEADER_BYTES:
        raise Refused(f"has a header of {header_bytes} bytes; the limit for safetensors is {_MAX_HEADER_BYTES}")
    try:
        header = load_json(os.pread(descriptor, header_bytes, _LENGTH_BYTES))
    except (ValueError, RecursionError):
        raise Refused("is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise Refused("is not a safetensors file: its header is no JSON object")
    ends = [_end_of(name, entry) for name, entry in header.items() if name != "__metadata__"]
    if max(ends, default=0) != tensors_bytes:
        raise Refused(
            f"is a damaged safetensors file: it has {tensors_bytes} bytes of tensors, not {max(ends, default=0)}"
        )


def _end_of(name: str, entry: Any) -> int:  # noqa: ANN401 - any JSON
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    match offsets:
        case [int(begin), int(end)] if 0 <= begin <= end:
            return end
    raise Refused(f"is a damaged safetensors file: tensor {name[:80]!r} has no place in it")
