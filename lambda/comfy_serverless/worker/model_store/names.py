"""The names that ComfyUI sees: links from `models/{folder}/{name}` to contents, while a job that brought them is shown.

ComfyUI keeps what it has read by name. When a name begins to mean another content than ComfyUI may remember, it is made
to forget; when it means the same again it is not, and what it has loaded stays loaded.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from comfy_serverless.connector.model_folders import EMBEDDINGS
from comfy_serverless.errors import DeadlineExceeded

logger = logging.getLogger(__name__)

#: ComfyUI lists a folder anew if its time of change differs; the file system's clock is too coarse for that.
_TICK_NS = 1_000_000
#: With more names than these ComfyUI is made to forget them all, and so are we.
_MOST_REMEMBERED = 10_000


class NameInUse(Exception):
    """Until the deadline another job here had the name with another content."""


class Names:
    """The links that this process's ComfyUI sees, below `own`/models.

    `forget` has ComfyUI forget all that it has read, until the deadline it is given.
    """

    def __init__(self, own: Path, *, blobs: Path, forget: Callable[[float], None]) -> None:
        self._models = own / "models"
        self._blobs = blobs
        self._forget = forget
        self._change = threading.Condition()
        #: The content of each name that is there, and how many jobs have it.
        self._shown: dict[str, str] = {}
        self._holders: dict[str, int] = {}
        #: Names whose links are there; where one could not be made, what stands in its place is not ours to remove.
        self._made: set[str] = set()
        #: Names whose links could not be removed.
        self._stuck: set[str] = set()
        self._telling = threading.Lock()
        #: What ComfyUI may remember a name to mean.
        self._meant: dict[str, str] = {}

    def show(self, contents: Mapping[str, str], *, deadline: float) -> None:
        """Let each name mean its content, until `hide`: all of them, or none if this raises.

        Raises:
            NameInUse: a job that is shown now has one of them with another content.
            OSError: the folder cannot be written.
            ComfyError: ComfyUI could not be made to forget what a name meant before.
        """
        with self._change:
            while (taken := self._first_taken(contents)) is not None:
                if not self._change.wait(max(0.0, deadline - time.monotonic())):
                    raise NameInUse(taken)
            self._remove(())  # what is stuck
            self._link_again()
            done: list[str] = []
            try:
                for name, sha256 in contents.items():
                    done.append(name)
                    self._hold(name, sha256)
            except BaseException:
                self._let_go(done)
                raise
        try:
            self._tell(contents, deadline=deadline)
        except BaseException:
            self.hide(contents)
            raise

    def hide(self, names: Iterable[str]) -> None:
        """Remove names that no other job has. Never raises: a link that stays is logged, and tried again."""
        with self._change:
            self._let_go(names)

    def restore(self) -> None:
        """Make those links again that have been cleaned up. What cannot be made is logged."""
        try:
            with self._change:
                self._link_again()
        except OSError as error:
            logger.warning("a model's name is gone, and cannot be made again: %s", error)

    def _link_again(self) -> None:
        for name in sorted(self._made & self._shown.keys()):
            if not (self._models / name).exists():
                self._link(name, self._shown[name])

    def _first_taken(self, contents: Mapping[str, str]) -> str | None:
        for name, sha256 in contents.items():
            for other, content in self._shown.items():
                if (name == other and sha256 != content) or _is_within(name, other) or _is_within(other, name):
                    return name
        return None

    def _hold(self, name: str, sha256: str) -> None:
        self._holders[name] = self._holders.get(name, 0) + 1
        if name not in self._shown:
            self._shown[name] = sha256
            self._link(name, sha256)

    def _let_go(self, names: Iterable[str]) -> None:
        ended = set()
        for name in names:
            self._holders[name] -= 1
            if not self._holders[name]:
                del self._holders[name], self._shown[name]
                ended.add(name)
        try:
            self._remove(ended)
        except OSError as error:
            logger.warning("names of models could not be removed: %s", error)
        self._change.notify_all()

    def _tell(self, contents: Mapping[str, str], *, deadline: float) -> None:
        """Have ComfyUI forget, if it may remember other meanings of names. If that fails, the next job tries again."""
        if not self._telling.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise DeadlineExceeded("The job's time was over before ComfyUI had forgotten a model that changes.")
        try:
            changes = any(self._is_remembered_otherwise(name, sha256) for name, sha256 in contents.items())
            if changes or len(self._meant) > _MOST_REMEMBERED:
                self._forget(deadline)
                with self._change:
                    self._meant = dict(self._shown)
            self._meant.update(contents)
        finally:
            self._telling.release()

    def _is_remembered_otherwise(self, name: str, sha256: str) -> bool:
        # An embedding's name in a prompt's text is no error where there is none: that may be what is remembered.
        absent = "" if name.startswith(f"{EMBEDDINGS}/") else sha256
        return self._meant.get(name, absent) != sha256

    def _link(self, name: str, sha256: str) -> None:
        place = self._models / name
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # A hard link: a symbolic one with so long a target has a block of its own, which took ext4 3 ms to free.
        place.hardlink_to(self._blobs / sha256)
        self._made.add(name)
        self._mark_changed(place.parent)

    def _remove(self, names: Iterable[str]) -> None:
        """Remove links, with the folders that they leave empty. Raises OSError after having tried all."""
        self._stuck.update(names)
        failure: OSError | None = None
        for name in sorted(self._stuck):
            try:
                if name in self._made:
                    (self._models / name).unlink(missing_ok=True)
                    self._made.discard(name)
                self._remove_empty((self._models / name).parent)
                self._stuck.discard(name)
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    def _remove_empty(self, folder: Path) -> None:
        """Remove a folder, and those around it, if empty. ComfyUI misses the outermost ones, so these stay."""
        with suppress(OSError):  # not empty, or not there
            while folder.parent != self._models:
                folder.rmdir()
                folder = folder.parent
        self._mark_changed(folder)

    def _mark_changed(self, folder: Path) -> None:
        while folder != self._models:
            if folder.is_dir():
                changed_ns = max(time.time_ns(), folder.stat().st_mtime_ns + _TICK_NS)
                os.utime(folder, ns=(changed_ns, changed_ns))
            folder = folder.parent


def _is_within(name: str, folder: str) -> bool:
    return PurePosixPath(folder) in PurePosixPath(name).parents
