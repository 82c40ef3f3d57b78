"""Traces that are kept in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.traced_world import Kept, kept


@pytest.fixture
def spans() -> Iterator[Kept]:
    with kept() as spans:
        yield spans
