"""A node that keeps memory for good: of the embedded engine, and of a real ComfyUI that this file is copied to."""

from __future__ import annotations

import os
from typing import Any

_KEPT: list[bytes] = []


def keep(megabytes: int) -> int:
    """Keep so much more memory, and return the id of the process."""
    _KEPT.append(b"\1" * (megabytes * 1_000_000))
    return os.getpid()


class ContractLeak:
    """Keeps memory with each run; shows the id of the process. `name` is for what looks like a model's name."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "contract"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"megabytes": ("INT", {"default": 0, "max": 10_000}), "name": ("STRING", {"default": ""})}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:  # noqa: N802
        return float("nan")

    def run(self, megabytes: int, name: str) -> dict[str, Any]:
        return {"ui": {"text": [str(keep(megabytes))]}}


NODE_CLASS_MAPPINGS = {"ContractLeak": ContractLeak}
