"""Puts models where the image's build finds them: `comfyui/models/{folder}/{name}`, each with its content checked.

A file of this machine is linked where the file system can do that, and copied elsewhere. What has an address is fetched
as workers fetch it. A file appears under its name when it is whole, and a second run finds it there.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comfy_serverless.environments.models import Found
from comfy_serverless.errors import AssetUnavailable, ComfyError, MissingAsset
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.sources import show as shown
from comfy_serverless.worker.model_store.remote import Part, Remote
from comfy_serverless.worker.model_store.transfer import DiskFailure, Transfer, sha256_of

#: How long a whole file may take, in seconds.
_WHOLE_S: Final = 24 * 3600.0

#: Is shown how many bytes of how many have come; None if that is not known.
Show = Callable[[int, "int | None"], None]


@dataclass(frozen=True, slots=True)
class ImageModels:
    """The folder with the image's models.

    Attributes:
        folder: `comfyui/models` of the repository.
        remote: returns what reads the file at an address; raises Unusable.
    """

    folder: Path
    remote: Callable[[str], Remote]

    def path(self, found: Found) -> Path:
        """Where a model goes."""
        return self.folder / found.model.path

    def has(self, found: Found) -> bool:
        """Whether its content is there. Of one whose content nobody says, any file of its name counts."""
        path = self.path(found)
        try:
            if not path.is_file() or found.size_bytes not in {None, path.stat().st_size}:
                return False
            return found.sha256 is None or _hash_of(path) == found.sha256
        except OSError as error:
            raise MissingAsset(f"{path} cannot be read: {error.strerror}.") from error

    def problems(self, found: Iterable[Found], *, replaces: bool) -> list[str]:
        """What keeps these, which are not there yet, from being put there."""
        wrong, needed = [], 0
        for one in found:
            path = self.path(one)
            needed += 0 if one.file is not None else one.size_bytes or 0
            if path.is_dir():
                wrong.append(f"{one.model.path}: {path} is a folder: rename that, or the model")
            elif path.exists() and not replaces:
                wrong.append(
                    f"{one.model.path}: {path} is another file: delete it, or let it be replaced with --replace"
                )
        free = shutil.disk_usage(next(parent for parent in (self.folder, *self.folder.parents) if parent.exists())).free
        if needed > free:
            wrong.append(f"{self.folder} has {free:,} bytes free, and the models have {needed:,}: make room there")
        return wrong

    def put(self, found: Found, show: Show) -> str:
        """Put one there; returns its SHA-256.

        Raises:
            MissingAsset: it cannot be read, fetched or written, or is not what it should be; nothing stands there then.
            AssetUnavailable: the same, but trying again may help.
        """
        path = self.path(found)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if found.file is not None:
                _link_or_copy(found.file.resolve(), part)
                show(found.size_bytes or 0, found.size_bytes)
            else:
                self._fetch(found.model.source_uri or "", part, show)
            sha256 = _hash_of(part)
            if found.sha256 not in {None, sha256}:
                raise MissingAsset(
                    f"{found.where} has the SHA-256 {sha256}, not {found.sha256} as it should: it has changed "
                    "meanwhile, or its host serves something else than it says. Nothing was written."
                )
            part.replace(path)
        except OSError as error:
            raise MissingAsset(f"{path} cannot be written: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)
        return sha256

    def _fetch(self, url: str, part: Path, show: Show) -> None:
        part.touch()
        counted = _Counted(show)
        try:
            remote = counted.of(self.remote(url))
            Transfer(remote, part, allocate=counted.begin, deadline=time.monotonic() + _WHOLE_S).run()
        except Unusable as failure:
            kind: type[ComfyError] = AssetUnavailable if failure.transient or failure.timed_out else MissingAsset
            raise kind(f"{shown(url)} {failure}.") from failure
        except DiskFailure as failure:
            raise MissingAsset(f"{part.parent} cannot be written: {failure.__cause__}.") from failure


class _Counted:
    """Shows how many bytes have come, of all parts together."""

    def __init__(self, show: Show) -> None:
        self._show, self._counting = show, threading.Lock()
        self._done, self._total = 0, 0

    def begin(self, total: int) -> None:
        self._total = total

    def of(self, remote: Remote) -> Remote:
        return _CountedRemote(remote, self)

    def chunks(self, part: Part) -> Iterator[bytes]:
        for chunk in part.chunks:
            yield chunk
            with self._counting:
                self._done += len(chunk)
                self._show(self._done, self._total or None)


@dataclass(frozen=True, slots=True)
class _CountedRemote:
    """A file somewhere else, whose bytes are counted."""

    inner: Remote
    counted: _Counted

    @contextmanager
    def open(self, first: int, last: int, *, version: str, deadline: float) -> Iterator[Part]:
        """See `Remote`."""
        with self.inner.open(first, last, version=version, deadline=deadline) as part:
            yield replace(part, chunks=self.counted.chunks(part))


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _hash_of(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return sha256_of(descriptor, deadline=time.monotonic() + _WHOLE_S)
    finally:
        os.close(descriptor)
