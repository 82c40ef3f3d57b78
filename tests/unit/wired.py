"""`handlers/wiring*.py` with settings of a test, and nothing left of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from comfy_serverless.handlers import wiring, wiring_api, wiring_ingest, wiring_worker
from comfy_serverless.settings import Settings


@contextmanager
def wired(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[None]:
    """Everything is made anew from these settings."""
    modules = (wiring, wiring_api, wiring_ingest, wiring_worker)
    cached = [made for module in modules for made in vars(module).values() if hasattr(made, "cache_clear")]

    def forget() -> None:
        for made in cached:
            made.cache_clear()

    forget()
    with monkeypatch.context() as patch:
        patch.setattr(wiring, "settings", lambda: settings)
        try:
            yield
        finally:
            forget()
