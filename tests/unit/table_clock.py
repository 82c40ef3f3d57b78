"""The present moment, in the hands of a test: it stands still until it is told to move."""

from __future__ import annotations

import time

import pytest

from comfy_serverless import moments

_STEP_S = 0.001


class TableClock:
    """What the table's rooms and the API take for the present: a second, of which each look sees one ms more.

    So no two items are of one moment, and none is of a later second, however long a busy machine takes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now_s: int | None = None) -> None:
        self.now_s = int(time.time()) if now_s is None else now_s
        self._looks = 0
        monkeypatch.setattr(moments, "_clock", self._look)

    def later(self, seconds: float) -> None:
        self.now_s += int(seconds)

    def _look(self) -> float:
        self._looks += 1
        return self.now_s + min(self._looks * _STEP_S, 1 - _STEP_S)
