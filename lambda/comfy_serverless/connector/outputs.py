"""What a prompt made: every output of every node, typed, with its bytes read lazily.

`outputs_of_node` turns what a node showed (`executed.output`, or the history's `outputs[node]`) into `Output`
values. It decides nothing by node class and drops nothing: files under any key, texts, and values of custom nodes
that fit no convention all become outputs (shared rules: ComfyUI's core nodes, section 7 of the wire contract).
"""

from __future__ import annotations

import io
import json
import mimetypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

#: Keys that describe the other keys of the same node instead of naming results.
_FLAG_KEYS = frozenset({"animated"})

_CONTENT_TYPES = {
    ".apng": "image/apng",
    ".avif": "image/avif",
    ".exr": "image/x-exr",
    ".flac": "audio/flac",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".latent": "application/octet-stream",
    ".m4a": "audio/mp4",
    ".mkv": "video/x-matroska",
    ".obj": "model/obj",
    ".opus": "audio/opus",
    ".safetensors": "application/octet-stream",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


class OutputKind(StrEnum):
    """The Comfy API v2's kinds of outputs."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    TEXT = "text"
    LATENT = "latent"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result of one node.

    Attributes:
        node_id: the node of the submitted graph that made it (for nodes made by expansion: their parent there).
        class_type: that node's class, "" when the graph does not have the node.
        title: the title the author gave the node, or its class.
        index: position among this node's outputs, from 0.
        name: file name; texts and frames get one.
        subfolder: folder below the engine's output (or temp) folder, "" for none.
        folder_type: "output", "temp" or "input"; "" for what never was a file.
        path: the file, where the engine's folders are on this machine.
        cached: whether it comes from an earlier prompt because nothing had changed.
    """

    node_id: str
    class_type: str
    title: str
    index: int
    name: str
    subfolder: str
    folder_type: str
    kind: OutputKind
    content_type: str
    path: Path | None = None
    cached: bool = False
    content: bytes | None = field(default=None, repr=False)
    fetch: Callable[[], BinaryIO] | None = field(default=None, repr=False, compare=False)

    def open(self) -> BinaryIO:
        """The bytes as a stream, from disk when the engine is local. Close it.

        Raises:
            FileNotFoundError: the engine named a file that is gone.
        """
        if self.content is not None:
            return io.BytesIO(self.content)
        if self.path is not None:
            return self.path.open("rb")
        if self.fetch is None:
            raise FileNotFoundError(f"{self.name} of node {self.node_id} has neither a file nor an engine")
        return self.fetch()

    def read(self) -> bytes:
        """All bytes at once. Prefer `open` for large files."""
        with self.open() as stream:
            return stream.read()

    @property
    def size_bytes(self) -> int:
        """Size in bytes. Costs a download when the engine is on another machine."""
        if self.content is not None:
            return len(self.content)
        if self.path is not None:
            return self.path.stat().st_size
        return len(self.read())


def content_type_of(name: str) -> str:
    """The media type a file name stands for; `application/octet-stream` when it tells nothing."""
    suffix = Path(name).suffix.lower()
    return _CONTENT_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def kind_of(key: str, content_type: str) -> OutputKind:
    """What an output is, from the key it stood under and its media type."""
    if key == "latents":
        return OutputKind.LATENT
    family = content_type.partition("/")[0]
    if family in ("image", "video", "audio", "text"):
        return OutputKind(family)
    return OutputKind.FILE


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Whom an output belongs to."""

    node_id: str
    class_type: str
    title: str


def identify_node(graph: Mapping[str, Any], node_id: str, display_node: str | None = None) -> NodeIdentity:
    """The node of the submitted graph that `node_id` stands for: itself, or the parent of an expanded node.

    Expanded nodes have ids like `7.0.0.2`; the engine names the node they are shown as.
    """
    candidates = [node_id, display_node or "", node_id.partition(".")[0]]
    known = next((candidate for candidate in candidates if candidate in graph), node_id)
    node = graph.get(known)
    class_type = str(node.get("class_type", "")) if isinstance(node, Mapping) else ""
    meta = node.get("_meta") if isinstance(node, Mapping) else None
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return NodeIdentity(known, class_type, str(title or class_type))


class FileLocator:
    """Finds the bytes behind a file an engine named: on this machine's disk, else through `/view`."""

    def __init__(
        self,
        folders: Mapping[str, Iterable[Path]],
        view: Callable[[str, str, str], BinaryIO],
    ) -> None:
        self._folders = {kind: [path.resolve() for path in paths] for kind, paths in folders.items()}
        self._view = view

    def path(self, name: str, *, subfolder: str, folder_type: str) -> Path | None:
        """The file on this machine, or None. A name that leads out of the engine's folders is never followed."""
        for folder in self._folders.get(folder_type, ()):
            try:
                candidate = (folder / subfolder / name).resolve()
                if candidate.is_relative_to(folder) and candidate.is_file():
                    return candidate
            except (OSError, ValueError):
                # Too long for the file system, or with a NUL in it: no file is called that.
                continue
        return None

    def fetch(self, name: str, *, subfolder: str, folder_type: str) -> Callable[[], BinaryIO]:
        """A function that opens the file through the engine."""
        return lambda: self._view(name, subfolder, folder_type)


def outputs_of_node(
    node: NodeIdentity, shown: Mapping[str, Any], locator: FileLocator, *, cached: bool = False, first_index: int = 0
) -> list[Output]:
    """Every output in what a node showed.

    Args:
        node: whom they belong to.
        shown: `{"images": [{"filename": …}], "text": ["…"], …}`; any keys, any values.
        locator: where files are looked up.
        cached: whether the node was not run again for this prompt.
        first_index: index of the first of them; above 0 where several expanded nodes are shown as one.
    """
    outputs: list[Output] = []
    for key, values in shown.items():
        if key in _FLAG_KEYS:
            continue
        for value in _items(values):
            index = first_index + len(outputs)
            if isinstance(value, Mapping) and isinstance(value.get("filename"), str) and value["filename"]:
                outputs.append(_file_output(node, index, key, value, locator, cached))
            elif value is not None:
                outputs.append(_value_output(node, index, key, value, cached))
    return outputs


def frame_output(node: NodeIdentity, index: int, content: bytes, content_type: str) -> Output:
    """An image that came through the websocket and never was a file (SaveImageWebsocket)."""
    suffix = "jpg" if content_type == "image/jpeg" else "png"
    return Output(
        node_id=node.node_id,
        class_type=node.class_type,
        title=node.title,
        index=index,
        name=f"frame_{index:05d}.{suffix}",
        subfolder="",
        folder_type="",
        kind=OutputKind.IMAGE,
        content_type=content_type,
        content=content,
    )


def _items(values: object) -> list[Any]:
    """The values under a key. A lone string reaches us cut into characters (ComfyUI iterates it): join them."""
    if not isinstance(values, list):
        return [values]
    if len(values) > 1 and all(isinstance(value, str) and len(value) == 1 for value in values):
        return ["".join(values)]
    return values


def _file_output(
    node: NodeIdentity, index: int, key: str, value: Mapping[str, Any], locator: FileLocator, cached: bool
) -> Output:
    name = str(value["filename"])
    subfolder = str(value.get("subfolder") or "")
    folder_type = str(value.get("type") or "output")
    content_type = content_type_of(name)
    return Output(
        node_id=node.node_id,
        class_type=node.class_type,
        title=node.title,
        index=index,
        name=name,
        subfolder=subfolder,
        folder_type=folder_type,
        kind=kind_of(key, content_type),
        content_type=content_type,
        path=locator.path(name, subfolder=subfolder, folder_type=folder_type),
        cached=cached,
        fetch=locator.fetch(name, subfolder=subfolder, folder_type=folder_type),
    )


def _value_output(node: NodeIdentity, index: int, key: str, value: object, cached: bool) -> Output:
    """A text, or any other value as JSON: shown by the node, so it is a result."""
    is_text = isinstance(value, str)
    content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Output(
        node_id=node.node_id,
        class_type=node.class_type,
        title=node.title,
        index=index,
        name=f"{_safe_word(key)}_{index}.{'txt' if is_text else 'json'}",
        subfolder="",
        folder_type="",
        kind=OutputKind.TEXT,
        content_type="text/plain; charset=utf-8" if is_text else "application/json",
        cached=cached,
        content=content.encode("utf-8", errors="surrogatepass"),
    )


def _safe_word(key: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in key)[:64] or "value"
