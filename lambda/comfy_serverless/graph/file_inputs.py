"""Knows which inputs of which nodes take the name of a file, and where in ComfyUI's input folder it has to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from comfy_serverless.graph.nodes import FILE_INPUT_NAMES, NODES, Takes, known

#: Our own folder in ComfyUI's input folder, or in the subfolder that a loader is confined to.
OWN_FOLDER = "comfy-serverless"
#: Marks a file within the value of an input: `{"__type": "core/ASSET", "info": {"uri": "s3://…"}}`. Callers of the API
#: send the same with the `id` of an asset.
ASSET_TYPE = "core/ASSET"
#: The beginnings of addresses that are fetched; `fetch.sources` has a kind of source for each.
ADDRESS_BEGINNINGS = ("s3://", "https://", "http://", "data:")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
#: Classes of custom nodes that want the address itself.
_TAKES_ADDRESSES = re.compile(r"url|http|base64|path|s3", re.IGNORECASE)
#: The endings of names that make ComfyUI use another folder than its input folder.
_FOREIGN_FOLDER = re.compile(r"\[(?:output|temp)\]$")
_INPUT_FOLDER = re.compile(r".\[input\]$", re.DOTALL)


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


def scheme_of(text: str) -> str:
    """The scheme that a text begins with, in lower case, also one that we do not fetch; "" for none."""
    return match[1].lower() if (match := _SCHEME.match(text)) else ""


def names_in_other_folders(graph: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The file inputs that read what a job must not name, as (node id, input name, value).

    That is all outside ComfyUI's input folder, and our own folder in it: what is there belongs to some job, and was
    checked for the input that it was brought for alone.
    """
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            # Load3D's `image` is an object of file names.
            names = value.values() if isinstance(value, dict) else (value,)
            is_file = bool(known(node["class_type"]).files) or input_name in FILE_INPUT_NAMES
            for name in names if is_file else ():
                if isinstance(name, str) and (_FOREIGN_FOLDER.search(name) or _leads_out(name) or is_ours(name)):
                    yield node_id, input_name, name


def is_ours(name: str) -> bool:
    """Whether a file's name leads into a folder of ours."""
    return not is_address(name) and OWN_FOLDER in name.replace("\\", "/").split("/")[:-1]


def _leads_out(name: str) -> bool:
    """Whether a name leaves its folder: ComfyUI joins the two, and checks no further."""
    parts = name.replace("\\", "/").split("/")
    return not is_address(name) and (name.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":")


def name_in_input_folder(value: str) -> str:
    """The path below the input folder that a loader's value means: `photo.png [input]` is `photo.png`."""
    # As in ComfyUI, one character before the bracket goes, whatever it is.
    return value[: -len(" [input]")] if _INPUT_FOLDER.search(value) else value
