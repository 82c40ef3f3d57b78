"""Files that come into ComfyUI's folders when the run that made them is over: a thread of a node has gone on.

They are nobody's output. Those of one owner's runs must not be there when the next owner's begin: a node that lists a
folder would show them. So they are moved out of ComfyUI's sight; the newest of them are kept there for the operator.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from comfy_serverless.connector.made_files import TICK_S, Remembered

logger = logging.getLogger(__name__)

#: How much of them is kept, in bytes.
MAX_KEPT_BYTES = 256 * 1024 * 1024
_SHOWN = 5


class LateFiles:
    """Those of one engine's output and temp folders. The caller has the folders, and nothing runs with them.

    Args:
        keep_in: where they are moved to. It need not exist.
    """

    def __init__(self, keep_in: Path) -> None:
        self._keep_in = keep_in
        self._remembered = Remembered()
        self._owner: str | None = None
        self._since_s = 0.0
        #: What was there already, of the moment in which the owner's runs began.
        self._before: set[tuple[int, int, int]] = set()
        self._folders: set[str] = set()

    def change(self, owner: str, folders: Mapping[str, Path]) -> None:
        """Note whose runs begin now; if the last ones were another's, what came late of those is moved out."""
        if owner == self._owner:
            return
        roots = [folders[kind] for kind in ("output", "temp")]
        if self._owner is not None:
            self._move_out(roots)
        self._owner, self._since_s, self._folders = owner, time.time() - TICK_S, set()
        self._before = {
            (state.st_dev, state.st_ino, state.st_ctime_ns)
            for root in roots
            for _, state in self._remembered.changed_files(str(root), since_s=self._since_s, seen=self._folders)
        }

    def _move_out(self, roots: list[Path]) -> None:
        moved: list[str] = []
        for root in roots:
            for name, state in self._remembered.changed_files(str(root), since_s=self._since_s):
                if (state.st_dev, state.st_ino, state.st_ctime_ns) in self._before:
                    continue
                path = Path(name)
                try:
                    self._keep_in.mkdir(mode=0o700, parents=True, exist_ok=True)
                    shutil.move(path, self._keep_in / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}-{path.name[-150:]}")
                except FileNotFoundError:
                    continue
                except OSError:
                    logger.exception("a late file of another owner could not be moved out of ComfyUI's folder")
                    continue
                moved.append(path.relative_to(root).as_posix()[:200])
                self._remove_empty(path.parent, root)
        if moved:
            logger.warning(
                "%d files came into ComfyUI's folders after the end of the runs that wrote them, and are no outputs. "
                "They were moved to %s before another owner's run: %s",
                len(moved),
                self._keep_in,
                ", ".join(moved[:_SHOWN]),
            )
            self._make_room()

    def _remove_empty(self, folder: Path, root: Path) -> None:
        """Remove the folders on a file's way that are empty now, and as new: their names may tell something."""
        while folder != root and str(folder) not in self._folders:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _make_room(self) -> None:
        """Remove the oldest of what is kept, so that it is not too much."""
        kept = sorted(self._keep_in.iterdir(), reverse=True)
        size_bytes = 0
        for path in kept:
            with suppress(OSError):
                size_bytes += path.lstat().st_size
                if size_bytes > MAX_KEPT_BYTES:
                    path.unlink()
