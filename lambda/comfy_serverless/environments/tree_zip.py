"""A folder as a ZIP whose bytes depend on nothing but the files' names, contents and whether they may be run.

So a hash of it is a hash of the tree: that of a pack in a repository or on this machine. Nothing is compressed, because
compressors differ. Standard library only: the image's build has the same file.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

#: What is none of a pack's files, wherever it stands: history, byte code, environments, what systems leave behind.
LEFT_OUT: Final = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".DS_Store", "Thumbs.db", ".venv", ".pytest_cache", ".mypy_cache",
     ".ruff_cache", ".idea", ".vscode"}
)  # fmt: skip
_SUFFIXES_LEFT_OUT: Final = (".pyc", ".pyo")
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_CHUNK_BYTES: Final = 1 << 20


class NotATree(Exception):
    """A folder has something that cannot be in such a ZIP; the message names it."""


def files_below(folder: Path) -> list[PurePosixPath]:
    """The files of a tree, sorted by name. A link to a file inside of it counts as that file.

    Raises:
        NotATree: a link leads out of the tree, to a folder or nowhere, or a name is no text.
    """
    return sorted(_walk(folder, folder.resolve(), PurePosixPath()), key=str)


def write(folder: Path, to: IO[bytes]) -> None:
    """Write a tree. Raises NotATree as `files_below` does, and OSError."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        for name in files_below(folder):
            source = folder / name
            entry = zipfile.ZipInfo(str(name), _MOMENT)
            entry.create_system = _UNIX
            is_program = bool(source.stat().st_mode & stat.S_IXUSR)
            entry.external_attr = (stat.S_IFREG | (0o755 if is_program else 0o644)) << 16
            entry.file_size = source.stat().st_size
            with source.open("rb") as reading, archive.open(entry, "w") as writing:
                while chunk := reading.read(_CHUNK_BYTES):
                    writing.write(chunk)


def sha256_and_size(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file, in hexadecimal digits, and its bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as reading:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _walk(folder: Path, root: Path, place: PurePosixPath) -> Iterator[PurePosixPath]:
    for path in folder.iterdir():
        name = path.name
        if name in LEFT_OUT or name.endswith(_SUFFIXES_LEFT_OUT):
            continue
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise NotATree(f"the name of {str(place / name)!r} is no text in UTF-8") from None
        if path.is_symlink():
            target = path.resolve()
            if not target.is_relative_to(root) or not target.is_file():
                what = "to a folder, or nowhere" if target.is_relative_to(root) else "out of the folder"
                raise NotATree(f"{place / name} is a link {what}")
        if path.is_dir():
            if (path / "pyvenv.cfg").is_file():  # an environment of Python's, for one machine
                continue
            yield from _walk(path, root, place / name)
        elif path.is_file():
            yield place / name
        else:
            raise NotATree(f"{place / name} is neither a file nor a folder")
