"""A manifest on this machine: read in whatever form people keep it, as the UTF-8 lines that are dropped.

requests.jsonl ─────────────────────────► its lines
.jsonl.gz, UTF-16, a list of requests ──► lines in a temporary file, and a note
one object over many lines ─────────────► refused, with what to do
"""

from __future__ import annotations

import codecs
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
from typing import Any

from comfy_serverless.cli.habits import counted
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.graph.wrappers import unwrap
from comfy_serverless.jobs.lines import Line, lines_of

#: The longest file that is read whole, to see whether it is one JSON value over many lines.
MAX_WHOLE_BYTES = 256 * 1024 * 1024
#: What is given for a manifest that comes through standard input.
STANDARD_INPUT = Path("-")
_READ_BYTES = 1024 * 1024
_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SPACE = re.compile(r"[ \t\r\n]*")
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
    if not _NAME.fullmatch(wanted):
        raise InvalidRequest(f"{wanted!r} cannot be a batch's name: up to 40 letters, digits, _ and -; give --name.")
    return wanted


@contextmanager
def opened(file: Path) -> Iterator[Manifest]:
    """Read a manifest; temporary files live as long as the context.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it cannot be read, or is a workflow.
    """
    if file != STANDARD_INPUT and not file.is_file():
        raise NotFound(f"there is no file {file}.")
    with TemporaryDirectory(prefix="manifest-") as name:
        folder = Path(name)
        given = file
        if file == STANDARD_INPUT:
            given = folder / "given.jsonl"
            with given.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        try:
            yield _in_lines(_decoded(Manifest(file, given), folder), folder)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InvalidRequest(f"{file} begins like a gzip file, and cannot be unpacked: {error}.") from error


def _decoded(manifest: Manifest, folder: Path) -> Manifest:
    """Unpacked, and in UTF-8."""
    if _head(manifest.lines_file).startswith(_GZIP):
        target = folder / "unpacked.jsonl"
        with gzip.open(manifest.lines_file) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        manifest = Manifest(manifest.file, target, (*manifest.notes, "unpacked: a batch is dropped as plain lines"))
    if _head(manifest.lines_file).startswith(_UTF16):
        target = folder / "utf-8.jsonl"
        try:
            with manifest.lines_file.open(encoding="utf-16", newline="") as given, target.open("wb") as plain:
                while text := given.read(_READ_BYTES):
                    plain.write(text.encode())
        except UnicodeError as error:
            raise InvalidRequest(f"{manifest.file} begins like UTF-16, and is none: {error}.") from error
        manifest = Manifest(manifest.file, target, (*manifest.notes, "read as UTF-16: a batch is dropped as UTF-8"))
    return manifest


def _in_lines(manifest: Manifest, folder: Path) -> Manifest:
    """Requests in a list or over many lines, as a line each, where it begins. Raises InvalidRequest for a workflow."""
    if not _may_be_values(manifest) or not (values := _values(manifest.lines_file)):
        return manifest
    (_, first), *others = values
    if isinstance(first, dict) and not others and "workflow" not in first and unwrap(first) is not None:
        raise InvalidRequest(
            f"{manifest.file} is one workflow, not a manifest, which has a job request in each line. To run it for "
            f"many files: `comfy-serverless batch run {manifest.file} --each 'photos/*.jpg'`. To run it once: "
            f"`comfy-serverless run {manifest.file}`."
        )
    target, number = folder / "values.jsonl", 1
    with target.open("w", encoding="utf-8") as lines:
        for begin, value in values:
            lines.write("\n" * (begin - number) + f"{json.dumps(value)}\n")
            number = max(begin, number) + 1
    note = (
        f"{counted(len(values), 'request')} in a list or over many lines: each is dropped as one line, where it begins"
    )
    return Manifest(manifest.file, target, (*manifest.notes, note))


def _may_be_values(manifest: Manifest) -> bool:
    """Whether the first line that is not blank is no whole JSON value, or a list."""
    if manifest.lines_file.stat().st_size > MAX_WHOLE_BYTES:
        return False
    first = next((line for line in manifest.lines() if not line.is_blank), None)
    if first is None or first.content is None:
        return first is not None
    try:
        return isinstance(json.loads(first.content.decode("utf-8-sig")), list)
    except (ValueError, RecursionError):
        return True


def _values(file: Path) -> list[tuple[int, Any]]:
    """The JSON values of a list or one behind the other, each with the line where it begins; none if all is not so."""
    values: list[tuple[int, Any]] = []
    decoder, line, counted_to = json.JSONDecoder(), 1, 0
    try:
        text = file.read_bytes().decode("utf-8-sig")
        position = _after_space(text, 0)
        is_list = text.startswith("[", position)
        position = _after_space(text, position + 1) if is_list else position
        while position < len(text) and not (is_list and text[position] == "]"):
            value, end = decoder.raw_decode(text, position)
            line += text.count("\n", counted_to, position)
            counted_to = position
            values.append((line, value))
            position = _after_space(text, end)
            if is_list and text.startswith(",", position):
                position = _after_space(text, position + 1)
    except (ValueError, RecursionError):
        return []
    return values if not is_list or not text[position + 1 :].strip() else []


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _head(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(4)
