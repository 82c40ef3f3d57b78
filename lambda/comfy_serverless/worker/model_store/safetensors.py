"""Safetensors: models that can be loaded without running code. Their headers are read in the sandbox."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.sandbox.refused import Refused

if TYPE_CHECKING:
    from comfy_serverless.sandbox.sandbox import Sandbox

ENDINGS = frozenset({".safetensors", ".sft"})


class NotSafetensors(Exception):
    """A file that should be safetensors is not: the end of a sentence that begins with its name."""


def is_safetensors_name(name: str) -> bool:
    """Whether a file name says that it is safetensors."""
    return PurePosixPath(name).suffix.lower() in ENDINGS


def check_safetensors(sandbox: Sandbox, descriptor: int, *, deadline: float, turn: str) -> None:
    """Raise NotSafetensors unless an open file's header is right and the tensors it names fill the rest exactly.

    Raises Unusable if that could not be found out, or not before the deadline.
    """
    try:
        sandbox.check_model_header(descriptor, deadline=deadline, turn=turn)
    except Refused as refused:
        if refused.transient or refused.timed_out:
            raise Unusable(str(refused), transient=refused.transient, timed_out=refused.timed_out) from refused
        raise NotSafetensors(str(refused)) from refused
