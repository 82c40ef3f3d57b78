"""What a dropped object is, by its key alone. The notifications of the bucket pass everything on; here it is decided.

    jobs/**.json, .json.gz                          a request
    jobs/**.png, .webp, .jpg, .mp4, .flac, …         a file that ComfyUI has made, with the workflow inside
    images/{workflow}/**                            a file for that workflow
    batches/**.jsonl, .ndjson, .jsonl.gz, …         a manifest
    what file managers and tools leave behind       left alone, anywhere
    other pictures, models, … beside requests       left alone: requests name them as inputs
    anything else                                   refused, so that somebody hears of it

Endings count in any case: `PHOTOS.JSONL` is a manifest. No IO.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import Final

from comfy_serverless.files import MODEL_ENDINGS, may_carry_workflow, type_of_name

JOBS: Final = "jobs/"
IMAGES: Final = "images/"
MANIFESTS: Final = "batches/"
REQUEST_ENDINGS: Final = (".json", ".json.gz")
MANIFEST_ENDINGS: Final = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
ACCEPTED_DROPS: Final = (
    "Accepted are *.json that is not in batches/ (a job request, or a workflow), jobs/* that ComfyUI has made (a "
    "picture, video or sound with its workflow inside), images/{workflow}/* (a file for the named workflow, or for "
    "that of WORKFLOWS_DIR) and, in the stack's input bucket, batches/*.jsonl or batches/*.ndjson (a job request in "
    "each line). Requests and manifests may be packed: *.json.gz, *.jsonl.gz."
)
#: Names that no person has given, compared in lower case: of Windows, Synology, macOS, Office, editors, downloads and
#: Hadoop. Those that begin with a dot (.DS_Store, ._x, .Trashes, .gitkeep) go without saying.
_CLUTTER: Final = re.compile(
    r"(thumbs|ehthumbs|ehthumbs_vista)\.db(:.*)?|desktop\.ini|\$recycle\.bin|system volume information|@eadir"
    r"|__macosx|icon\r|~\$.*|.*~|.*\.(tmp|temp|part|partial|crdownload|download|swp|swo|swx|lock)|.*_\$folder\$|_success"
)
_MEDIA: Final = ("image/", "video/", "audio/", "model/", "font/")


class DropKind(Enum):
    """What is done with a dropped object. One that is MADE has its workflow inside."""

    REQUEST = auto()
    MADE = auto()
    IMAGE = auto()
    MANIFEST = auto()
    LEFT_ALONE = auto()
    UNKNOWN = auto()


def kind_of_drop(key: str) -> DropKind:
    """What an object of this key is."""
    folder, name = key.partition("/")[0] + "/", key.lower()
    if _is_clutter(name):
        return DropKind.LEFT_ALONE
    if folder == IMAGES and "/" in key[len(IMAGES) :]:
        return DropKind.IMAGE
    if folder == MANIFESTS and name.endswith(MANIFEST_ENDINGS):
        return DropKind.MANIFEST
    if name.endswith(REQUEST_ENDINGS) and folder != MANIFESTS:
        return DropKind.REQUEST
    if folder == JOBS and may_carry_workflow(name):
        return DropKind.MADE
    return DropKind.LEFT_ALONE if folder in (JOBS, MANIFESTS) and _is_input(name) else DropKind.UNKNOWN


def stem_of(key: str) -> str:
    """The name of a dropped file without its folders and its ending: `photos` of `batches/2026/Photos.jsonl.gz`."""
    name = PurePosixPath(key).name
    endings = (ending for ending in (*MANIFEST_ENDINGS, *REQUEST_ENDINGS) if name.lower().endswith(ending))
    ending = max(endings, key=len, default=PurePosixPath(name).suffix)
    return name[: len(name) - len(ending)]


def plain_manifest(key: str) -> str:
    """The key under which a manifest is known to people, however it was packed and spelt: `batches/photos.jsonl`."""
    ending = max((each for each in MANIFEST_ENDINGS if key.lower().endswith(each)), key=len, default="")
    return f"{key[: len(key) - len(ending)]}{MANIFEST_ENDINGS[0]}" if ending else key


def _is_clutter(name: str) -> bool:
    """Whether it is a folder, or something that no person has put there."""
    parts = name.split("/")
    return parts[-1] == "" or any(re.match(r"\.[^.]", part) or _CLUTTER.fullmatch(part) for part in parts)


def _is_input(name: str) -> bool:
    """Whether it is a file that workflows take as an input, or a model."""
    return (type_of_name(name) or "").startswith(_MEDIA) or name.endswith(MODEL_ENDINGS)
