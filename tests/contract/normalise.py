"""Removes from an answer or a message what differs from run to run, and leaves what a client may rely on."""

from __future__ import annotations

import io
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

_HEX_ID = re.compile(r"^[0-9a-f]{32}$")
TEMP_NAME = re.compile(r"ComfyUI_temp_[a-z]{5}_")
_MODEL_LIST = re.compile(r"\['[^\]]*\.safetensors'[^\]]*\]")
_TENSOR = re.compile(r"^(tensor\()?\[\[")
_PROGRESS = ("progress", "progress_state")
_RUN = (*_PROGRESS, "status")
#: Lists whose order ComfyUI leaves to the hash of strings.
_SETS = ("nodes", "executed", "current_outputs")
#: The looks of the editor's widgets, which do not concern an API client.
_LOOKS = ("tooltip", "display", "control_after_generate", "multiline", "dynamicPrompts", "advanced", "round")


class Normaliser:
    """Knows the ids and the folder of one side: the recording, or the tested engine."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.prompts: list[str] = []
        self._first_number: int | None = None

    def learn_prompt(self, prompt_id: str, number: float) -> None:
        """Learn a prompt's id and number. Prompts are identified by their order, and counted from the first."""
        if prompt_id not in self.prompts:
            self.prompts.append(prompt_id)
        if self._first_number is None and isinstance(number, int):
            self._first_number = number

    def http(self, body: Any) -> Any:
        return self._value(body)

    def frames(self, frames: list[dict[str, Any]]) -> list[tuple[str, Any]]:
        """Messages as (type, data). Runs of progress become one message, because their number depends on the clock.

        So does where a `status` falls into a run, which comes of what other clients do meanwhile: it ends none.
        """
        result: list[tuple[str, Any]] = []
        for frame in frames:
            kind, data = frame["type"], self._value(frame["data"])
            if kind == "logs":
                continue
            if kind == "progress_state":
                data = {node: [state["state"], state["max"]] for node, state in data["nodes"].items()}
            if kind == "progress":
                data = {**data, "value": "some"}
            if kind in _PROGRESS and (kind, data) in takewhile(lambda message: message[0] in _RUN, reversed(result)):
                continue
            result.append((kind, data))
        return result

    def _value(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            if "comfyui_version" in value or "vram_total" in value:
                return sorted(value.keys() - {"comfy_lite_version"})
            if "extra_info" in value and "\n" in value["details"]:  # one line per problem, in the order of a set
                value = {**value, "details": "\n".join(sorted(value["details"].splitlines()))}
            return {self._text(name): self._value(item, name) for name, item in value.items() if name not in _LOOKS}
        if isinstance(value, list):
            return self._list([self._value(item) for item in value], key)
        if isinstance(value, str):
            return self._text(value)
        if key in ("timestamp", "create_time"):
            return 0
        if key == "number":
            return self._number(value)
        if isinstance(value, float) and value != value:
            return "NaN"
        return value

    def _list(self, items: list[Any], key: str) -> Any:
        if key == "traceback":
            return bool(items)
        if key == "dependent_outputs":
            return bool(items)  # which of several outputs these are depends on the order of a set
        if items and all(str(item).endswith((".safetensors", ".ckpt")) for item in items):
            return "models"
        if key in _SETS:
            return sorted(items)
        if key == "errors":
            return sorted(items, key=lambda item: (item["details"], item["type"]))
        if key == "input_config" and len(items) == 1:
            return [*items, {}]
        if len(items) == 5 and isinstance(items[2], dict) and isinstance(items[4], list):  # an item of the queue
            return [self._number(items[0]), *items[1:4], sorted(items[4])]
        return items

    def _number(self, number: float) -> float | str:
        """A place in the queue, counted from the first that this client got."""
        if not isinstance(number, int) or self._first_number is None:
            return "NaN" if number != number else number
        return number - self._first_number if number >= 0 else number + self._first_number

    def _text(self, text: str) -> str:
        if text in self.prompts:
            return f"prompt {self.prompts.index(text)}"
        if _TENSOR.match(text):
            return "a tensor"
        if _HEX_ID.match(text):
            return "a generated id"
        text = _MODEL_LIST.sub("[models]", text)
        return TEMP_NAME.sub("ComfyUI_temp_xxxxx_", text.replace(self._folder, "FOLDER"))


def image_facts(data: bytes) -> dict[str, Any]:
    """Format, mode and size; for data that is no image, its beginning."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return {"format": image.format, "mode": image.mode, "size": list(image.size)}
    except UnidentifiedImageError:
        return {"format": f"no image: {data[:80]!r}", "mode": "", "size": []}
