"""Checks files in child processes: what a hostile file does to its decoder it does to a child, within limits.

    thread of a job ──turn──► owner's child ──task, open files──► check ──► answer
                                   └─ over a limit: killed, and the file is refused; the next task gets another child

The limits of a check are memory and processor time, which the child sets itself before it opens the file
(`limits.py`), and the deadline, which is kept here. Children start when they are needed and end when they have been
idle (`child.py`); one that is gone, after a freeze on Lambda or for any other reason, is replaced. No child gets files
of two owners (`pool.py`).

One file of a job is checked at a time, and whoever was served longest ago goes first; there are children for
`MOST` jobs. So a job with a hundred slow files delays another by a single check at most, and only if as many such
jobs as there are children run at the same time.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_serverless.sandbox.pool import MOST, Pool
from comfy_serverless.sandbox.process import ChildGone, SandboxFailed
from comfy_serverless.sandbox.refused import MaskRefused, Refused

logger = logging.getLogger(__name__)


#: What is said where the kernel does not confine a child.
_LACKING = {
    "calls": "this platform filters no system calls (%s): the processes that decode files could reach the network, and "
    "change their user's files, if a file took one over; their rights and limits hold",
    "files": "this platform keeps no process from its user's files (Landlock: %s): the processes that decode files "
    "could read those if a file took one over; they have no network to send them, where calls are filtered",
}


class Sandbox:
    """Checks files that strangers sent. One instance serves a whole process; safe to use from several threads.

    All checks take a `deadline` on the monotonic clock, and `turn`, the name of whom the check is for: names take
    turns. `owner` is whose files they are, "" for the operator's. They raise Refused if the file cannot be used, and
    SandboxFailed for a fault of our own.

    Args:
        libraries: a folder that has PyAV, if our own have none: without it, videos cannot be decoded.
    """

    def __init__(self, libraries: Path | None = None) -> None:
        self._pool = Pool(libraries)
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        self._waiting: list[_Turn] = []
        #: When each of those who wait or are served was served last, as a number that grows.
        self._served: dict[str, int] = {}
        self._turns = itertools.count(1)

    def warm(self, *, owner: str) -> None:
        """Start a child, if there is none for this owner, without waiting: the first check finds it ready."""
        self._pool.warm(owner)

    def check_image(self, path: Path, *, max_pixels: int, deadline: float, turn: str, owner: str) -> str:
        """The file name ending for an image's real format. See `images.check_image`."""
        with path.open("rb") as file:
            return str(
                self._ask("image", file.fileno(), deadline=deadline, turn=turn, owner=owner, max_pixels=max_pixels)
            )

    def combine_mask(self, image: Path, mask: Path, target: Path, *, deadline: float, turn: str, owner: str) -> None:
        """Write an image with a mask in its alpha as a PNG. See `masks.combine`.

        Raises:
            MaskRefused: the fault is the mask's.
            OSError: the target cannot be written.
        """
        with image.open("rb") as image_file, mask.open("rb") as mask_file, target.open("wb") as made:
            files = [file.fileno() for file in (image_file, mask_file, made)]
            self._ask("mask", *files, deadline=deadline, turn=turn, owner=owner)

    def check_model_header(self, descriptor: int, *, deadline: float, turn: str) -> None:
        """Refuse an open file that is no whole safetensors file. See `model_headers.check_model_header`.

        A model is checked once for all owners, so its child is nobody's: it has had no other file, and gets none.
        """
        self._ask("model_header", descriptor, deadline=deadline, turn=turn, owner=None)

    def make_thumbnail(self, descriptor: int, *, is_video: bool, deadline: float, turn: str, owner: str) -> bytes:
        """A small WebP of a picture in an open file, or of the first frame of a video. See `thumbnails.thumbnail`."""
        answer = self._ask("thumbnail", descriptor, deadline=deadline, turn=turn, owner=owner, is_video=is_video)
        try:
            return base64.b64decode(answer, validate=True)
        except (TypeError, ValueError) as error:  # a child that a file has taken over
            raise Refused("makes its decoder answer nonsense") from error

    def read_embedded(
        self, descriptor: int, *, size: int, known: Sequence[tuple[int, int]], deadline: float, turn: str, owner: str
    ) -> Mapping[str, Any]:
        """The prompt and the workflow in an open file of that size, of which these ranges are there.

        See `embedded.read_embedded`. If another range is wanted: `{"missing": [offset, size]}`.
        """
        answer: Mapping[str, Any] = self._ask(
            "embedded", descriptor, deadline=deadline, turn=turn, owner=owner, size=size, known=known
        )
        return answer

    def close(self) -> None:
        """End all children that have nothing to do; others end with their task."""
        self._pool.close()

    def _ask(self, check: str, *files: int, deadline: float, turn: str, owner: str | None, **arguments: object) -> Any:  # noqa: ANN401
        task = {"check": check, **arguments}
        with self._turn_of(turn, deadline=deadline):
            try:
                answer = self._answer(task, files, deadline=deadline, owner=owner, is_new=False)
            except ChildGone:  # while it was idle, or by somebody's hand: that says nothing about the file
                try:
                    answer = self._answer(task, files, deadline=deadline, owner=owner, is_new=True)
                except ChildGone as gone:
                    raise Refused(f"could not be checked: {gone}", transient=True) from gone
        return _result(answer)

    def _answer(
        self, task: Mapping[str, Any], files: Sequence[int], *, deadline: float, owner: str | None, is_new: bool
    ) -> object:
        with self._pool.lent(owner, is_new=is_new) as child:
            answer = child.ask(task, files, deadline=deadline)
        if isinstance(answer, dict) and isinstance(lacking := answer.get("lacking"), dict):
            for what, why in lacking.items():
                if what in _LACKING and isinstance(why, int):
                    _say_lacking(what, why)
        return answer

    @contextlib.contextmanager
    def _turn_of(self, name: str, *, deadline: float) -> Iterator[None]:
        mine = _Turn(name)
        with self._changed:
            self._waiting.append(mine)
            try:
                while self._next() is not mine:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        raise Refused("was not checked before its time was over: others were", timed_out=True)
                    self._changed.wait(left_s)
                self._busy.add(name)
                self._served[name] = next(self._turns)
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._busy.remove(name)
                if not any(turn.name == name for turn in self._waiting):
                    del self._served[name]
                self._changed.notify_all()

    def _next(self) -> _Turn | None:
        """Whose turn it is: of those whom nobody serves now, who was served longest ago; then who waits longest."""
        if len(self._busy) >= MOST:
            return None
        waiting = (turn for turn in self._waiting if turn.name not in self._busy)
        return min(waiting, key=lambda turn: self._served.get(turn.name, 0), default=None)


class _Turn:
    """One who waits, for whomever it is."""

    def __init__(self, name: str) -> None:
        self.name = name


@functools.cache
def _say_lacking(what: str, why: int) -> None:
    """Say, once in a process, that its children are confined by less than they are elsewhere."""
    logger.warning(_LACKING[what], os.strerror(why))


def _result(answer: object) -> Any:  # noqa: ANN401
    match answer:
        case {"result": result}:
            return result
        case {"refused": str(reason), "of_mask": bool(of_mask)}:
            raise (MaskRefused if of_mask else Refused)(reason)
        case {"errno": int(code)}:
            raise OSError(code, os.strerror(code))
    raise SandboxFailed(f"a check failed: {answer}")
