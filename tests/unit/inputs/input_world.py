"""What the tests of inputs are about: pictures, graphs, and a stand-in for ComfyUI's input folder."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

#: Prepares a graph: `prepare(graph, inputs, within_s=…, **settings)`. See the fixture.
Prepare = Callable[..., dict[str, Any]]


def picture(color: str = "red", size: tuple[int, int] = (8, 8), image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, image_format)
    return file.getvalue()


def name_of(content: bytes, ending: str = ".png") -> str:
    return hashlib.sha256(content).hexdigest()[:32] + ending


def data_url(content: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def graph(**inputs: Any) -> dict[str, Any]:
    return {
        "10": {"class_type": "LoadImage", "inputs": {"image": "example.png", **inputs}, "_meta": {"title": "Photo"}},
        "11": {"class_type": "ImageInvert", "inputs": {"image": ["10", 0]}},
        "12": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "x"}},
    }


class InputFolder:
    """Takes files as the connector does, and remembers them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.uploads = 0
        self.failure: Exception | None = None

    def upload_file(self, file: BinaryIO | Path, name: str, *, subfolder: str = "", overwrite: bool = False) -> str:
        if self.failure:
            raise self.failure
        self.uploads += 1
        self.files[name] = file.read_bytes() if isinstance(file, Path) else file.read()
        return name
