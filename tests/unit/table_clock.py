"""The table's clock, in the hands of a test: it stands still until it is told to move."""

from __future__ import annotations

import sys
import time

import pytest

from comfy_serverless.aws import dynamodb

_OF_THE_TABLE = dynamodb.now_s


class TableClock:
    """What every loaded module of ours takes for the present second.

    A clock that only some of them see is one that a busy machine tells apart: what the others write is by then a
    second or two later. So it is set in all of them; a module that is loaded afterwards reads it from `dynamodb`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now_s: int | None = None) -> None:
        self.now_s = int(time.time()) if now_s is None else now_s
        for name, module in list(sys.modules.items()):
            if name.startswith("comfy_serverless.") and getattr(module, "now_s", None) is _OF_THE_TABLE:
                monkeypatch.setattr(module, "now_s", self)

    def __call__(self) -> int:
        return self.now_s

    def later(self, seconds: float) -> None:
        self.now_s += int(seconds)
