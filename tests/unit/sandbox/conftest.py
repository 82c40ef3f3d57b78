"""One sandbox for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from comfy_serverless.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with closing(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _decoders_are_kept() -> None:
    """Not here: the processes themselves are tried."""
