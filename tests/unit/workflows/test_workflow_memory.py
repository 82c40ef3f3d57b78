"""What a process keeps of the workflows that it has run has an end, however large they are and however many."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from comfy_serverless.workflows import kept
from comfy_serverless.workflows.finding import Finder
from tests.unit.workflows.stored_workflows import World, stored


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with stored() as made:
        for number in range(10):
            made.push(f"{number}" * 10_000, name=f"poster-{number}")
        yield made


def test_a_check_keeps_no_version_that_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT_BYTES", 35_000)
    finder = world.finder()
    seen: list[weakref.ref[Any]] = []
    for number in range(10):
        version = finder.find(f"poster-{number}", owner="alice")
        assert finder.check_of(version) is finder.check_of(version)
        seen.append(weakref.ref(version))
        del version
    gc.collect()
    assert sum(one() is not None for one in seen) == 3
    assert len(finder._checks) <= 4


class _Declared(dict[str, Any]):
    """What workers declare, which one can wait for the end of."""


def test_a_check_keeps_no_declarations_but_the_newest(world: World) -> None:
    declared: list[Mapping[str, Any]] = [_Declared()]
    finder = Finder(world.store, None, lambda: declared[0])
    for number in range(5):
        finder.check_of(finder.find(f"poster-{number}", owner="alice"))
    old = weakref.ref(declared[0])
    declared[0] = _Declared()
    finder.check_of(finder.find("poster-9", owner="alice"))
    gc.collect()
    assert old() is None
