"""API keys: what is stored of them, and when they work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.errors import Forbidden, InvalidRequest, NotFound
from comfy_serverless.table.api_keys import ApiKeyStore, BudgetAction
from tests.unit.jobs_table import aws, create_table
from tests.unit.table_clock import TableClock


@pytest.fixture
def table() -> Iterator[Table]:
    with aws() as session:
        yield create_table(session)[0]


@pytest.fixture
def keys(table: Table) -> ApiKeyStore:
    return ApiKeyStore(table)


def test_a_new_key_is_found_by_its_text_only(keys: ApiKeyStore) -> None:
    text, key = keys.create("ci", owner="team", max_in_flight=3, requests_per_minute=60)
    assert text.startswith("csk_")
    assert keys.find(text) == key
    assert (key.owner, key.max_in_flight, key.requests_per_minute) == ("team", 3, 60)
    for other in ("", "csk_", text[:-1], text + "x", text.upper(), key.id, "x" * 1_000_000, "\udc80"):
        assert keys.find(other) is None


def test_the_text_of_a_key_is_stored_nowhere(keys: ApiKeyStore, table: Table) -> None:
    text, _ = keys.create("ci", owner="team")
    items = list(table.query_all("#pk = :pk", {"pk": "keys"}))
    assert len(items) == 1
    assert text.removeprefix("csk_") not in repr(items) + repr(keys.list())


def test_a_revoked_key_works_no_more_and_frees_its_name(keys: ApiKeyStore) -> None:
    text, key = keys.create("ci", owner="team")
    assert keys.revoke("ci").id == key.id
    assert keys.find(text) is None
    assert [known.is_revoked for known in keys.list()] == [True]
    again, other = keys.create("ci", owner="team")
    keys.revoke(other.id)
    assert keys.find(again) is None


def test_ending_a_key_again_is_no_failure_and_changes_nothing(keys: ApiKeyStore, table: Table) -> None:
    """Whoever has lost the answer asks again."""
    _, key = keys.create("ci", owner="team")
    ended = keys.revoke(key.id)
    before = list(table.query_all("#pk = :pk", {"pk": "keys"}))
    assert keys.revoke(key.id) == keys.revoke("ci") == ended
    assert list(table.query_all("#pk = :pk", {"pk": "keys"})) == before
    text, later = keys.create("ci", owner="team")
    assert keys.revoke(key.id) == ended, "its id means it alone, whatever has its name now"
    assert keys.find(text) is not None
    assert keys.revoke("ci").id == later.id, "a name means the key that works"
    with pytest.raises(NotFound, match=r"no key has .*'nobody'.*keys ls"):
        keys.revoke("nobody")
    with pytest.raises(NotFound, match="no working key"):
        keys.change(key.id, max_in_flight=1)


def test_a_key_that_is_over_can_be_ended(keys: ApiKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = keys.create("ci", owner="team", expires_in_s=60)
    TableClock(monkeypatch).later(61)
    assert keys.revoke("ci").is_revoked
    assert keys.revoke(key.id).is_revoked


def test_a_name_that_looks_like_an_id_hides_no_key(keys: ApiKeyStore) -> None:
    _, first = keys.create("first", owner="team")
    text, _ = keys.create(first.id, owner="team")
    assert keys.revoke(first.id).name == "first"
    assert keys.find(text) is not None


def test_an_expired_key_works_no_more(keys: ApiKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = keys.create("ci", owner="team", expires_in_s=60)
    assert keys.find(text) is not None
    TableClock(monkeypatch).later(61)
    assert keys.find(text) is None


@pytest.mark.parametrize("bad", ["", "a b", "a#b", "a/b", "é", "x" * 65, "a\n"])
def test_names_and_owners_that_could_mean_something_else_are_refused(keys: ApiKeyStore, bad: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        keys.create(bad, owner="team")
    with pytest.raises(InvalidRequest, match="owner"):
        keys.create("ci", owner=bad)


def test_a_name_is_taken_once(keys: ApiKeyStore) -> None:
    keys.create("ci", owner="team")
    with pytest.raises(InvalidRequest, match="revoke it first"):
        keys.create("ci", owner="other")


def test_a_fixed_key_may_be_registered_again(keys: ApiKeyStore) -> None:
    for _ in range(2):
        keys.register("csk_local", name="local", owner="local")
    assert len(keys.list()) == 1
    assert keys.find("csk_local") is not None


def test_requests_are_counted_by_key_and_minute(
    keys: ApiKeyStore, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = TableClock(monkeypatch, 600_030)
    assert [keys.count_request("one", limit=2) for _ in range(4)] == [True, True, False, False]
    assert keys.count_request("two", limit=2)
    item = table.get("rate#one#10000", "rate")
    assert item is not None
    assert (item["requests"], item["expires"]) == (2, 600_120)
    clock.later(31)
    assert keys.count_request("one", limit=2)


def test_an_admins_key_stands_apart_and_is_found_listed_and_revoked_like_any(keys: ApiKeyStore, table: Table) -> None:
    text, boss = keys.create("boss", owner="ops", is_admin=True)
    other, _ = keys.create("ci", owner="ops")
    assert [item["pk"] for item in table.query_all("#pk = :pk", {"pk": "admins"})] == ["admins"]
    assert keys.find(text) == boss
    found = keys.find(other)
    assert found is not None
    assert (boss.is_admin, found.is_admin) == (True, False)
    assert {key.name: key.is_admin for key in keys.list()} == {"boss": True, "ci": False}
    with pytest.raises(Forbidden, match="AWS account"):
        keys.revoke("boss", admins_too=False)
    keys.revoke("boss")
    assert keys.find(text) is None


def test_a_key_is_found_by_its_id_without_reading_others(
    keys: ApiKeyStore, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [keys.register(f"csk_{number}", name=f"k{number}", owner="team") for number in range(40)]
    boss = keys.create("boss", owner="team", is_admin=True).key
    read: list[object] = []
    query_all = Table.query_all

    def counted(*arguments: Any, **named: Any) -> Iterator[Any]:
        for item in query_all(*arguments, **named):
            read.append(item)
            yield item

    monkeypatch.setattr(Table, "query_all", counted)
    for key in (made[7], boss):
        assert keys.with_id(key.id) == key
    assert len(read) == 2
    keys.revoke("k7")
    for nobody in (made[7].id, made[8].id[:-1], "x", "~", made[8].name):
        assert keys.with_id(nobody) is None


def test_a_budget_is_given_changed_and_taken_away(keys: ApiKeyStore) -> None:
    text, _ = keys.create("ci", owner="team", budget_nanousd=5)
    assert keys.change("ci", budget_nanousd=7, budget_action=BudgetAction.REFUSE).budget_nanousd == 7
    found = keys.find(text)
    assert found is not None
    assert (found.budget_nanousd, found.budget_action) == (7, BudgetAction.REFUSE)
    assert keys.change("ci", budget_nanousd=None).budget_nanousd is None
    with pytest.raises(NotFound):
        keys.change("nobody", budget_nanousd=1)
