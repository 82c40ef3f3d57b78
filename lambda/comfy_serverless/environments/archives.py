"""Unpacks a pack's archive, which a stranger made: nothing leaves its folder, and nothing grows without an end.

The registry's archives are ZIPs, also where their name says `tar.gz`; a real tar is taken all the same.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

#: The most bytes of an archive, packed and unpacked, and the most files: far above what any published pack has.
MOST_PACKED_BYTES: Final = 2_000_000_000
MOST_BYTES: Final = 4_000_000_000
MOST_FILES: Final = 100_000
_CHUNK_BYTES: Final = 1 << 20


class BadArchive(Exception):
    """An archive is none, or must not be unpacked; the message is the end of a sentence."""


def unpack(archive: Path, folder: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> Path:
    """Unpack into a folder that is empty. Returns the folder that has the pack: the one inside, where there is one.

    Raises:
        BadArchive: a name leads out of the folder, there are links or devices, too much, the same name twice, nothing.
    """
    try:
        with archive.open("rb") as file:
            head = file.read(4)
        members = _zip_members(archive) if head.startswith(b"PK") else _tar_members(archive)
        _write(members, folder, most_bytes=most_bytes, most_files=most_files)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchive(f"is damaged, or no archive: {error}") from error
    except OSError as error:
        if isinstance(error, tarfile.TarError):
            raise
        raise BadArchive(f"cannot be unpacked: {error.strerror or error}") from error
    return _content(folder)


def _write(members: Iterator[tuple[str, IO[bytes], bool]], folder: Path, *, most_bytes: int, most_files: int) -> None:
    seen: set[str] = set()
    left = most_bytes
    for name, content, is_program in members:
        place = _safe(name)
        if str(place).lower() in seen:
            raise BadArchive(f"has {name!r} twice, or only in another case")
        seen.add(str(place).lower())
        if len(seen) > most_files:
            raise BadArchive(f"has more than {most_files:,} files")
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with content, path.open("xb") as to:
            while chunk := content.read(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise BadArchive(f"unpacks to more than {most_bytes:,} bytes")
                to.write(chunk)
        if is_program:
            path.chmod(0o755)
    if not seen:
        raise BadArchive("is empty")


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes], bool]]:
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            mode = entry.external_attr >> 16
            if stat.S_ISLNK(mode):
                raise BadArchive(f"has a link, {entry.filename!r}, which may lead anywhere")
            if entry.flag_bits & 1:
                raise BadArchive(f"is encrypted ({entry.filename!r})")
            if not entry.is_dir():
                # Windows' own packer writes `\`; `orig_filename` is what stands in the archive.
                yield entry.filename.replace("\\", "/"), packed.open(entry), bool(mode & stat.S_IXUSR)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes], bool]]:
    with tarfile.open(archive) as packed:
        for entry in packed:
            if entry.isdir():
                continue
            content = packed.extractfile(entry) if entry.isfile() else None
            if content is None:
                raise BadArchive(f"has {entry.name!r}, a link or device, which may lead anywhere")
            yield entry.name, content, bool(entry.mode & stat.S_IXUSR)


def _safe(name: str) -> PurePosixPath:
    place = PurePosixPath(name)
    drive = len(name) > 1 and name[1] == ":"
    if place.is_absolute() or ".." in place.parts or drive or "\0" in name or not place.parts:
        raise BadArchive(f"has a name that leads out of its folder, {name!r}")
    return place


def _content(folder: Path) -> Path:
    """Archives of forges have one folder with all the rest in it; the pack is that."""
    entries = [path for path in folder.iterdir() if path.name != "__MACOSX"]
    only = entries[0] if len(entries) == 1 else None
    return only if only is not None and only.is_dir() and not (folder / "__init__.py").exists() else folder
