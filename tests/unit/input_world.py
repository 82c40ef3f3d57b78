"""What the tests of inputs are about: pictures, graphs, and a stand-in for ComfyUI's input folder."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from comfy_serverless.connector.folders import place_file

#: Prepares a graph: `prepare(graph, inputs, within_s=…, **settings)`. See the fixture.
Prepare = Callable[..., dict[str, Any]]


def picture(color: str = "red", size: tuple[int, int] = (8, 8), image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, image_format)
    return file.getvalue()


def name_of(content: bytes, ending: str = ".png", *, folder: str = "comfy-serverless/") -> str:
    return folder + hashlib.sha256(content).hexdigest()[:32] + ending


def data_url(content: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def graph(**inputs: Any) -> dict[str, Any]:
    return {
        "10": {"class_type": "LoadImage", "inputs": {"image": "example.png", **inputs}, "_meta": {"title": "Photo"}},
        "11": {"class_type": "ImageInvert", "inputs": {"image": ["10", 0]}},
        "12": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "x"}},
    }


class InputFolder:
    """Takes files as the connector of an engine elsewhere does, and remembers them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.uploads = 0
        self.starts = 0
        self.failure: Exception | None = None
        self.upload_failure: Exception | None = None
        self.input_directory: Path | None = None
        self.of_others: set[str] = set()

    def is_for_all(self, name: str) -> bool:
        return name not in self.of_others

    def wait_ready(self, timeout_s: float | None = None) -> None:
        if self.failure:
            raise self.failure

    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str:
        if self.upload_failure:
            raise self.upload_failure
        self.uploads += 1
        value = f"{subfolder}/{name}" if subfolder else name
        self.files[value] = file.read_bytes() if isinstance(file, Path) else file.read()
        return value

    def get_image(self, filename: str, subfolder: str, folder_type: str) -> bytes:
        try:
            return self.files[f"{subfolder}/{filename}" if subfolder else filename]
        except KeyError as error:
            raise FileNotFoundError(filename) from error


class LocalFolder(InputFolder):
    """Takes files as the connector of an engine on this machine does."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.input_directory: Path = folder

    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str:
        if self.failure:
            raise self.failure
        assert isinstance(file, Path)
        self.uploads += 1
        if place_file(file, name, subfolder=subfolder, folder=self.input_directory):
            return f"{subfolder}/{name}" if subfolder else name
        return place_beside(file, name, subfolder=subfolder, folder=self.input_directory)

    @property
    def names(self) -> set[str]:
        root = self.input_directory
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def place_beside(file: Path, name: str, *, subfolder: str, folder: Path) -> str:
    """What ComfyUI's upload does when the name is taken by other bytes."""
    stem, _, ending = name.rpartition(".")
    assert place_file(file, f"{stem} (1).{ending}", subfolder=subfolder, folder=folder)
    return f"{subfolder}/{stem} (1).{ending}".removeprefix("/")
