"""Knows which inputs of which nodes take the name of a file, and where in ComfyUI's input folder it has to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from comfy_serverless.graph.lookup import NodeLookup
from comfy_serverless.graph.nodes import FILE_INPUT_NAMES, NODES, Takes, known
from comfy_serverless.graph.workflow import is_link

#: Our own folder in ComfyUI's input folder, or in the subfolder that a loader is confined to.
OWN_FOLDER = "comfy-serverless"
#: Marks a file within the value of an input: `{"__type": "core/ASSET", "info": {"uri": "s3://…"}}`. Callers of the API
#: send the same with the `id` of an asset.
ASSET_TYPE = "core/ASSET"
#: The beginnings of addresses that are fetched; `fetch.sources` has a kind of source for each.
ADDRESS_BEGINNINGS = ("s3://", "https://", "http://", "data:")
#: The way to something within the value of an input: keys of objects, positions in lists.
Steps = tuple[str | int, ...]
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
#: Classes of custom nodes that want the address itself.
_TAKES_ADDRESSES = re.compile(r"url|http|base64|path|s3", re.IGNORECASE)
#: The endings of names that make ComfyUI use another folder than its input folder.
_FOREIGN_FOLDER = re.compile(r"\[(?:output|temp)\]$")
#: The same, where an input need not be one that takes a file: no other text ends so.
_FOREIGN_FILE = re.compile(r"\.\w{1,12} ?\[(?:output|temp)\]$")
_LONGEST_PATH = 4096
_INPUT_FOLDER = re.compile(r".\[input\]$", re.DOTALL)
#: What stays around a text that was copied out of a program: quotes, or Python's own of bytes.
_QUOTED = re.compile(r"""b?(["'])(.*)\1""", re.DOTALL)
_DATA_WITHOUT_SCHEME = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,80};base64,")
#: The beginnings of pictures in base64.
_PICTURES = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "R0lGOD": "image/gif",
    "UklGR": "image/webp",
}
_SHORTEST_PICTURE = 48


def takes_file(class_type: str, input_name: str) -> Takes | None:
    """The kind of file that an input takes the name of; None if it takes none."""
    if files := known(class_type).files:
        return files.get(input_name)
    if _TAKES_ADDRESSES.search(class_type):
        return None
    return FILE_INPUT_NAMES.get(input_name)


def folder_for(class_type: str) -> str:
    """The place in the input folder where a loader accepts files.

    A custom node may accept files of the input folder itself only, so its files are put there.
    """
    node = known(class_type)
    return str(PurePosixPath(node.folder, OWN_FOLDER)) if node.files else ""


def own_folders() -> list[str]:
    """All of our own folders, below ComfyUI's input folder."""
    return sorted({folder_for(class_type) for class_type, node in NODES.items() if node.files})


def is_address(text: str) -> bool:
    """Whether a text is an address to fetch. Bare base64 is not: it looks like any other word."""
    return text[:8].lower().startswith(ADDRESS_BEGINNINGS)


def as_address(text: str) -> str:
    """A text as it was meant: without the white space and quotes around it, a picture in base64 as a data: address."""
    text = text.strip()
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        text = quoted[2].strip()
    if _DATA_WITHOUT_SCHEME.match(text):
        text = f"data:{text}"
    if len(text) >= _SHORTEST_PICTURE:
        kind = next((kind for beginning, kind in _PICTURES.items() if text.startswith(beginning)), None)
        text = text if kind is None else f"data:{kind};base64,{text}"
    if text[:5].lower() == "data:":
        text = text.replace("\\r", "").replace("\\n", "")
    return text


def with_addresses(graph: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a graph whose file inputs have the addresses that were meant by what stands there (`as_address`)."""
    result = {}
    for node_id, node in graph.items():
        meant = {
            name: address
            for name, value in node["inputs"].items()
            if isinstance(value, str)
            and takes_file(node["class_type"], name)
            and is_address(address := as_address(value))
            and address != value
        }
        result[node_id] = {**node, "inputs": {**node["inputs"], **meant}} if meant else node
    return result


def scheme_of(text: str) -> str:
    """The scheme that a text begins with, in lower case, also one that we do not fetch; "" for none."""
    return match[1].lower() if (match := _SCHEME.match(text)) else ""


def missing_in(address: str) -> str:
    """What an s3:// address lacks, in words; "" if it has all, or is another address."""
    if scheme_of(address) != "s3" or not is_address(address):
        return ""
    bucket, _, key = address[len("s3://") :].partition("/")
    if bucket and key:
        return ""
    return f"names no {'object in its bucket' if bucket else 'bucket'}: it must be s3://BUCKET/KEY"


def fetched_addresses(graph: Mapping[str, Any], inputs: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The addresses that stand in a graph and are fetched, each with its place in it: `("10.image", "s3://…")`.

    Args:
        inputs: given with the graph, in the place of what stands there.
    """
    meanings = NodeLookup(graph).resolve_all(inputs)[0] if inputs else []
    replaced = {target for meaning in meanings for target in meaning.targets}
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            if (node_id, input_name) in replaced:
                continue
            if not isinstance(value, str):
                for _, uri in nested_files(value):
                    yield f"{node_id}.{input_name}", uri
            elif is_address(value) and takes_file(node["class_type"], input_name):
                yield f"{node_id}.{input_name}", value


def nested_files(value: object) -> Iterator[tuple[Steps, str]]:
    """The addresses of files within a value, each with the way to it."""
    pending: list[tuple[Steps, object]] = [((), value)]
    while pending:
        steps, item = pending.pop()
        if isinstance(item, Mapping):
            info = item.get("info")
            uri = info.get("uri") if item.get("__type") == ASSET_TYPE and isinstance(info, Mapping) else None
            if isinstance(uri, str):
                yield steps, uri
            else:
                pending += [((*steps, name), part) for name, part in item.items() if _may_hold(part)]
        elif isinstance(item, list):
            pending += [((*steps, position), part) for position, part in enumerate(item) if _may_hold(part)]


def _may_hold(part: object) -> bool:
    """Whether there may be something in a value: it is a list or an object, and not empty."""
    return isinstance(part, (list, dict, Mapping)) and bool(part)


def names_of_others(graph: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The inputs that may read what is not the job's, as (node id, input name, what is wrong with it).

    Those are files outside ComfyUI's input folder, in the folder where we put the files that jobs bring, or with a
    name that nobody can know before the job runs. A text that comes by a link is followed to the constant it is.
    """
    for node_id, node in graph.items():
        class_type = node["class_type"]
        knowledge = known(class_type)
        if knowledge.reads_output:
            problem = f"is read by {class_type} from ComfyUI's output folder, where no file of a job stays"
            yield node_id, knowledge.reads_output, problem
        for input_name, value in node["inputs"].items():
            is_file = bool(knowledge.files) or input_name in FILE_INPUT_NAMES
            constant = text_behind(graph, value) if is_link(value) else value
            if constant is None:
                # A loader's link is a name, whatever gives it; elsewhere it may be what a node makes: a picture.
                is_name = input_name in knowledge.files and is_link(value) and value[0] in graph
                if is_name or (is_file and is_link(value) and _is_made_text(graph, value)):
                    yield node_id, input_name, "has a name that is made while the job runs"
                continue
            # Load3D's `image` is an object of file names.
            names = constant.values() if isinstance(constant, Mapping) else (constant,)
            for name in names:
                if isinstance(name, str) and (problem := _problem_of(name, is_file=is_file)):
                    yield node_id, input_name, f"{name[:200]!r} {problem}"


def text_behind(graph: Mapping[str, Any], link: Any) -> str | None:  # noqa: ANN401  (a link)
    """The text that a link leads to, if that is a constant of the graph; None otherwise."""
    seen: set[str] = set()
    value = link
    while is_link(value):
        node = graph.get(value[0])
        constant = known(node["class_type"]).constant if node is not None else ""
        if not constant or value[0] in seen:
            return None
        seen.add(value[0])
        value = node["inputs"].get(constant) if node is not None else None
    return value if isinstance(value, str) else None


def _is_made_text(graph: Mapping[str, Any], link: Any) -> bool:  # noqa: ANN401  (a link)
    """Whether a link leads to a node that makes a text, or to one that hands on what it is given, and is given one."""
    pending, seen = [link], set[str]()
    while pending:
        source = str(pending.pop()[0])
        node = graph.get(source)
        if node is None or source in seen:
            continue
        seen.add(source)
        knowledge = known(node["class_type"])
        if knowledge.gives_text:
            return True
        if knowledge.hands_on:
            given = list(node["inputs"].values())
            if any(isinstance(value, str) for value in given):
                return True
            pending += [value for value in given if is_link(value)]
    return False


def _problem_of(name: str, *, is_file: bool) -> str:
    """What is wrong with the name of a file; "" for nothing."""
    if _FOREIGN_FILE.search(name) or (is_file and (_FOREIGN_FOLDER.search(name) or _leads_out(name))):
        return "is not in ComfyUI's input folder"
    parts = PurePosixPath(name_in_input_folder(name).replace("\\", "/")).parts
    if is_file and not is_address(name) and OWN_FOLDER in parts[:-1]:
        return "is where the files of jobs are put"
    return ""


def _leads_out(name: str) -> bool:
    """Whether a name leaves its folder: ComfyUI joins the two, and checks no further.

    A text that is too long for a path may be a picture in base64, which can begin with a slash.
    """
    parts = name[:_LONGEST_PATH].replace("\\", "/").split("/")
    leads_out = name.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":"
    return leads_out and len(name) <= _LONGEST_PATH and not is_address(name)


def name_in_input_folder(value: str) -> str:
    """The path below the input folder that a loader's value means: `photo.png [input]` is `photo.png`."""
    # As in ComfyUI, one character before the bracket goes, whatever it is.
    return value[: -len(" [input]")] if _INPUT_FOLDER.search(value) else value
