"""What has expired is gone for whoever reads or writes the table, however long DynamoDB takes to delete it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import NOT_THERE, ConditionFailed, Table, Update, not_there
from comfy_serverless.table.columns import BATCH, KEEPER, KEEPER_DUE, neglected
from comfy_serverless.table.gate import PlaceStore
from comfy_serverless.table.turns import Turns
from tests.unit.jobs_table import aws, create_table
from tests.unit.table_clock import TableClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TableClock:
    return TableClock(monkeypatch, 1_000_000)


@pytest.fixture
def table(clock: TableClock) -> Iterator[Table]:
    with aws() as session:
        yield create_table(session)[0]


def item(name: str, *, ends_in: int | None = None, **more: Any) -> dict[str, Any]:
    return {"pk": "of", "sk": name, "expires": None if ends_in is None else 1_000_000 + ends_in, **more}


@pytest.mark.parametrize(
    ("after_s", "left"), [(0, ["for ever", "soon"]), (59, ["for ever", "soon"]), (60, ["for ever"])]
)
def test_no_read_returns_it(table: Table, clock: TableClock, after_s: int, left: list[str]) -> None:
    table.put_all([item("soon", ends_in=60, n=1), item("for ever", n=2)])
    clock.later(after_s)
    keys = [("of", "soon"), ("of", "for ever")]
    assert sorted(one["sk"] for one in table.get_all(keys)) == left
    assert sorted(one["n"] for one in table.get_all(keys, attributes=["n"])) == [1, 2][-len(left) :]
    assert [sk for sk in ("for ever", "soon") if table.get("of", sk) is not None] == left
    assert [one["sk"] for one in table.query("#pk = :pk", {"pk": "of"}).items] == left
    assert [one["sk"] for one in table.query_all("#pk = :pk", {"pk": "of"})] == left


def test_a_page_of_it_alone_says_where_the_next_one_begins(table: Table, clock: TableClock) -> None:
    table.put_all([item("a", ends_in=60), item("b", ends_in=60), item("c")])
    clock.later(60)
    page = table.query("#pk = :pk", {"pk": "of"}, limit=2)
    assert (page.items, page.last_key) == ([], {"pk": "of", "sk": "b"})


def test_the_first_write_is_one_in_its_place(table: Table, clock: TableClock) -> None:
    table.put(item("a", ends_in=60), condition=NOT_THERE, values=not_there())
    clock.later(59)
    with pytest.raises(ConditionFailed):
        table.put(item("a", ends_in=90), condition=NOT_THERE, values=not_there())
    clock.later(1)
    table.put(item("a", ends_in=90), condition=NOT_THERE, values=not_there())
    assert table.get("of", "a") == item("a", ends_in=90)


def test_an_endpoint_that_was_idle_for_long_has_places(table: Table, clock: TableClock) -> None:
    places = PlaceStore(table, "gpu")
    assert places.replace(places.read(), {"a": clock.now_s})
    clock.later(30 * 86_400)
    seen = places.read()
    assert seen.sent == {}
    assert places.replace(seen, {"b": clock.now_s})
    assert dict(places.read().sent) == {"b": clock.now_s}
    assert not places.replace(seen, {"c": clock.now_s}), "another has changed it"


def test_a_queue_that_lost_jobs_long_ago_sends_some_again(table: Table, clock: TableClock) -> None:
    job: Any = type("Job", (), {"keeper": "queued", "id": "a"})()
    assert Turns(table, lambda _id: None).take(job)
    clock.later(30 * 86_400)
    assert Turns(table, lambda _id: None).take(job)


def test_what_expired_is_no_longer_the_longest_neglected(table: Table, clock: TableClock) -> None:
    """The index does not know when its items expire, and whoever asks it for a few would be told of these alone."""
    kept: dict[str, Any] = {KEEPER: BATCH, KEEPER_DUE: 1_000_030}
    expired: dict[str, Any] = {KEEPER: BATCH, KEEPER_DUE: 1_000_001}
    table.put_all([*(item(f"expired {n}", ends_in=60, **expired) for n in range(3)), item("kept", **kept)])
    clock.later(60)
    assert [one["sk"] for one in neglected(table, BATCH, limit=3)] == []
    assert [one["sk"] for one in neglected(table, BATCH, limit=3)] == ["kept"]


def test_what_was_prolonged_meanwhile_keeps_its_keeper(
    table: Table, clock: TableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.put(item("a", ends_in=60, **{KEEPER: BATCH, KEEPER_DUE: 1_000_001}))
    clock.later(60)
    get = table.get

    def prolonged(pk: str, sk: str) -> Any:
        seen = get(pk, sk)
        table.update(Update(pk=pk, sk=sk, assign={"expires": 2_000_000}))
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(table, "get", prolonged)
        assert list(neglected(table, BATCH, limit=3)) == []
    assert [one["sk"] for one in neglected(table, BATCH, limit=3)] == ["a"]
