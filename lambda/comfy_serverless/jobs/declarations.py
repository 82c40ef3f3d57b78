"""What the workers' ComfyUI declares of its nodes: they publish it, and the API converts the editor's workflows by it.

    worker ──► engine/{its image}/object_info/{SHA-256 of the content}.json.gz    when it has changed
           └─► engine/{its image}[/{release}]/object_info.json                    point there; written with each list

It is read lazily: a stack that gets no workflow of the editor never reads it. How long it counts: `engine_documents`.

Nothing of a job is in it. It is read while no job's files are in ComfyUI's sight (`worker.declarations`); and lists of
files in ComfyUI's folders are emptied, whoever has put them there.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.errors import NotJson
from comfy_serverless.files import MODEL_ENDINGS, type_of_name
from comfy_serverless.graph.nodes import FILE_INPUT_NAMES, known
from comfy_serverless.jobs.engine_documents import DECLARATIONS, Build, Told, tell, told
from comfy_serverless.json_text import finite, parse_json
from comfy_serverless.observability import log

if TYPE_CHECKING:
    from datetime import datetime

    from mypy_boto3_s3 import S3Client

#: The most of it, unpacked: 900 classes have 2 MB, and lists of models some more for each class that takes them.
MAX_DECLARATIONS_BYTES: Final = 16_000_000
#: The time between two looks of the API at the pointer, and for as long as there is none, in seconds.
_KNOWN_S, _NOT_KNOWN_S = 60.0, 3.0
#: The time between two writings of the same content, in seconds: the bucket's lifecycle deletes old ones.
_WRITTEN_AGAIN_S: Final = 86_400.0
#: How much earlier than the list of classes the pointer may have been written, in seconds.
_BESIDE_S: Final = 60.0
#: What a declaration says of a list of files in ComfyUI's folders.
_LISTS_FILES: Final = re.compile(r"(?:\w+_)?upload|\w+_folder")
#: What ComfyUI writes behind the name of a file that is in another folder than the input folder.
_FOLDER_BEHIND: Final = re.compile(r" \[(?:input|output|temp)\]\Z")
_GROUPS: Final = ("required", "optional", "hidden")


def without_files(object_info: Mapping[str, Any], files: Collection[str]) -> dict[str, Any]:
    """Declarations without the names of files in ComfyUI's folders.

    Args:
        files: the names of those that are there, as far as they are known.
    """
    plain = {
        class_type: {**said, "input": _groups(class_type, said["input"], files)}
        if isinstance(said, Mapping) and isinstance(said.get("input"), Mapping)
        else said
        for class_type, said in object_info.items()
    }
    named = frozenset(name for name in files if "." in name)
    return {class_type: _without_names(said, named) for class_type, said in plain.items()} if named else plain


def _without_names(value: Any, names: Collection[str]) -> Any:  # noqa: ANN401  (any JSON value)
    """A part of a declaration without texts that are names of files, wherever they stand: in lists of outputs, too."""
    if isinstance(value, Mapping):
        return {key: _without_names(part, names) for key, part in value.items() if not _is_name(part, names)}
    if isinstance(value, list):
        return [_without_names(part, names) for part in value if not _is_name(part, names)]
    return value


def _is_name(value: object, names: Collection[str]) -> bool:
    return isinstance(value, str) and _FOLDER_BEHIND.sub("", value) in names


def _groups(class_type: str, groups: Mapping[str, Any], files: Collection[str]) -> dict[str, Any]:
    return {
        group: {name: _spec(class_type, str(name), spec, files) for name, spec in inputs.items()}
        if isinstance(inputs, Mapping)
        else inputs
        for group, inputs in groups.items()
    }


def _spec(class_type: str, name: str, spec: object, files: Collection[str]) -> Any:  # noqa: ANN401  (any JSON value)
    """The declaration of an input: `[choices, options]`, `["COMBO", {"options": choices}]`, or with inputs in it."""
    if not isinstance(spec, list) or not spec:
        return spec
    kind, *more = spec
    options = more[0] if more and isinstance(more[0], Mapping) else {}
    is_of_files = _is_of_files(class_type, name, options)
    changed = _inner(class_type, options, files)
    if isinstance(choices := options.get("options"), list) and not _are_inputs(choices):
        changed["options"] = _kept(name, choices, files, is_of_files=is_of_files)
    if isinstance(default := options.get("default"), str) and default in files:
        del changed["default"]
    first = _kept(name, kind, files, is_of_files=is_of_files) if isinstance(kind, list) else kind
    return [first, changed, *more[1:]] if options else [first, *more]


def _inner(class_type: str, value: Any, files: Collection[str]) -> Any:  # noqa: ANN401
    """A part of the options of an input; inputs that are declared in it (of a dynamic input) are gone through too."""
    if isinstance(value, Mapping):
        is_groups = any(isinstance(value.get(group), Mapping) for group in _GROUPS)
        return (
            _groups(class_type, value, files)
            if is_groups
            else {name: _inner(class_type, part, files) for name, part in value.items()}
        )
    return [_inner(class_type, part, files) for part in value] if _are_inputs(value) else value


def _are_inputs(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(part, Mapping) for part in value)


def _is_of_files(class_type: str, name: str, options: Mapping[str, Any]) -> bool:
    """Whether the choices of an input are files or folders in ComfyUI's own, for sure."""
    knowledge = known(class_type)
    is_said = any(value and _LISTS_FILES.fullmatch(str(option)) for option, value in options.items())
    return is_said or name in knowledge.files or knowledge.lists_folder or name == knowledge.reads_output


def _kept(name: str, choices: list[Any], files: Collection[str], *, is_of_files: bool) -> list[Any]:
    if is_of_files or (name in FILE_INPUT_NAMES and choices and all(map(_is_file, choices))):
        return []
    return [choice for choice in choices if not (isinstance(choice, str) and choice in files)] if files else choices


def _is_file(choice: object) -> bool:
    return isinstance(choice, str) and type_of_name(choice) is not None and not choice.lower().endswith(MODEL_ENDINGS)


@dataclass(slots=True)
class DeclarationsWriter:
    """Publishes what the engine of one worker declares."""

    s3: S3Client
    bucket: str
    image: str
    release: str = ""
    _written: str = ""
    _written_at: float = field(default=float("-inf"))

    def write(self, object_info: Mapping[str, Any]) -> None:
        """Write it, if it has changed, and the pointers."""
        packed = Packed.of(object_info)
        is_due = packed.sha256 != self._written or time.monotonic() - self._written_at > _WRITTEN_AGAIN_S
        if packed.sha256 is not None and is_due:
            packed.put(self.s3, self.bucket, self.image)
            self._written, self._written_at = packed.sha256, time.monotonic()
        for key in Build(self.image, self.release).keys(DECLARATIONS):
            tell(self.s3, self.bucket, key, packed.pointer)


@dataclass(frozen=True, slots=True)
class Packed:
    """Declarations as they are published.

    Attributes:
        sha256: of the content; None if it is too large for the API.
        content: in JSON.
        classes: how many there are.
    """

    sha256: str | None
    content: bytes
    classes: int

    @classmethod
    def of(cls, object_info: Mapping[str, Any]) -> Packed:
        """Make them ready."""
        content = json.dumps(finite(dict(object_info)), separators=(",", ":")).encode("utf-8", "replace")
        if len(content) > MAX_DECLARATIONS_BYTES:
            log.warning("the declarations of nodes are too large for the API", size_bytes=len(content))
            return cls(None, content, len(object_info))
        return cls(hashlib.sha256(content).hexdigest(), content, len(object_info))

    @property
    def pointer(self) -> dict[str, Any]:
        """What leads to them, and what people may want to know of them."""
        return {"sha256": self.sha256, "size_bytes": len(self.content), "classes": self.classes}

    def put(self, s3: S3Client, bucket: str, image: str) -> None:
        """Write the content."""
        key, body = _content_key(image, str(self.sha256)), gzip.compress(self.content, mtime=0)
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/gzip")


class Held(NamedTuple):
    """Declarations that were read: parsed, and packed with gzip as they are published; `size_bytes` is unpacked."""

    sha256: str
    declared: dict[str, Any]
    packed: bytes
    size_bytes: int


@dataclass(slots=True)
class DeclarationsReader:
    """Reads them for the API.

    Attributes:
        image: names that of the workers that jobs go to now; "" if it is not known.
        release: names what it was built from; "" if it is not known.
    """

    s3: S3Client
    bucket: str
    image: Callable[[], str]
    release: Callable[[], str] = str
    _build: Build = Build("")  # noqa: RUF009 - it cannot be changed
    _told: Told | None = None
    _sha256: str = ""
    _read_at: float = field(default=float("-inf"))
    _held: Held | None = None

    def fresh(self) -> Mapping[str, Any] | None:
        """What is so of the workers that jobs go to; None if nobody has told it, or if it is too large."""
        self._look()
        return self.newest() if self._told is not None and self._told.counts() else None

    def newest(self) -> Mapping[str, Any] | None:
        """What was told last, however long ago: a newer image may have other nodes."""
        self._look()
        if not self._sha256:
            return None
        if self._held is None or self._held.sha256 != self._sha256:
            self._held = self._read(self._sha256)
        return None if self._held is None else self._held.declared

    def newest_packed(self) -> Held | None:
        """The same, as it was published."""
        return None if self.newest() is None else self._held

    @property
    def sha256(self) -> str:
        """That of what `newest` returns, in hex; "" if nobody has told anything."""
        self._look()
        return self._sha256

    def are_told_with_lists(self) -> bool:
        """Whether a list of classes that counts has them beside it; workers of older releases write the list alone."""
        self._look()
        return self._told is not None and self._told.counts(longer_s=_BESIDE_S)

    def told_at(self) -> datetime | None:
        """When it was told last; None if it never was of this image: workers of older releases do not tell it."""
        self._look()
        return None if self._told is None else self._told.at

    def _look(self) -> None:
        """Look at the pointer, once in a while."""
        build = Build(self.image(), self.release())
        known_s = _NOT_KNOWN_S if self._told is None else _KNOWN_S
        if build == self._build and time.monotonic() - self._read_at < known_s:
            return
        self._build, self._read_at = build, time.monotonic()
        self._sha256, self._told = "", None
        try:
            found = told(self.s3, self.bucket, build, DECLARATIONS)
            if found is not None:
                self._sha256, self._told = str(json.loads(found.content).get("sha256") or ""), found
        except (ClientError, BotoCoreError, ValueError, AttributeError):
            log.debug("nobody has told declarations of nodes", image=build.image, exc_info=True)

    def _read(self, digest: str) -> Held | None:
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=_content_key(self._build.image, digest))
            packed = answer["Body"].read(MAX_DECLARATIONS_BYTES)
            content = unpacked(packed)
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError("it is another content than the pointer says")  # noqa: TRY301
            return Held(digest, declared_in(content), packed, len(content))
        except (ClientError, BotoCoreError, TypeError, ValueError, zlib.error, NotJson):
            log.warning("the declarations of nodes cannot be read: workers convert", sha256=digest, exc_info=True)
            return None


def unpacked(packed: bytes) -> bytes:
    """The content of a file that was packed with gzip. Raises ValueError, zlib.error if it is none, or is too large."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    content = unpacking.decompress(packed, MAX_DECLARATIONS_BYTES + 1)
    if not unpacking.eof or len(content) > MAX_DECLARATIONS_BYTES:
        raise ValueError("it breaks off, or is too large")
    return content


def declared_in(content: bytes) -> dict[str, Any]:
    """The declarations in a document. Raises NotJson, TypeError, ValueError if it is something else."""
    return dict(parse_json(content, source="the declarations", most_bytes=MAX_DECLARATIONS_BYTES))


def _content_key(image: str, digest: str) -> str:
    return f"engine/{image}/object_info/{digest}.json.gz"
