"""The models of one job, from when they are there until they are let go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack

logger = logging.getLogger(__name__)


class HeldModels:
    """The models of one job, kept from being evicted until `release`. `worker.protocols.ShownModels`."""

    def __init__(
        self,
        show: Callable[[float], Iterable[str]],
        hide: Callable[[Iterable[str]], None],
        warnings: tuple[str, ...] = (),
    ) -> None:
        #: What the caller is told of them.
        self.warnings = warnings
        self._show = show
        self._hide = hide
        self._pins = ExitStack()
        self._names: tuple[str, ...] = ()

    def show(self, deadline: float) -> None:
        """Give the models their names in ComfyUI's folders. Called once.

        Raises:
            InvalidRequest: a name is one of the operator's, with another content.
            AssetUnavailable: the links cannot be written, or a model of the operator's has just gone.
            DeadlineExceeded: another job here has a name with another content, and the job's time is over.
            ComfyError: ComfyUI could not be made to forget what a name meant before, or does not answer.
        """
        self._names = tuple(self._show(deadline))

    def release(self) -> None:
        """Remove the names that no other job has, and let the contents be evicted. Idempotent, never raises."""
        names, self._names = self._names, ()
        if names:
            self._hide(names)
        try:
            self._pins.close()
        except OSError as error:
            logger.warning("models could not be let go: %s", error)

    def pin(self, descriptor: int) -> None:
        """Keep a content from being evicted until `release`."""
        self._pins.callback(let_go, descriptor)


def let_go(pin: int) -> None:
    """Let a content be evicted; it counts as used just now. Raises OSError."""
    try:
        os.utime(pin)
    finally:
        os.close(pin)
