"""The results of a prompt: every output of every node, typed, with its bytes read lazily.

`outputs_of_node` turns the values a node showed (`executed.output`, or the history's `outputs[node]`) into `Output`
values. It decides nothing by node class and drops nothing: files under any key, texts, and values of custom nodes
that fit no convention all become outputs (shared rules: ComfyUI's core nodes, section 7 of the wire contract).

- `{"filename": …}` under any key, in lists of lists too, is a file if the run has made it (see `made_files`); other
  files inside a value come beside the value.
- A string under any key but `text` that names such a file is that file (Preview3D's `result`). Elsewhere it is a text;
  everything else is JSON.
- `animated: [true]` describes the other keys, and `null` is nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from comfy_serverless.connector.made_files import Made, MadeFiles, Place
from comfy_serverless.files import (
    HEAD_BYTES,
    UNKNOWN_TYPE,
    OutputKind,
    ending_of_type,
    kind_of,
    type_of_head,
    type_of_name,
)
from comfy_serverless.json_text import finite
from comfy_serverless.pixels import size_in_pixels

#: Says whether the node's images move: no result.
_FLAG_KEY = "animated"
#: Strings under these are meant as they are, even if a file happens to have that name.
_TEXT_KEYS = frozenset({"string", "text"})
#: The depth down to which files are looked for inside lists and dictionaries.
_MAX_DEPTH = 8
_LONGEST_PATH = 4096
_CHUNK_BYTES = 1 << 20
#: So much is read of an image that comes over HTTP, to know its size.
_LONGEST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One result of one node.

    Attributes:
        node_id: the node of the submitted graph that made it (for nodes made by expansion: their parent there).
        class_type: that node's class, "" if the graph does not have the node.
        title: the title the author gave the node, or its class.
        index: position among this node's outputs, from 0.
        name: file name; texts and frames get one.
        subfolder: folder below the engine's output (or temp) folder, "" for none.
        folder_type: "output", "temp" or "datasets"; "" for an output that never was a file.
        path: the file, if the engine's folders are on this machine.
        cached: whether it comes from an earlier prompt because nothing had changed.
    """

    node_id: str
    class_type: str
    title: str
    index: int
    name: str
    subfolder: str = ""
    folder_type: str = ""
    kind: OutputKind
    content_type: str
    path: Path | None = None
    cached: bool = False
    content: bytes | None = field(default=None, repr=False)
    fetch: Callable[[], BinaryIO] | None = field(default=None, repr=False, compare=False)

    def open(self) -> BinaryIO:
        """The bytes as a stream to close, from disk if the engine is local.

        Raises:
            OSError: they cannot be read: FileNotFoundError if it is gone, ConnectionError without an answer.
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

    def __repr__(self) -> str:
        return f"<Output {self.name} ({self.content_type}) of node {self.node_id} {self.title or self.class_type}>"

    def as_png(self, *, longest_side: int | None = None) -> bytes | None:
        """An image as PNG, scaled down if a side is longer in pixels; None for all else, or if it cannot be read."""
        if self.kind is not OutputKind.IMAGE:
            return None
        from comfy_serverless.connector.pictures import as_png  # Pillow takes a while to load

        try:
            content = self.read()
        except OSError:
            return None
        return as_png(content, longest_side=longest_side)

    def _repr_png_(self) -> bytes | None:
        """Its picture, for notebooks, which show its text without one."""
        return self.as_png()

    @property
    def size_bytes(self) -> int:
        """Size in bytes. Costs a download if the engine is on another machine."""
        if self.content is not None:
            return len(self.content)
        if self.path is not None:
            return self.path.stat().st_size
        with self.open() as stream:
            return sum(map(len, iter(lambda: stream.read(_CHUNK_BYTES), b"")))

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hex. Reads them all, a piece at a time."""
        digest = hashlib.sha256()
        with self.open() as stream:
            for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""):
                digest.update(chunk)
        return digest.hexdigest()

    @property
    def pixels(self) -> tuple[int, int] | None:
        """Width and height of an image; None for everything else, and for unknown formats. Reads its header only."""
        if self.kind is not OutputKind.IMAGE:
            return None
        with self.open() as stream:
            return size_in_pixels(stream if stream.seekable() else io.BytesIO(stream.read(_LONGEST_HEADER_BYTES)))


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The node that an output belongs to."""

    node_id: str
    class_type: str
    title: str


def identify_node(graph: Mapping[str, Any], node_id: str, display_node: str | None = None) -> NodeIdentity:
    """The node of the submitted graph that `node_id` stands for: itself, or the parent of an expanded node.

    Expanded nodes have ids like `7.0.0.2`; the engine names the node they are shown as.
    """
    known = node_id
    if node_id not in graph:
        # `7.0.0.2`, then `7.0.0`, …: also ids of the submitted graph may have dots.
        shorter = [node_id[:at] for at in range(len(node_id) - 1, 0, -1) if node_id[at] == "."]
        known = next((candidate for candidate in (display_node or "", *shorter) if candidate in graph), node_id)
    node = graph.get(known)
    class_type = str(node.get("class_type", "")) if isinstance(node, Mapping) else ""
    meta = node.get("_meta") if isinstance(node, Mapping) else None
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return NodeIdentity(known, class_type, str(title or class_type))


def outputs_of_node(
    node: NodeIdentity, shown: Mapping[str, Any], files: MadeFiles, *, cached: bool = False, first_index: int = 0
) -> tuple[list[Output], list[Place]]:
    """Every output among the values a node showed, and the files it named that it has not made.

    Args:
        shown: `{"images": [{"filename": …}], "text": ["…"], …}`; any keys, any values.
        files: tells what the run has made.
        cached: whether the node was not run again for this prompt.
        first_index: index of the first of them; above 0 if several expanded nodes are shown as one.
    """
    outputs: list[Output] = []
    refused: list[Place] = []
    seen: set[Place] = set()
    for key, values in shown.items():
        if key == _FLAG_KEY and _are_flags(values):
            continue
        for value in _items(values):
            index = first_index + len(outputs)
            place = _place_of(value)
            made = files.claim(place, cached=cached) if place else _named(key, value, files, seen, cached=cached)
            if made is not None:
                seen.add(made.place)
                outputs.append(file_output(node, index, key, made, cached=cached))
            elif place is not None:
                refused.append(place)
            elif value is not None:
                outputs.append(_value_output(node, index, key, value, cached))
    return outputs, refused


def places_in(shown: Mapping[str, Any]) -> list[Place]:
    """The files that a node names among the values it showed; not those that it names by a path alone."""
    values = (
        value for key, some in shown.items() if not (key == _FLAG_KEY and _are_flags(some)) for value in _items(some)
    )
    return [place for place in map(_place_of, values) if place is not None]


def frame_output(node: NodeIdentity, index: int, content: bytes, content_type: str) -> Output:
    """An image that came through the websocket and never was a file (SaveImageWebsocket)."""
    return Output(
        node_id=node.node_id,
        class_type=node.class_type,
        title=node.title,
        index=index,
        name=f"frame_{index:05d}{ending_of_type(content_type) or '.png'}",
        kind=OutputKind.IMAGE,
        content_type=content_type,
        content=content,
    )


def _are_flags(values: object) -> bool:
    return isinstance(values, bool) or (isinstance(values, list) and all(isinstance(value, bool) for value in values))


def _items(values: object) -> list[Any]:
    """The values under a key. A lone string reaches us cut into characters (ComfyUI iterates it): join them."""
    if not isinstance(values, list):
        return [values]
    if len(values) > 1 and all(isinstance(value, str) and len(value) == 1 for value in values):
        return ["".join(values)]
    return [item for value in values for item in _with_inner_files(value)]


def _with_inner_files(value: object) -> list[Any]:
    """A value and the files inside it; lists of nothing but files are those files."""
    if _place_of(value) is not None:
        return [value]
    files = list(_inner_files(value, _MAX_DEPTH))
    return files if files and _is_only_files(value, _MAX_DEPTH) else [value, *files]


def _inner_files(value: object, depth: int) -> Iterator[Any]:
    if _place_of(value) is not None:
        yield value
    elif depth > 0 and isinstance(value, list | Mapping):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _inner_files(inner, depth - 1)


def _is_only_files(value: object, depth: int) -> bool:
    if isinstance(value, list) and depth > 0:
        return all(_is_only_files(inner, depth - 1) for inner in value)
    return _place_of(value) is not None


def _place_of(value: object) -> Place | None:
    """The place of a file as ComfyUI's nodes name it."""
    if not isinstance(value, dict) or not isinstance(value.get("filename"), str) or not value["filename"]:
        return None
    return Place(value["filename"], str(value.get("subfolder") or ""), str(value.get("type") or "output"))


def _named(key: str, value: object, files: MadeFiles, seen: Collection[Place], *, cached: bool) -> Made | None:
    """The file a string stands for, unless the node has named it before."""
    if not isinstance(value, str) or key in _TEXT_KEYS or len(value) > _LONGEST_PATH or not PurePath(value).suffix:
        return None
    made = files.find(value, cached=cached)
    return None if made is None or made.place in seen else made


def file_output(node: NodeIdentity, index: int, key: str, made: Made, *, cached: bool = False) -> Output:
    """A file as an output. `key` is the one it was shown under."""
    content_type = type_of_name(made.place.name) or _type_of_content(made.path) or UNKNOWN_TYPE
    return Output(
        node_id=node.node_id,
        class_type=node.class_type,
        title=node.title,
        index=index,
        **made.place._asdict(),
        kind=kind_of(key, content_type),
        content_type=content_type,
        path=made.path,
        cached=cached,
        fetch=made.fetch,
    )


def _type_of_content(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return type_of_head(file.read(HEAD_BYTES))
    except OSError:
        return None  # gone or unreadable since: reading the output will say so


def _value_output(node: NodeIdentity, index: int, key: str, value: object, cached: bool) -> Output:
    """A text, or any other value as JSON: shown by the node, so it is a result.

    A number that JSON does not have becomes its name (`"NaN"`).
    """
    is_text = isinstance(value, str)
    content = value if isinstance(value, str) else json.dumps(finite(value, instead=str), ensure_ascii=False)
    return Output(
        node_id=node.node_id,
        class_type=node.class_type,
        title=node.title,
        index=index,
        name=f"{_safe_word(key)}_{index}.{'txt' if is_text else 'json'}",
        kind=OutputKind.TEXT,
        content_type="text/plain; charset=utf-8" if is_text else "application/json",
        cached=cached,
        content=content.encode("utf-8", errors="surrogatepass" if is_text else "backslashreplace"),
    )


def _safe_word(key: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in key)[:64] or "value"
