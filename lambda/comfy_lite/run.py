"""A run: one executing prompt, its engine, and its interruption."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from comfy_lite.faults import Faults
from comfy_lite.node import Directories, NodeType
from comfy_lite.progress import ProgressBoard
from comfy_lite.releases import Release


class Interrupted(Exception):
    """A client interrupted the running prompt. Nodes do not catch this."""


class Interrupts:
    """The one flag that /interrupt sets. It is checked between steps and cleared when a prompt starts."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        self._asked.set()

    def clear(self) -> None:
        self._asked.clear()

    def check(self) -> None:
        """Raise `Interrupted` and clear the flag, if it is set."""
        if self._asked.is_set():
            self._asked.clear()
            raise Interrupted


class Messages(Protocol):
    """Where messages go: a `SocketHub`."""

    def running(self, *, owner: str | None, node_id: str | None) -> None: ...
    def send(self, event: str, data: Mapping[str, Any], client_id: str | None) -> None: ...
    def send_image(
        self, image: bytes, *, image_format: str, client_id: str | None, metadata: Mapping[str, Any] | None = None
    ) -> None: ...
    def wants_metadata(self, client_id: str | None) -> bool: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """What the executor shares with the nodes' contexts."""

    nodes: Mapping[str, NodeType]
    directories: Directories
    messages: Messages
    interrupts: Interrupts
    faults: Faults
    step_s: float
    previews: bool
    release: Release


@dataclass(slots=True)
class Run:
    """One prompt while it runs."""

    prompt_id: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    client_id: str | None
    board: ProgressBoard
    executed: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    story: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
