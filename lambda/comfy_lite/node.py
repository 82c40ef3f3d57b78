"""What a node is: its declaration, what it receives, and what it returns.

The executor and the nodes share this vocabulary. Images are ``float32`` arrays of shape
``(batch, height, width, channels)`` with values from 0 to 1, masks ``(batch, height, width)``: the layout of
ComfyUI's IMAGE and MASK tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

Pixels = npt.NDArray[np.float32]

#: One input as `/object_info` shows it: ``("INT", {"default": 64, "min": 1})``, ``("IMAGE",)`` or ``(["a", "b"],)``.
InputSpec = tuple[Any, ...]
#: Inputs by name, or a function that returns them afresh each time (files in a folder change).
Inputs = Mapping[str, InputSpec] | Callable[["Directories"], Mapping[str, InputSpec]]


@dataclass(frozen=True, slots=True)
class Directories:
    """The folders ComfyUI calls input, output and temp, and the places of models outside its own folders."""

    input: Path
    output: Path
    temp: Path
    models: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    def model_files(self, folder: str) -> list[str]:
        """The names of all files in the places of a model folder, subfolders included."""
        found = {
            path.relative_to(place).as_posix()
            for place in self.models.get(folder, ())
            for path in place.rglob("*")
            if path.is_file()
        }
        return sorted(found)


class NodeContext(Protocol):
    """What the engine offers an executing node."""

    @property
    def directories(self) -> Directories: ...
    @property
    def node_id(self) -> str: ...
    @property
    def prompt(self) -> Mapping[str, Any]:
        """The whole API-format graph as submitted (for PNG metadata)."""

    @property
    def extra_pnginfo(self) -> Mapping[str, Any] | None:
        """`extra_data.extra_pnginfo` of the submit."""

    @property
    def step_s(self) -> float:
        """How long a sampling step of the text-to-image stand-in should take, in seconds."""

    def report_progress(self, value: int, maximum: int, preview: PillowImage.Image | None = None) -> None:
        """Send a progress event and, if given, a JPEG preview. Raises if the prompt was interrupted."""

    def send_image(self, value: int, maximum: int, image: PillowImage.Image) -> None:
        """Report progress with a full-size PNG frame (SaveImageWebsocket)."""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """The results of a node: one value per declared output, and what it shows (`executed.output`)."""

    outputs: tuple[Any, ...] = ()
    ui: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NodeType:
    """A node class: what `/object_info` says of it, and the function that executes it.

    `execute` is called as ``execute(context, **inputs)`` and returns a `NodeResult`. `fingerprint` (ComfyUI's
    IS_CHANGED) is called with ``(directories, **constant_inputs)`` and returns a value that changes when the node
    must run again. `validate` (VALIDATE_INPUTS) is called the same way and returns None or the reason for a refusal;
    it alone checks the choices and limits of the inputs among its parameters. `display_name` is None for nodes without
    one (`/object_info` then has null). `entry` holds what the `/object_info` entry has beyond the fields above.
    """

    class_type: str
    display_name: str | None
    category: str
    execute: Callable[..., NodeResult]
    required: Inputs = field(default_factory=dict)
    optional: Inputs = field(default_factory=dict)
    hidden: Mapping[str, Any] = field(default_factory=dict)
    returns: tuple[str, ...] = ()
    return_names: tuple[str, ...] = ()
    is_output: bool = False
    python_module: str = "nodes"
    description: str = ""
    fingerprint: Callable[..., Any] | None = None
    validate: Callable[..., str | None] | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)
