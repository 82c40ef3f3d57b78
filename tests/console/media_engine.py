"""The embedded engine with one more node: it makes films, sounds, models, and what a browser must not run.

Takes the engine's own command line. `MakesMedia` really encodes what it saves, with the PyAV that thumbnails are made
with; what is called hostile is what its name does not say, and would run if a page took it for more than a file.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from comfy_lite.__main__ import main
from comfy_lite.node import NodeContext, NodeResult, NodeType

#: How long films and sounds are.
SECONDS: Final = 2
_RATE, _HERTZ = 12, 44_100
#: Sets a flag, if anything takes it for more than a text.
RUNS: Final = (
    "<!doctype html><title>x</title><img src=x onerror=globalThis.ran=1><script>globalThis.ran=1;alert(1)</script>"
)
EVIL_SVG: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="globalThis.ran=1;alert(1)">'
    '<script>globalThis.ran=1;alert(1)</script><rect width="9" height="9" fill="red"/></svg>'
)


def film(form: str, codec: str) -> bytes:
    """A film of a grey that brightens, without a sound."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=_RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(SECONDS * _RATE):
            picture = np.full((64, 96, 3), 40 + 8 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def sound(form: str, codec: str) -> bytes:
    """A tone of 440 Hz."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=_HERTZ, layout="mono")
        for frame in _tone(stream.format.name):
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def _tone(form: str) -> Iterator[av.AudioFrame]:
    resampler = av.AudioResampler(format=form, layout="mono", rate=_HERTZ)
    wave = (8000 * np.sin(np.arange(SECONDS * _HERTZ) * 2 * np.pi * 440 / _HERTZ)).astype(np.int16)
    for start in range(0, len(wave), 1152):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1152], format="s16", layout="mono")
        frame.sample_rate, frame.pts = _HERTZ, start
        yield from resampler.resample(frame)


def model() -> bytes:
    """A triangle, as a binary glTF."""
    corners = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
    described = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(corners)}],
        "bufferViews": [{"buffer": 0, "byteLength": len(corners)}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]}
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(corners), b"BIN\0") + corners
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


#: The key of a node's answer under which ComfyUI and its packs show such a file, the file's ending, and what makes it.
MAKES: Final[dict[str, tuple[str, str, Callable[[], bytes]]]] = {
    "mp4": ("images", ".mp4", lambda: film("mp4", "libx264")),
    "webm": ("gifs", ".webm", lambda: film("webm", "libvpx-vp9")),
    "flac": ("audio", ".flac", lambda: sound("flac", "flac")),
    "mp3": ("audio", ".mp3", lambda: sound("mp3", "libmp3lame")),
    "wav": ("audio", ".wav", lambda: sound("wav", "pcm_s16le")),
    "txt": ("files", ".txt", lambda: f"a fox\n{RUNS}\n".encode()),
    "glb": ("3d", ".glb", model),
    "svg": ("images", ".svg", lambda: EVIL_SVG.encode()),
    "a page": ("files", ".html", lambda: RUNS.encode()),
    "a page as a film": ("images", ".mp4", lambda: RUNS.encode()),
    "a page as a sound": ("audio", ".mp3", lambda: RUNS.encode()),
    "a page as a picture": ("images", ".png", lambda: RUNS.encode()),
}


def _make(context: NodeContext, *, kinds: str, filename_prefix: str) -> NodeResult:
    shown: dict[str, list[Any]] = {}
    folder: Path = context.directories.output
    for number, kind in enumerate(kinds.split(", ")):
        key, ending, content = MAKES[kind]
        name = f"{filename_prefix}_{number:05}_{ending}"
        (folder / name).write_bytes(content())
        shown.setdefault(key, []).append({"filename": name, "subfolder": "", "type": "output"})
    return NodeResult(ui={**shown, "text": [f"made: {kinds} {RUNS}"]})


NODES = {
    "MakesMedia": NodeType(
        "MakesMedia",
        "Makes media",
        "console",
        _make,
        required={
            "kinds": ("STRING", {"default": ", ".join(MAKES)}),
            "filename_prefix": ("STRING", {"default": "media"}),
        },
        is_output=True,
        python_module="custom_nodes.media",
    )
}

if __name__ == "__main__":
    os._exit(main(nodes=NODES))
