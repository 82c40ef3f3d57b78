"""Which files a workflow names as models: in loaders, in values that the file says are models, in prompts. No IO."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.graph.needs.answer import Model, Use
from comfy_serverless.graph.needs.editor import EditorFile, is_model_file
from comfy_serverless.graph.nodes import MODEL_INPUTS, RENAMED_FOLDERS, model_folder

EMBEDDINGS = "embeddings"
#: The models of a workflow that are told, and the uses of one.
MOST_MODELS, _MOST_USES = 500, 10
#: The letters that are told of a use: an id has a few.
_LONGEST_USE = 200
_LONGEST_NAME, _LONGEST_URL, _LONGEST_TEXT = 500, 2048, 200_000
#: An embedding in a prompt: `embedding:fox`, `(embedding:styles/fox.pt:1.2)`.
_EMBEDDING = re.compile(r"\bembedding:([^\s,:()\[\]{}|<>\"']{1,200})", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://[^\s<>\"'`\])|}\\]{4,2048}")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,5}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
#: Parts of a query that let somebody in: they are no part of where a file is.
_LETS_IN = re.compile(r"(?:^|(?<=&))[^=&]*(?:token|secret|signature|password|api_?key|auth)[^=&]*=", re.IGNORECASE)
#: The page of a file on Hugging Face, and the file itself.
_PAGE_OF_FILE = re.compile(r"^(https?://(?:www\.)?(?:huggingface\.co|hf\.co)/[^?#]*?)/blob/([^?#]*).*$")
#: Choices of loaders that mean no file.
_NO_FILE = frozenset({"", "none", "[none]", "default"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What `properties.models` of a node says of a file."""

    folder: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Value:
    """A text that stands in an input of a node."""

    node_id: str
    class_type: str
    input_name: str
    text: str


class Choices:
    """The texts that an input is chosen from. Looked up many times, so each question is a look-up."""

    __slots__ = ("_by_bare", "_by_file", "files", "names")

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._by_bare = {_bare(name): name for name in sorted(self.names)}
        self._by_file = {bare.rpartition("/")[2]: name for bare, name in self._by_bare.items()}
        #: Those that are files of models.
        self.files = frozenset(filter(is_model_file, self.names))

    def near(self, name: str) -> str:
        """The one that was probably meant: in other letters, or in another subfolder; "" if there is none."""
        bare = _bare(name)
        return self._by_bare.get(bare) or self._by_file.get(bare.rpartition("/")[2], "")


class Offered:
    """What ComfyUI offers for inputs that are chosen from a list; nothing is known if `object_info` is None."""

    def __init__(self, object_info: Mapping[str, Any] | None) -> None:
        self._object_info = object_info
        #: Read once for each input: a workflow may have thousands of nodes, and a list as many files.
        self._read: dict[tuple[str, str], Choices | None] = {}
        listed: dict[str, set[str]] = {}
        for class_type, inputs in MODEL_INPUTS.items() if object_info else ():
            for name, folder in inputs.items():
                if (choices := self.choices(class_type, name)) is not None:
                    listed.setdefault(folder, set()).update(choices.names)
        self._in_folder = {folder: Choices(names) for folder, names in listed.items()}
        self._by_content = {choices.files: folder for folder, choices in self._in_folder.items() if choices.files}

    def knows(self, class_type: str) -> bool | None:
        """Whether ComfyUI has a class; None if that is not known."""
        return None if self._object_info is None else class_type in self._object_info

    def spec(self, class_type: str, input_name: str) -> Sequence[Any] | None:
        """The declaration of an input: its type, and its options. None if there is none."""
        declaration = (self._object_info or {}).get(class_type)
        groups = declaration.get("input") if isinstance(declaration, Mapping) else None
        for group in ("required", "optional"):
            names = groups.get(group) if isinstance(groups, Mapping) else None
            spec = names.get(input_name) if isinstance(names, Mapping) else None
            if isinstance(spec, list) and spec:
                return spec
        return None

    def choices(self, class_type: str, input_name: str) -> Choices | None:
        """What an input is chosen from; None if it is no such input, or its list is not ComfyUI's own."""
        key = class_type, input_name
        if key not in self._read:
            self._read[key] = _choices(self.spec(class_type, input_name))
        return self._read[key]

    def folder_of(self, choices: Choices | None) -> str:
        """The folder whose files are exactly these choices; "" if there is none."""
        return "" if choices is None else self._by_content.get(choices.files, "")

    def files_in(self, folder: str) -> Choices | None:
        """The files of a folder; None if they are not known."""
        return self._in_folder.get(folder)


def _choices(spec: Sequence[Any] | None) -> Choices | None:
    if spec is None:
        return None
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    if "remote" in options or any("upload" in str(option) for option in options):
        return None
    choices = spec[0] if isinstance(spec[0], list) else options.get("options") if spec[0] == "COMBO" else None
    if not isinstance(choices, list):
        return None
    return Choices(choice for choice in choices if isinstance(choice, str))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a workflow of the editor says that its models can be had.

    Attributes:
        entries: of `properties.models` of nodes, and of `models` of the file, by the names of the files.
        noted: addresses in its notes, likewise.
    """

    entries: Mapping[str, Sequence[Entry]]
    noted: Mapping[str, str]

    @classmethod
    def of(cls, file: EditorFile) -> Sources:
        """What a file says."""
        of_nodes = (model for node in file.nodes for model in node.models)
        return cls(_entries((*of_nodes, *file.models)), _addresses_in(file.texts))

    def folder_of(self, name: str) -> str:
        """The folder that the file names for a model; "" if it names none."""
        return next((entry.folder for entry in self.entries.get(name, ()) if entry.folder), "")

    def completed(self, model: Model) -> Model:
        """The model with what the file says of it: of entries for several folders, that of its own."""
        entries = self.entries.get(model.name, ())
        fitting = [entry for entry in entries if not entry.folder or not model.folder or entry.folder == model.folder]
        best = next((entry for entry in fitting if entry.url), next(iter(fitting or entries), None))
        sha256 = next((entry.sha256 for entry in fitting if entry.sha256), "")
        if best is not None and best.url:
            return replace(model, url=best.url, sha256=sha256, source="properties")
        note = self.noted.get(PurePosixPath(model.name.replace("\\", "/")).name, "")
        return replace(model, url=note, sha256=sha256, source="note" if note else "")


def _entries(lists: Iterable[Mapping[str, Any]]) -> dict[str, list[Entry]]:
    """The entries of `properties.models` by the names of the files. One that names no file says nothing."""
    found: dict[str, list[Entry]] = {}
    for given in lists:
        name, folder, url, digest = (given.get(key) for key in ("name", "directory", "url", "hash"))
        if not isinstance(name, str) or not name:
            continue
        is_sha256 = str(given.get("hash_type", "")).upper().replace("-", "") in ("SHA256", "")
        entry = Entry(
            _known_folder(folder) if isinstance(folder, str) else "",
            file_address(url) if isinstance(url, str) else "",
            digest.lower() if is_sha256 and isinstance(digest, str) and _SHA256.fullmatch(digest) else "",
        )
        if entry not in found.setdefault(name, []):
            found[name].append(entry)
    return found


def file_address(url: str) -> str:
    """The address of a file; of one whose page on Hugging Face is named, that of the file. "" for no web address."""
    url = url.strip()
    if len(url) > _LONGEST_URL or not url.isprintable() or not url.lower().startswith(("https://", "http://")):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if not parts.hostname or "@" in parts.netloc:
        return ""
    if parts.hostname in ("huggingface.co", "www.huggingface.co", "hf.co") and parts.query in (
        "download=true",
        "download=1",
    ):
        url = url.partition("?")[0]
    elif _LETS_IN.search(parts.query):
        kept = "&".join(part for part in parts.query.split("&") if not _LETS_IN.match(part))
        url = parts._replace(query=kept).geturl()
    return _PAGE_OF_FILE.sub(r"\1/resolve/\2", url)


def _addresses_in(texts: Iterable[str]) -> dict[str, str]:
    """The addresses of model files that texts name, by the names of the files."""
    found: dict[str, str] = {}
    left = _LONGEST_TEXT
    for text in texts:
        for match in _ADDRESS.finditer(text[:left]):
            url = file_address(match[0].rstrip(".,;:!?"))
            name = unquote(url.partition("?")[0].rpartition("/")[2])
            if is_model_file(name):
                found.setdefault(name, url)
        left -= min(left, len(text))
    return found


def models_of(
    values: Iterable[Value],
    *,
    offered: Offered,
    sources: Sources,
    embeddings: Collection[str] | None = None,
) -> tuple[Model, ...]:
    """The models that values name, each once, in the order of the workflow.

    Args:
        sources: what the file says of them.
        embeddings: those that ComfyUI has, without their endings; None if that is not known.
    """
    found: dict[tuple[str, str], Model] = {}
    for value in values:
        for model in _models_in(value, offered, sources, embeddings):
            key = model.folder, model.name
            known = found.get(key)
            if known is None and len(found) >= MOST_MODELS:
                continue
            found[key] = model if known is None else _joined(known, model)
    by_name = {model.name: model.folder for model in found.values() if model.folder}
    merged: dict[tuple[str, str], Model] = {}
    for model in found.values():
        # Without a folder of its own it is the one that another node names in full.
        model = replace(model, folder=model.folder or by_name.get(model.name, ""))
        key = model.folder, model.name
        merged[key] = _joined(merged[key], model) if key in merged else model
    return tuple(map(sources.completed, merged.values()))


def _models_in(value: Value, offered: Offered, sources: Sources, embeddings: Collection[str] | None) -> Iterator[Model]:
    use = (Use(*(part[:_LONGEST_USE] for part in (value.node_id, value.class_type, value.input_name))),)
    text = value.text
    if "mbedding:" in text[:_LONGEST_TEXT]:
        for match in _EMBEDDING.finditer(text[:_LONGEST_TEXT]):
            name = match[1].rstrip(".\\")
            there = (
                None if embeddings is None else _without_ending(name) in {_without_ending(one) for one in embeddings}
            )
            yield Model(folder=EMBEDDINGS, name=name, there=there, used_by=use)
        return
    if len(text) > _LONGEST_NAME or text.lower() in _NO_FILE or is_address(text) or not text.isprintable():
        return
    folder = model_folder(value.class_type, value.input_name)
    choices = offered.choices(value.class_type, value.input_name)
    if not _is_model(value, folder, choices, offered, has_entry=text in sources.entries):
        return
    if not folder:
        folder = sources.folder_of(text) or offered.folder_of(choices)
    files = choices if choices is not None else offered.files_in(folder)
    there = None if files is None else text in files.names
    near = "" if files is None or there else files.near(text)
    yield Model(folder=folder, name=text, there=there, near=near, used_by=use)


def _is_model(value: Value, folder: str, choices: Choices | None, offered: Offered, *, has_entry: bool) -> bool:
    """Whether a text is the name of a model: of a file in a list, or of one that is missing there."""
    if has_entry or (is_model_file(value.text) and (folder or choices is not None)):
        return True
    if folder and choices is not None:
        return value.text not in choices.names  # `pixel_space` is in the list of VAEs, and no file
    # An input that nobody declares: of a pack that is not there, or within an object.
    return is_model_file(value.text) and offered.spec(value.class_type, value.input_name) is None


def _joined(first: Model, second: Model) -> Model:
    there = True if True in (first.there, second.there) else first.there if first.there is not None else second.there
    near = "" if there else first.near or second.near
    uses = tuple(dict.fromkeys((*first.used_by, *second.used_by)))[:_MOST_USES]
    return replace(first, there=there, near=near, used_by=uses)


def _known_folder(folder: str) -> str:
    """A folder by its present name, "" for what is none; `models/vae` is `vae`."""
    folder = folder.strip().strip("/").removeprefix("models/")
    if not _FOLDER.fullmatch(folder):
        return ""
    first, _, rest = folder.partition("/")
    return "/".join(filter(None, (RENAMED_FOLDERS.get(first, first), rest)))


def _bare(name: str) -> str:
    return name.replace("\\", "/").lower()


def _without_ending(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix() if is_model_file(name) else name
