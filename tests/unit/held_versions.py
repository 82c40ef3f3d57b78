"""How many whole versions of workflows are in memory at once, where nothing keeps them."""

from __future__ import annotations

import gc
import importlib
import threading
import weakref
from typing import Any

import pytest

from comfy_serverless.api.workflow_lookup import version_of
from comfy_serverless.workflows import kept
from comfy_serverless.workflows.version import Version
from tests.patience import wait_until


class HeldVersions:
    """Counts those that one module reads.

    Args:
        made_by: the function that makes of each what is shown. Whoever calls it in the thread that reads the whole page
            holds all that are read meanwhile, so it is given the time to read them.
        of: how many are read.

    Attributes:
        at_once: how many there were, each time that one was read.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str, *, made_by: str, of: int) -> None:
        self.at_once: list[int] = []
        self._seen: list[weakref.ref[Version]] = []
        self._lock = threading.Lock()
        monkeypatch.setattr(kept, "KEPT_BYTES", 0)
        monkeypatch.setattr(f"{module}.version_of", self._counted)
        owner, _, name = made_by.rpartition(".")
        make = getattr(importlib.import_module(owner), name)

        def make_late(*given: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                wait_until(lambda: len(self.at_once) == of)
            return make(*given, **named)

        monkeypatch.setattr(made_by, make_late)

    def _counted(self, *given: Any, **named: Any) -> Version | None:
        version = version_of(*given, **named)
        assert version is not None
        with self._lock:
            self._seen.append(weakref.ref(version))
            gc.collect()
            self.at_once.append(sum(one() is not None for one in self._seen))
        return version
