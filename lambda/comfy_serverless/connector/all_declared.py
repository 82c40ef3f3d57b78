"""What an engine declares of all its node classes: read when somebody wants it, and kept, because it has megabytes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from comfy_serverless.connector.client import ComfyClient
from comfy_serverless.connector.process import ComfyProcess
from comfy_serverless.errors import EngineUnavailable

logger = logging.getLogger(__name__)

#: How long it counts of an engine that is not our process, in seconds: nobody tells us when that is started anew.
_ELSEWHERE_S = 30.0


class _Engine(Protocol):
    process: ComfyProcess | None

    @property
    def starts(self) -> int: ...

    def asked(self) -> AbstractContextManager[ComfyClient]: ...


class AllDeclared:
    """`/object_info` of one engine; of our own process it is read once a start. Thread-safe."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        #: The start that it was read from, when, and what it says.
        self._read: tuple[int, float, Mapping[str, Any]] = (-1, 0.0, {})

    def object_info(self) -> Mapping[str, Any]:
        """The declarations by their classes. Raises EngineUnavailable if ComfyUI cannot be asked."""
        generation, read_at, declared = self._read
        is_old = self._engine.process is None and time.monotonic() - read_at > _ELSEWHERE_S
        if generation == self._engine.starts and not is_old:
            return declared
        return self.read()

    def read(self) -> Mapping[str, Any]:
        """The same, as ComfyUI says it now: its lists of files change."""
        generation = self._engine.starts
        with self._engine.asked() as client:
            declared = client.object_info()
        if not isinstance(declared, Mapping) or not declared:
            raise EngineUnavailable("ComfyUI was asked for its node classes, and has answered with none.")
        self._read = generation, time.monotonic(), declared
        return declared

    def classes(self) -> tuple[str, ...]:
        """The names of all classes; empty if ComfyUI cannot be asked."""
        try:
            return tuple(self.object_info())
        except EngineUnavailable as error:
            logger.warning("ComfyUI could not be asked which nodes it has: %s", error)
            return ()
