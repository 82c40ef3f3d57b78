"""Runs a node case on an engine over HTTP, or in this process, and gathers the results in a comparable form."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import requests
import websocket
from PIL import Image, ImageSequence

from comfy_lite.node import Directories, NodeResult
from comfy_lite.nodes import ALL
from tests.contract.node_cases import COPIES, DATA, EXTRA_PNGINFO, FIRST_RELEASE, INPUTS, Case

Levels = npt.NDArray[np.uint8]

_RUN_TIMEOUT_S = 60.0
_TEMPORARY_NAME = re.compile(r"ComfyUI_temp_[a-z]{5}_")
#: ComfyUI adds a node's fingerprint to the prompt while it runs; its form is the engine's own affair.
_FINGERPRINT = re.compile(r", \"is_changed\": \[[^\]]*\]")
_PNG_FRAME = b"\0\0\0\x01\0\0\0\x02"


@dataclass
class Result:
    """The results of a case. `shown` is the history's outputs, in the order of the nodes."""

    shown: list[Any] = field(default_factory=list)
    facts: list[Any] = field(default_factory=list)
    images: list[Levels] = field(default_factory=list)
    error: str | None = None

    def add_shown(self, ui: Mapping[str, Any], data_of: Any) -> None:
        self.shown.append(json.loads(_TEMPORARY_NAME.sub("ComfyUI_temp_?_", json.dumps(ui))))
        for file in ui.get("images", ()):
            self.add_file(data_of(file))

    def add_file(self, data: bytes) -> None:
        """Add the frames of an image file, and everything else in it."""
        with Image.open(io.BytesIO(data)) as picture:
            frames = list(ImageSequence.Iterator(picture))
            self.images += [np.asarray(frame.convert(frame.mode)) for frame in frames]
            self.facts.append(
                {
                    "format": picture.format,
                    "mode": picture.mode,
                    "size": picture.size,
                    "frames": len(frames),
                    "duration": picture.info.get("duration"),
                    "loop": picture.info.get("loop"),
                    "metadata": _metadata(picture, data),
                }
            )

    def forget_metadata(self) -> None:
        """Drop the metadata: a few cases suffice to show that the prompt is in the file."""
        for fact in self.facts:
            del fact["metadata"]

    def as_json(self) -> dict[str, Any]:
        return dict(json.loads(json.dumps({"shown": self.shown, "facts": self.facts, "error": self.error})))


class HttpRunner:
    """Runs cases on the engine at `url`. Each runner uploads the inputs anew."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = requests.Session()
        for path in sorted(INPUTS.iterdir()):
            self._upload(path, path.name, "", "input")
        for source, name, subfolder, kind in COPIES:
            self._upload(INPUTS / source, name, subfolder, kind)

    def run(self, case: Case) -> Result:
        client_id = uuid.uuid4().hex
        frames = _Frames(self._url, client_id) if case.node == "SaveImageWebsocket" else None
        body = {"prompt": case.workflow, "client_id": client_id, "extra_data": {"extra_pnginfo": EXTRA_PNGINFO}}
        answer = self._http.post(f"{self._url}/prompt", json=body)
        if answer.status_code != requests.codes.ok:
            return Result(error=answer.json()["error"]["type"])
        entry = self._wait(answer.json()["prompt_id"])
        result = Result(error=_error_of(entry))
        for node_id in sorted(entry["outputs"], key=int):
            result.add_shown(entry["outputs"][node_id], self._view)
        if frames is not None:
            for data in frames.gather():
                result.add_file(data)
        if not case.about_files:
            result.forget_metadata()
        return result

    def _upload(self, path: Path, name: str, subfolder: str, kind: str) -> None:
        files = {"image": (name, path.read_bytes())}
        data = {"subfolder": subfolder, "type": kind, "overwrite": "true"}
        self._http.post(f"{self._url}/upload/image", files=files, data=data).raise_for_status()

    def _wait(self, prompt_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + _RUN_TIMEOUT_S
        while time.monotonic() < deadline:
            history = self._http.get(f"{self._url}/history/{prompt_id}").json()
            if history:
                return dict(history[prompt_id])
            time.sleep(0.003)
        raise TimeoutError(prompt_id)

    def _view(self, file: Mapping[str, str]) -> bytes:
        answer = self._http.get(f"{self._url}/view", params=dict(file))
        answer.raise_for_status()
        return answer.content


class _Frames:
    """The pictures that one client's websocket receives."""

    def __init__(self, url: str, client_id: str) -> None:
        address = url.replace("http", "ws", 1)
        self._socket = websocket.create_connection(
            f"{address}/ws?clientId={client_id}", timeout=_RUN_TIMEOUT_S, suppress_origin=True
        )

    def gather(self) -> list[bytes]:
        pictures = []
        while True:
            message = self._socket.recv()
            if isinstance(message, bytes):
                assert message.startswith(_PNG_FRAME)
                pictures.append(message.removeprefix(_PNG_FRAME))
            elif json.loads(message)["type"] == "executing" and json.loads(message)["data"]["node"] is None:
                self._socket.close()
                return pictures


class InProcessRunner:
    """Executes the nodes of comfy_lite directly, without an engine around them."""

    def __init__(self, base: Path) -> None:
        self.directories = Directories(input=base / "input", output=base / "output", temp=base / "temp")
        for folder in (self.directories.input / "sub/folder", self.directories.output, self.directories.temp):
            folder.mkdir(parents=True)
        shutil.copytree(INPUTS, self.directories.input, dirs_exist_ok=True)
        for source, name, subfolder, kind in COPIES:
            shutil.copy(INPUTS / source, base / kind / subfolder / name)

    def run(self, case: Case) -> Result:
        result = Result()
        made: dict[str, NodeResult] = {}
        context = FakeContext(self.directories, case.workflow, extra_pnginfo=EXTRA_PNGINFO)
        for node_id, node in case.workflow.items():
            inputs = {name: _resolved(value, made) for name, value in node["inputs"].items()}
            try:
                made[node_id] = ALL[node["class_type"]].execute(context, **inputs)
            except Exception as error:
                result.error = type(error).__name__
                break
            if made[node_id].ui:
                result.add_shown(made[node_id].ui or {}, self._read)
        for image in context.frames:
            result.add_file(image)
        if not case.about_files:
            result.forget_metadata()
        return result

    def _read(self, file: Mapping[str, str]) -> bytes:
        folder = getattr(self.directories, file["type"])
        return Path(folder, file["subfolder"], file["filename"]).read_bytes()


class FakeContext:
    """A `NodeContext` that keeps what nodes report."""

    def __init__(
        self,
        directories: Directories,
        prompt: Mapping[str, Any] | None = None,
        *,
        extra_pnginfo: Mapping[str, Any] | None = None,
        step_s: float = 0.0,
    ) -> None:
        self.directories = directories
        self.node_id = "1"
        self.prompt = prompt or {}
        self.extra_pnginfo = extra_pnginfo
        self.step_s = step_s
        self.progress: list[tuple[int, int]] = []
        self.previews: list[Image.Image] = []
        self.frames: list[bytes] = []

    def report_progress(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        self.progress.append((value, maximum))
        if preview is not None:
            self.previews.append(preview)

    def send_image(self, value: int, maximum: int, image: Image.Image) -> None:
        self.progress.append((value, maximum))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        self.frames.append(buffer.getvalue())


class Expectations:
    """What a real ComfyUI made of the cases, as stored by `record_nodes`: 0.3.64, and a later one where it differs."""

    def __init__(self, release: str = FIRST_RELEASE) -> None:
        self._results: dict[str, Any] = {}
        self._images: dict[str, list[Levels]] = {}
        for recorded in dict.fromkeys((FIRST_RELEASE, release)):
            results = json.loads((DATA / f"expected-{recorded}.json").read_text())
            self._results |= results
            self._images |= {name: [] for name in results}
            with np.load(DATA / f"expected-{recorded}.npz") as arrays:
                for key, image in arrays.items():
                    self._images[key.rpartition("#")[0]].append(image)

    def of(self, case: Case) -> Result:
        return Result(**self._results[case.name], images=self._images[case.name])


def difference(result: Result, expected: Result, name: str) -> int:
    """The largest difference between two results, in levels. Fails if anything but pixels differs."""
    assert result.as_json() == expected.as_json(), name
    assert [image.shape for image in result.images] == [image.shape for image in expected.images], name
    pairs = zip(result.images, expected.images, strict=True)
    return max((int(np.abs(a.astype(int) - b.astype(int)).max(initial=0)) for a, b in pairs), default=0)


def _resolved(value: Any, made: Mapping[str, NodeResult]) -> Any:
    is_link = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
    return made[value[0]].outputs[value[1]] if is_link else value


def _error_of(entry: Mapping[str, Any]) -> str | None:
    for kind, message in entry["status"]["messages"]:
        if kind == "execution_error":
            return str(message["exception_type"])
    return None


def _metadata(picture: Image.Image, data: bytes) -> dict[str, Any]:
    return {
        "text": {key: _FINGERPRINT.sub("", text) for key, text in getattr(picture, "text", {}).items()},
        "exif": {str(tag): _FINGERPRINT.sub("", str(value)) for tag, value in picture.getexif().items()},
        "comf": [_FINGERPRINT.sub("", chunk.decode("latin-1")) for chunk in _private_chunks(data)],
    }


def _private_chunks(data: bytes) -> list[bytes]:
    """The contents of the `comf` chunks of a PNG file."""
    chunks, position = [], 8
    while data.startswith(b"\x89PNG") and position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"comf":
            chunks.append(data[position + 8 : position + 8 + length])
        position += 12 + length
    return chunks
