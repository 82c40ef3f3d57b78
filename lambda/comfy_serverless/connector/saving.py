"""Saves outputs into a folder. No file that is there is ever replaced, whoever made it, another process included."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: A name that ends in the number ComfyUI gives it: `fox_00001_.png`. Another number, of a date say, is part of a name.
_COUNTED = re.compile(r"(?P<before>.*?)(?P<number>[0-9]{5,})(?P<after>_(?:\.\w+)?)", re.DOTALL)
#: File systems take names of 255 bytes; the rest is for a number.
_LONGEST_NAME_BYTES = 240
_LONGEST_ENDING = 20
_MOST_TRIES = 10_000


def save(source: BinaryIO, folder: Path, name: str) -> Path:
    """Write a stream to a new file of that name or, if it is taken, of the next free number. Returns where it is.

    `fox_00001_.png` goes on with `fox_00002_.png`, any other name with `name-2.png`. A name that is too long is cut. A
    file that could not be written whole is removed.

    Raises:
        OSError: the folder or the disk does not take it, or the source breaks off.
    """
    for candidate in _names(folder, _plain(name)):
        path = folder / candidate
        try:
            file = path.open("xb")
        except FileExistsError:
            continue
        try:
            with file:
                shutil.copyfileobj(source, file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path
    raise FileExistsError(f"{folder / name} and the next {_MOST_TRIES:,} names are taken")


def _plain(name: str) -> str:
    """A name that a file in the folder can have."""
    name = Path(name).name.replace("\0", "_").encode(errors="replace").decode()
    ending = Path(name).suffix[-_LONGEST_ENDING:]
    most_bytes = _LONGEST_NAME_BYTES - len(ending.encode())
    stem = name.removesuffix(ending).encode()[:most_bytes].decode(errors="ignore")
    return f"{stem}{ending}" if name not in ("", "..") else "output"


def _names(folder: Path, name: str) -> Iterator[str]:
    """The name, then those with the next numbers behind the highest that is in the folder."""
    yield name
    counted = _COUNTED.fullmatch(name)
    if counted is not None:
        before, after, width = counted["before"], counted["after"], len(counted["number"])
        lowest = int(counted["number"]) + 1
    else:
        path = Path(name)
        before, after, width, lowest = f"{path.stem}-", path.suffix, 0, 2
    numbers = re.compile(f"{re.escape(before)}([0-9]{{1,9}}){re.escape(after)}")
    taken = [int(match[1]) for path in folder.iterdir() if (match := numbers.fullmatch(path.name))]
    first = max([lowest - 1, *taken]) + 1
    for number in range(first, first + _MOST_TRIES):
        yield f"{before}{number:0{width}}{after}"
