"""Writes an output into a folder, never in the place of another file."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import BinaryIO

from comfy_serverless.connector.outputs import Output

#: File systems take names of 255 bytes; the rest is for a number.
_LONGEST_NAME_BYTES = 240


def save(output: Output, folder: Path) -> Path:
    """Write an output into a folder, which is made if it is not there; return where it is.

    Its name is the output's own, or `name-2.png`, `name-3.png`, … where that is taken, also by another process.

    Raises:
        OSError: it cannot be read or written; nothing of it is left in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with output.open() as source:
        file, path = _new_file(folder, output.name)
        try:
            with file:
                shutil.copyfileobj(source, file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


def _new_file(folder: Path, name: str) -> tuple[BinaryIO, Path]:
    """A file that was not there, open for writing."""
    name = Path(name).name.replace("\0", "_")
    given = Path(name if name not in ("", "..") else "output")
    ending = given.suffix[-20:]
    stem = (
        given.name.removesuffix(ending).encode()[: _LONGEST_NAME_BYTES - len(ending.encode())].decode(errors="ignore")
    )
    for number in itertools.count(1):
        path = folder / (f"{stem}{ending}" if number == 1 else f"{stem}-{number}{ending}")
        try:
            return path.open("xb"), path
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")
