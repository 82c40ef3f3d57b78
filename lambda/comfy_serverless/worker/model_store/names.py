"""The names ComfyUI sees: links from `models/{folder}/{name}` to contents.

A name means one content as long as a job holds it. ComfyUI keeps what it has read by name, so a name that begins to
mean another content is reported to the caller, who has ComfyUI forget.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

from comfy_serverless.worker.model_store.locks import ALONE, SHARED, try_change, try_lock

_POLL_S = 0.05
#: ComfyUI lists a folder anew if its time of change differs; the file system's clock is too coarse for that.
_TICK_NS = 1_000_000


class NameInUse(Exception):
    """Until the deadline another job held the name with another content."""


class Names:
    """The links below `models/`, each with its own lock."""

    def __init__(self, directory: Path) -> None:
        self._models = directory / "models"
        self._blobs = directory / "blobs"
        self._locks = directory / "locks"
        self._partial = directory / "partial"

    def hold(self, name: str, sha256: str, *, deadline: float) -> tuple[int, str | None]:
        """Let `folder/name` mean a content until the lock is closed; return the lock, and what the name meant before.

        Raises NameInUse if another job holds it with another content until the deadline, and OSError if the folder
        cannot be written.
        """
        before: str | None = None
        while True:
            held = try_lock(self._lock_of(name), SHARED, create=True)
            if held is not None:
                if self.meaning(name) == sha256:
                    return held, before
                # If this job is alone it may change the name. Then once more from the start: another may come first.
                if try_change(held, ALONE):
                    before = self.meaning(name) or before
                    self._link(name, sha256)
                    os.close(held)
                    continue
                os.close(held)
            if time.monotonic() >= deadline:
                raise NameInUse(name)
            time.sleep(_POLL_S)

    def meaning(self, name: str) -> str | None:
        """The content a name leads to."""
        return _target(self._models / name)

    def remove_all(self, sha256: str) -> list[str]:
        """Remove the names of a content that no job holds."""
        removed = []
        links = [Path(folder, file) for folder, _, files in os.walk(self._models) for file in files]
        for link in links:
            if _target(link) != sha256:
                continue
            name = str(link.relative_to(self._models))
            held = try_lock(self._lock_of(name), ALONE, create=True)
            if held is None:
                continue  # another job is giving it another content
            try:
                if _target(link) == sha256:
                    link.unlink()
                    _mark_changed(link.parent)
                    removed.append(name)
            finally:
                os.close(held)
        return removed

    def _lock_of(self, name: str) -> Path:
        return self._locks / hashlib.sha256(name.encode()).hexdigest()[:32]

    def _link(self, name: str, sha256: str) -> None:
        place = self._models / name
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # The link is made elsewhere, so that ComfyUI never sees another name.
        with tempfile.TemporaryDirectory(dir=self._partial, prefix="link-") as folder:
            link = Path(folder) / "link"
            link.symlink_to(os.path.relpath(self._blobs / sha256, place.parent))
            link.replace(place)
        _mark_changed(place.parent)


def _target(link: Path) -> str | None:
    try:
        return link.readlink().name
    except OSError:  # not there, or no link
        return None


def _mark_changed(folder: Path) -> None:
    changed_ns = max(time.time_ns(), folder.stat().st_mtime_ns + _TICK_NS)
    os.utime(folder, ns=(changed_ns, changed_ns))
