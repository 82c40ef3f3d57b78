"""The keys of results in S3. Node ids and file names come from workflows, and may be anything. No IO."""

from __future__ import annotations

import re
import unicodedata
import uuid
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_serverless.connector.outputs import Output
    from comfy_serverless.jobs.request import OutputTarget
    from comfy_serverless.settings import Settings

RESULT_NAME = "result.json"
#: All outputs, one a line, where there are more than the result lists.
OUTPUTS_NAME = "outputs.jsonl"
#: The folder of thumbnails, beside the outputs of a node. No output's key has a folder there.
THUMBS_NAME = "thumbs"
#: What ComfyUI wrote during the job.
LOG_NAME = "log.txt"
#: S3 accepts keys of 1,024 bytes: prefix (512 bytes), job id and two of these.
MAX_NAME_BYTES = 150
_ALLOWED = frozenset(" .-_+=@,()")
_ASSET_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_asset_id(text: str) -> bool:
    """Whether a text can be the id of an asset or an upload; other texts cost no read of the table."""
    return _ASSET_ID.fullmatch(text) is not None


def folder_prefix(prefix: str) -> str:
    """A prefix as a folder: `results` and `/results/` become `results/`; an empty one stays empty."""
    bare = prefix.strip("/")
    return f"{bare}/" if bare else ""


def safe_name(name: str) -> str:
    """One harmless part of a key: letters of any script, digits, and a few signs; never `.`, `..` or empty."""
    normal = unicodedata.normalize("NFC", name)
    plain = "".join(letter if letter.isalnum() or letter in _ALLOWED else "_" for letter in normal).strip(" ")
    if not plain.strip("."):
        return "_" * max(1, len(plain))
    return _cut(plain, MAX_NAME_BYTES)


class KeyAllotment:
    """Gives every output of one job its key: `{prefix}{job_id}/{node_id}/{name}`.

    Equal names (from different subfolders, or made equal by cleaning) get a number, in the order they come. The same
    output always gets the same key.
    """

    def __init__(self, prefix: str, job_id: str) -> None:
        self._base = f"{folder_prefix(prefix)}{job_id}/"
        self._keys: dict[tuple[str, int, str, str, str], str] = {}
        self._taken: set[str] = set()
        #: The last number that a name was given: without it, a thousand equal names cost half a million look-ups.
        self._numbers: dict[str, int] = {}

    @property
    def result_key(self) -> str:
        """The key of the job's own document."""
        return self._base + RESULT_NAME

    @property
    def outputs_key(self) -> str:
        """The key of the list of all outputs."""
        return self._base + OUTPUTS_NAME

    def key(self, output: Output) -> str:
        """The key of an output."""
        identity = (output.node_id, output.index, output.folder_type, output.subfolder, output.name)
        if identity not in self._keys:
            self._keys[identity] = key = self._free_key(safe_name(output.node_id), safe_name(output.name))
            self._taken.add(key)
        return self._keys[identity]

    @staticmethod
    def another(key: str) -> str:
        """A key next to `key` that no other output has."""
        folder, _, name = key.rpartition("/")
        path = PurePosixPath(name)
        return f"{folder}/{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}"

    @staticmethod
    def of_thumbnail(key: str) -> str:
        """The key of the thumbnail of the output under `key`: no output has it, whatever its name."""
        folder, _, name = key.rpartition("/")
        return f"{folder}/{THUMBS_NAME}/{name}.webp"

    def _free_key(self, node: str, name: str) -> str:
        path = PurePosixPath(name)
        candidate = wanted = f"{self._base}{node}/{name}"
        while candidate in self._taken:
            number = self._numbers[wanted] = self._numbers.get(wanted, 1) + 1
            candidate = f"{self._base}{node}/{path.stem}-{number}{path.suffix}"
        return candidate


def keys_of(job_id: str, output: OutputTarget | None, settings: Settings) -> KeyAllotment:
    """The keys of a job: below the prefix that its request names, or else below OUTPUT_PREFIX."""
    prefix = settings.output_prefix if output is None or output.prefix is None else output.prefix
    return KeyAllotment(prefix, job_id)


def _cut(name: str, limit: int) -> str:
    """A name of at most `limit` bytes that keeps its suffix."""
    if len(name.encode()) <= limit:
        return name
    suffix = PurePosixPath(name).suffix
    suffix = suffix if len(suffix.encode()) <= 20 else ""
    stem = name.removesuffix(suffix).encode()[: limit - len(suffix.encode())]
    return stem.decode(errors="ignore") + suffix
