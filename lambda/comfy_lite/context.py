"""What the engine offers a running node: progress, previews, folders, the prompt it belongs to."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image as PillowImage
from PIL import ImageOps

from comfy_lite.node import Directories

if TYPE_CHECKING:
    from comfy_lite.run import Engine, Run

_PREVIEW_SIDE = 512


class RunContext:
    """A `NodeContext` for one node of one run."""

    def __init__(self, engine: Engine, run: Run, node_id: str) -> None:
        self._engine = engine
        self._run = run
        self._node_id = node_id

    @property
    def directories(self) -> Directories:
        return self._engine.directories

    @property
    def node_id(self) -> str:
        return self._node_id

    @property
    def prompt(self) -> Mapping[str, Any]:
        return self._run.prompt

    @property
    def extra_pnginfo(self) -> Mapping[str, Any] | None:
        return self._run.extra_data.get("extra_pnginfo")

    @property
    def step_s(self) -> float:
        return self._engine.step_s

    def report_progress(self, value: int, maximum: int, preview: PillowImage.Image | None = None) -> None:
        """Send a progress event and, if previews are on and one is given, a JPEG preview that fits 512 x 512.

        Raises:
            Interrupted: a client interrupted the prompt.
        """
        self._engine.interrupts.check()
        shown = preview if self._shows_previews() else None
        self._report(value, maximum, _jpeg(shown) if shown is not None else None, "JPEG")

    def send_image(self, value: int, maximum: int, image: PillowImage.Image) -> None:
        """Report progress with a full-size PNG frame.

        Raises:
            Interrupted: a client interrupted the prompt.
        """
        self._engine.interrupts.check()
        self._report(value, maximum, _encoded(image, "PNG", compress_level=1), "PNG")

    def _report(self, value: int, maximum: int, image: bytes | None, image_format: str) -> None:
        client_id, messages = self._run.client_id, self._engine.messages
        self._run.board.update(self._node_id, value, maximum)
        messages.send("progress_state", self._run.board.snapshot(), client_id)
        negotiated = messages.wants_metadata(client_id)
        if image is not None and negotiated:
            messages.send_image(image, image_format=image_format, client_id=client_id, metadata=self._metadata())
        data = {"value": value, "max": maximum, "prompt_id": self._run.prompt_id, "node": self._node_id}
        messages.send("progress", data, client_id)
        if image is not None and not negotiated:
            messages.send_image(image, image_format=image_format, client_id=client_id)

    def _shows_previews(self) -> bool:
        asked = self._run.extra_data.get("preview_method", "default")
        if asked == "default" or not self._engine.release.takes_preview_methods:
            return self._engine.previews
        return bool(asked != "none")

    def _metadata(self) -> dict[str, Any]:
        return {
            "node_id": self._node_id,
            "prompt_id": self._run.prompt_id,
            "display_node_id": self._node_id,
            "parent_node_id": None,
            "real_node_id": self._node_id,
        }


def _jpeg(image: PillowImage.Image) -> bytes:
    fitted = ImageOps.contain(image.convert("RGB"), (_PREVIEW_SIDE, _PREVIEW_SIDE), PillowImage.Resampling.BILINEAR)
    return _encoded(fitted, "JPEG", quality=95)


def _encoded(image: PillowImage.Image, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
