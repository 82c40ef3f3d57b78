"""What a process holds of the workflows that it has read."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import islice

import pytest

from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.workflows.items import Head
from tests.unit.workflows.stored_workflows import World, stored


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with stored() as made:
        made.push()
        yield made


def test_a_version_that_is_not_kept_is_not_held_by_its_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_serverless.workflows.kept.KEPT_BYTES", 0)
    finder = world.finder()
    version = finder.find("poster", owner="alice")
    finder.check_of(version)
    finder.expand(JobRequest.parse({"workflow": "poster"}), owner="alice", key="1")
    gone = weakref.ref(version)
    del version
    gc.collect()
    assert gone() is None


def test_the_version_behind_a_head_is_found_without_the_table(world: World) -> None:
    finder, head = world.finder(), world.store.head("alice", "poster")
    assert head is not None
    with world.counted() as calls:
        found = finder.behind(head)
    assert calls == {"GetObject": 1}
    assert found is finder.find("poster", owner="alice")


def test_a_thousand_names_are_a_few_queries_and_a_page_of_them_is_one(world: World) -> None:
    names = [f"many-{number:04}" for number in range(1_000)]
    heads = [Head(owner="carol", name=name, latest=1).to_item() for name in names]
    world.table.put_all(heads)
    with world.counted() as calls:
        page = list(islice(world.store.heads("carol"), 100))
    assert ([head.name for head in page], calls) == (names[:100], {"Query": 1})
    with world.counted() as calls:
        assert [head.name for head in world.store.heads("carol")] == names
    assert calls == {"Query": 4}
