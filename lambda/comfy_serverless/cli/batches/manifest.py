"""A manifest on this machine: read in whatever form people keep it, as the UTF-8 lines that are dropped.

requests.jsonl ────────────────────────────────────────────────────► its lines
packed; UTF-16 or UTF-32; a list; requests over many lines ─────────► lines in a temporary file, and a note
one workflow, a picture, a list that breaks off: no manifest at all ─► refused, with what to do

Which of these it is `batches.manifest_text` says, as it does of manifests that are dropped by other means.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from comfy_serverless.batches.manifest_text import HEAD_BYTES, in_lines, is_in_lines
from comfy_serverless.cli.paths import is_file, is_folder
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.graph.wrappers import unwrap
from comfy_serverless.jobs.lines import Line, lines_of
from comfy_serverless.json_text import GZIP

#: The largest manifest, unpacked, that is read whole because it is not in lines.
MAX_WHOLE_BYTES = 256 * 1024 * 1024
#: What is given for a manifest that comes through standard input.
STANDARD_INPUT = Path("-")
_READ_BYTES = 1024 * 1024
#: What people have instead of a manifest.
_TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".ods")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_ENDING = re.compile(r"\.(jsonl|ndjson|jsonlines|json|txt)(\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it can be dropped.

    Attributes:
        file: the file that was given.
        lines_file: a file of UTF-8 lines; mostly the same.
        notes: what was done with it, for people.
    """

    file: Path
    lines_file: Path
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[Line]:
        """Its lines, blank ones too."""
        with self.lines_file.open("rb") as file:
            yield from lines_of(iter(lambda: file.read(_READ_BYTES), b""))


def batch_name(file: Path, name: str | None) -> str:
    """What a batch is called: as it is asked for, or as its file. Raises InvalidRequest if that is no name."""
    wanted = _ENDING.sub("", file.name) if name is None else name
    if name is None and file == STANDARD_INPUT:
        raise InvalidRequest("a manifest from standard input has no name of its own: give --name.")
    if name is None and file.suffix.lower() in _TABLES:
        raise InvalidRequest(
            f"{file} is a table by its name, and a manifest (.jsonl) has a JSON request in each line: "
            '{"workflow": "poster", "inputs": {"prompt": "a fox"}} (docs/batches.md).'
        )
    if not _NAME.fullmatch(wanted):
        raise InvalidRequest(f"{wanted!r} cannot be a batch's name: up to 40 letters, digits, _ and -; give --name.")
    return wanted


@contextmanager
def opened(file: Path) -> Iterator[Manifest]:
    """Read a manifest; temporary files live as long as the context.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it cannot be read, or is no manifest.
    """
    if file != STANDARD_INPUT and not is_file(file):
        raise NotFound(f"{file} is a folder, not a manifest." if is_folder(file) else f"there is no file {file}.")
    with TemporaryDirectory(prefix="manifest-") as name:
        folder = Path(name)
        try:
            manifest = _in_lines(_unpacked(Manifest(file, _given(file, folder)), folder), folder)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InvalidRequest(f"{file} begins like a gzip file, and cannot be unpacked: {error}.") from error
        except OSError as error:
            raise InvalidRequest(f"{file} cannot be read: {error.strerror}.") from error
        yield manifest


def _given(file: Path, folder: Path) -> Path:
    """The file itself; what comes through standard input as one."""
    if file != STANDARD_INPUT:
        return file
    target = folder / "given.jsonl"
    with target.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    return target


def _unpacked(manifest: Manifest, folder: Path) -> Manifest:
    """A packed one unpacked, of any size."""
    if not _head(manifest.lines_file).startswith(GZIP):
        return manifest
    target = folder / "unpacked.jsonl"
    with gzip.open(manifest.lines_file) as packed, target.open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return Manifest(manifest.file, target, (*manifest.notes, "unpacked: a batch is dropped as plain lines"))


def _in_lines(manifest: Manifest, folder: Path) -> Manifest:
    """One that is not in lines as one that is. Raises InvalidRequest if it is none."""
    if is_in_lines(_head(manifest.lines_file)):
        return manifest
    file, size_bytes = manifest.file, manifest.lines_file.stat().st_size
    if size_bytes > MAX_WHOLE_BYTES:
        raise InvalidRequest(
            f"{file} does not have a request in each line, and has {size_bytes:,} bytes; up to {MAX_WHOLE_BYTES:,} are "
            "read that way. `jq -c '.[]' list.json > manifest.jsonl` writes a list as lines."
        )
    source = "standard input" if file == STANDARD_INPUT else str(file)
    content = in_lines(manifest.lines_file.read_bytes(), source=source)
    if _is_workflow(content):
        raise InvalidRequest(
            f"{file} is one workflow, not a manifest, which has a job request in each line. To run it for many files: "
            f"`comfy-serverless batch run {file} --each 'photos/*.jpg'`. To run it once: "
            f"`comfy-serverless run {file}`."
        )
    target = folder / "lines.jsonl"
    target.write_bytes(content)
    note = "not UTF-8 with a request in each line: it is dropped so, each request as the line where it begins"
    return Manifest(file, target, (*manifest.notes, note))


def _is_workflow(lines: bytes) -> bool:
    """Whether all that a manifest has is one workflow, without a request around it."""
    try:
        document = json.loads(lines)
        return isinstance(document, dict) and "workflow" not in document and unwrap(document) is not None
    except (InvalidRequest, ValueError, RecursionError):  # several lines, or a bad one: that is said of lines
        return False


def _head(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(HEAD_BYTES)
