"""Which inputs of which nodes take the name of a file, and where in ComfyUI's input folder that file has to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: The folder of our own in ComfyUI's input folder.
OWN_FOLDER = "comfy-serverless"
#: The nodes that load 3D models accept files below `3d/` only.
OWN_FOLDER_3D = f"3d/{OWN_FOLDER}"

#: Loaders of images whose first output is the image, and whose second is the mask that is in its alpha.
IMAGE_LOADERS = frozenset({"LoadImage", "LoadImageOutput"})

#: Inputs that take the name of a file: by class, then by name for classes not listed. True: the file is an
#: image.
_FILE_INPUTS: Mapping[str, Mapping[str, bool]] = {
    "Load3D": {"model_file": False},
    "Load3DAnimation": {"model_file": False},
    "LoadAudio": {"audio": False},
    "LoadImage": {"image": True},
    "LoadImageMask": {"image": True},
    "LoadImageOutput": {"image": True},
    "LoadLatent": {"latent": False},
    "LoadVideo": {"file": False},
    "VHS_LoadAudioUpload": {"audio": False},
    "VHS_LoadVideo": {"video": False},
    "VHS_LoadVideoFFmpeg": {"video": False},
}
_FILE_INPUT_NAMES = {"image": True, "mask": True, "video": False, "audio": False, "file": False}
#: Classes of custom nodes that want the address itself.
_TAKES_ADDRESSES = re.compile(r"url|http|base64|path|s3", re.IGNORECASE)

#: How ComfyUI is told to look in another folder than its input folder.
_FOREIGN_FOLDER = re.compile(r"\[(?:output|temp)\]$")
_INPUT_FOLDER = re.compile(r".\[input\]$", re.DOTALL)


def takes_image(class_type: str, input_name: str) -> bool | None:
    """Whether an input takes the name of an image file (True), of another file (False), or none (None)."""
    if class_type in _FILE_INPUTS:
        return _FILE_INPUTS[class_type].get(input_name)
    if _TAKES_ADDRESSES.search(class_type):
        return None
    return _FILE_INPUT_NAMES.get(input_name)


def folder_for(class_type: str) -> str:
    """Where in the input folder a loader accepts files.

    A custom node may accept what it finds in the input folder itself only, so its files are put there.
    """
    if class_type in ("Load3D", "Load3DAnimation"):
        return OWN_FOLDER_3D
    return OWN_FOLDER if class_type in _FILE_INPUTS else ""


def is_address(text: str) -> bool:
    """Whether a text found in a graph asks to be fetched. Bare base64 does not: it looks like any other word."""
    return text[:8].lower().startswith(("s3://", "https://", "http://", "data:"))


def names_in_other_folders(graph: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The file inputs that read outside ComfyUI's input folder, as (node id, input name, value)."""
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            # Load3D's `image` is an object of file names.
            names = value.values() if isinstance(value, dict) else (value,)
            is_file = node["class_type"] in _FILE_INPUTS or input_name in _FILE_INPUT_NAMES
            for name in names if is_file else ():
                if isinstance(name, str) and (_FOREIGN_FOLDER.search(name) or _leads_out(name)):
                    yield node_id, input_name, name


def _leads_out(name: str) -> bool:
    """Whether a name leaves the folder it is looked for in: ComfyUI joins the two, and looks no further."""
    parts = name.replace("\\", "/").split("/")
    return not is_address(name) and (name.startswith(("/", "\\")) or ".." in parts or parts[0][1:2] == ":")


def name_in_input_folder(value: str) -> str:
    """The path below the input folder that a loader's value means: `photo.png [input]` is `photo.png`."""
    # As ComfyUI does: one character before the bracket goes, whatever it is.
    return value[: -len(" [input]")] if _INPUT_FOLDER.search(value) else value
