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
from typing import IO, Any

from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.jobs.lines import Line, lines_of
from comfy_serverless.jobs.request import is_bare_workflow

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
        InvalidRequest: it cannot be read, or is one object over many lines.
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
    """A list of requests as lines. Raises InvalidRequest if it is one value over many lines."""
    if not _may_be_one_value(manifest):
        return manifest
    with manifest.lines_file.open("rb") as file:
        values = _values(file)
    match values:
        case [list() as requests] if requests:
            target = folder / "list.jsonl"
            target.write_text("".join(f"{json.dumps(request)}\n" for request in requests), encoding="utf-8")
            note = f"a list of {len(requests):,} requests: line 2 below is the second of them"
            return Manifest(manifest.file, target, (*manifest.notes, note))
        case [dict() as value] if is_bare_workflow(value):
            raise InvalidRequest(
                f"{manifest.file} is one workflow, not a manifest, which has a job request in each line. To run it for "
                f"many files: `comfy-serverless batch run {manifest.file} --each 'photos/*.jpg'`. To run it once: "
                f"`comfy-serverless run {manifest.file}`."
            )
        case [list(), *_]:
            return manifest  # lines, of which the first is no request
        case [_, *others]:
            what = f"{len(values)} JSON values" if others else "one JSON value"
            raise InvalidRequest(
                f"{manifest.file} has {what} over many lines, and a manifest has a job request in each line: "
                f"`jq -c . {manifest.file} > requests.jsonl` makes it so."
            )
    return manifest


def _may_be_one_value(manifest: Manifest) -> bool:
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


def _values(file: IO[bytes]) -> list[Any]:
    """The JSON values in a file, one behind the other; none if there is anything else in it."""
    try:
        text = file.read().decode("utf-8-sig")
        decoder, values = json.JSONDecoder(), []
        position = _after_space(text, 0)
        while position < len(text):
            value, position = decoder.raw_decode(text, position)
            values.append(value)
            position = _after_space(text, position)
    except (ValueError, RecursionError):
        return []
    return values


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _head(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(4)
