"""Whose something is, by a mark that it carries: pictures by their colour, texts and files by a phrase.

And what is the operator's: files in ComfyUI's folders, and beside them, that no job may get, change or remove.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from comfy_serverless.connector.made_files import JOBS_FOLDER
from comfy_serverless.graph.file_inputs import OWN_FOLDER
from comfy_serverless.worker.inputs.cache import DIGEST_LENGTH

OWNERS = ("alice", "bob", "carol")
OPERATOR = "the operator"
Color = tuple[int, int, int]
#: How far the blue of somebody's pictures is from the middle, at least: the same when they are inverted.
_DISTANCES: Mapping[str, int] = {"alice": 10, "bob": 42, "carol": 74, OPERATOR: 106}
_BAND = 12
#: Files of others, below ComfyUI's folder.
CANARIES = (
    *("output/canary.png", "output/deep/canary.png", f"output/{JOBS_FOLDER}/somebody/canary_00001_.png"),
    *("output/canary.txt", "input/canary.txt", "user/settings.json", ".env"),
)


def color_of(owner: str, draw: random.Random) -> Color:
    """A colour that is the owner's."""
    distance = _DISTANCES[owner] + draw.randrange(_BAND)
    return draw.randrange(256), draw.randrange(256), draw.choice((127 - distance, 128 + distance))


def text_of(owner: str) -> str:
    """The phrase that marks an owner's texts and files."""
    return f"this belongs to {owner}"


def photo_of(owner: str) -> tuple[Color, bytes]:
    """A picture that the owner brings again and again, and its colour."""
    color = color_of(owner, random.Random(owner))
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "PNG")
    return color, file.getvalue()


def photo_name(owner: str) -> str:
    """The name that the photo has in ComfyUI's input folder while it is shown: anybody who has the photo knows it."""
    return f"{OWN_FOLDER}/{hashlib.sha256(photo_of(owner)[1]).hexdigest()[:DIGEST_LENGTH]}.png"


def owners_of(content: bytes) -> set[str]:
    """Whose something is, by its marks."""
    found = {owner for owner in _DISTANCES if text_of(owner).encode() in content}
    try:
        with Image.open(io.BytesIO(content)) as image:
            colors = image.convert("RGB").getcolors(1)
    except OSError:
        return found
    if colors:
        color = colors[0][1]
        assert isinstance(color, tuple)
        # Nodes count in fractions, and may be one level off.
        distance = abs(color[2] - 127.5)
        found |= {owner for owner, least in _DISTANCES.items() if least - 1 <= distance <= least + _BAND + 1}
    return found


class Canaries:
    """The operator's files, and what else is in ComfyUI's folders at the beginning."""

    def __init__(self, base: Path) -> None:
        self._base = base
        for name in CANARIES:
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                Image.new("RGB", (8, 8), color_of(OPERATOR, random.Random(name))).save(path)
            else:
                path.write_text(text_of(OPERATOR))
        self._states = {name: self._state(name) for name in CANARIES}
        self._beginning = self._paths()

    def harmed(self) -> list[str]:
        """What has been done to them."""
        return [f"{name} was removed or changed" for name in CANARIES if self._state(name) != self._states[name]]

    def more(self) -> list[str]:
        """The files and folders that are in ComfyUI's folders and were not there, or are no longer there."""
        return sorted(self._paths() ^ self._beginning)

    def _state(self, name: str) -> tuple[int, int, int, int] | None:
        try:
            state = (self._base / name).stat()
        except FileNotFoundError:
            return None
        return state.st_ino, state.st_mtime_ns, state.st_size, state.st_nlink

    def _paths(self) -> set[str]:
        """All but the folders, ours, that jobs are put below: they stay, empty."""
        ours = {self._base / "input" / OWN_FOLDER, *(self._base / kind / JOBS_FOLDER for kind in ("output", "temp"))}
        found = {path for kind in ("input", "output", "temp") for path in (self._base / kind).rglob("*")}
        return {str(path.relative_to(self._base)) for path in found - ours}
