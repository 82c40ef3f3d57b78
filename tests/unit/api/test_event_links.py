"""Signed links to live events: whom they let in, for how long, and what a made-up one gets."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from comfy_serverless.api.event_links import EventLinks, events_path, owner_of
from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.errors import Unauthorized
from comfy_serverless.table.event_keys import EventKeys, key_pk
from tests.unit.jobs_table import aws, create_table
from tests.unit.table_clock import TableClock

URL = "https://events.example/live"
START = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TableClock:
    return TableClock(monkeypatch, int(START.timestamp()))


@pytest.fixture
def table() -> Iterator[Table]:
    with aws() as session:
        yield create_table(session)[0]


def links(table: Table) -> EventLinks:
    return EventLinks(EventKeys(table), URL, 900)


def token_of(url: str) -> str:
    return url.partition("token=")[2]


def refused(token: str, path: str, table: Table) -> str:
    with pytest.raises(Unauthorized) as refusal:
        owner_of(token, path, EventKeys(table))
    return refusal.value.message


def test_a_link_names_its_owner_to_any_process_for_a_quarter_of_an_hour(table: Table, clock: TableClock) -> None:
    url = links(table).of_job("fox", owner="team")
    assert url.startswith(f"{URL}/api/v2/jobs/fox/events?token=")
    assert owner_of(token_of(url), events_path("fox"), EventKeys(table)) == "team"
    clock.later(899)
    assert owner_of(token_of(url), events_path("fox"), EventKeys(table)) == "team"
    clock.later(2)
    refused(token_of(url), events_path("fox"), table)


@pytest.mark.parametrize("owner", ["team", "a.b", "é", "x" * 64, "", 'a", 1]'])
def test_any_name_of_an_owner_is_told_as_it_is(table: Table, owner: str) -> None:
    token = token_of(links(table).of_list(owner))
    assert owner_of(token, "/api/v2/events", EventKeys(table)) == owner
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def changed(token: str) -> Iterator[str]:
    """Tokens that somebody has made of a good one."""
    day, expires, owner, mac = token.split(".")
    others = base64.urlsafe_b64encode(b"others").decode().rstrip("=")
    yield f"{day}.{int(expires) + 1}.{owner}.{mac}"
    yield f"{day}.{expires}.{others}.{mac}"
    yield f"{day}.{expires}.{owner}.{mac[:-2]}AA"
    yield f"{day}.{expires}.{owner}."
    yield f"{day}.{expires}.{owner}.{mac}.x"
    yield f"2026-11-29.{expires}.{owner}.{mac}"
    yield f"2099-01-01.{expires}.{owner}.{mac}"
    yield f"keys.{expires}.{owner}.{mac}"
    yield f"{day}.x.{owner}.{mac}"
    yield f"{day}.{'9' * 5000}.{owner}.{mac}"
    yield f"{day}.{expires}.%%%.{mac}"
    yield f"{day}.{expires}._w.{mac}"
    yield ""
    yield "x" * 10_000
    yield "..."


def test_a_made_up_link_is_refused_in_the_same_words_whatever_is_wrong(table: Table, clock: TableClock) -> None:
    token = token_of(links(table).of_job("fox", owner="team"))
    words = {refused(made, events_path("fox"), table) for made in changed(token)}
    words |= {refused(token, events_path("cat"), table), refused(token, "/api/v2/events", table)}
    clock.later(3600)
    words.add(refused(token, events_path("fox"), table))
    assert len(words) == 1
    assert "team" not in words.pop()


def test_a_made_up_day_costs_no_read(table: Table, clock: TableClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "get", lambda *_: pytest.fail("the table was read"))
    for day in ("2026-11-28", "2026-12-01", "1", "live", "2026-11-30#"):
        refused(f"{day}.1.dGVhbQ.AA", "/api/v2/events", table)


def test_each_day_has_its_own_key_and_the_last_days_links_work_on(table: Table, clock: TableClock) -> None:
    clock.now_s = int(datetime(2026, 11, 30, 23, 55, tzinfo=UTC).timestamp())
    own = links(table)
    evening = token_of(own.of_list("team"))
    clock.later(600)
    morning = token_of(own.of_list("team"))
    assert (evening[:10], morning[:10]) == ("2026-11-30", "2026-12-01")
    for token in (evening, morning):
        assert owner_of(token, "/api/v2/events", EventKeys(table)) == "team"
    secrets = {str((table.get(key_pk(day), "key") or {})["secret"]) for day in ("2026-11-30", "2026-12-01")}
    assert len(secrets) == 2
    assert all(len(bytes.fromhex(secret)) == 32 for secret in secrets)


def test_keys_are_forgotten_by_the_table_and_by_a_process(table: Table, clock: TableClock) -> None:
    keys = EventKeys(table)
    for _ in range(5):
        keys.today()
        clock.later(86_400)
    assert sorted(keys._known) == ["2026-12-03", "2026-12-04"]
    assert table.get(key_pk("2026-11-30"), "key") is None
    item: Any = table.get(key_pk("2026-12-03"), "key")
    assert item["expires"] == datetime(2026, 12, 6, tzinfo=UTC).timestamp()


def test_many_processes_that_begin_a_day_have_one_key(table: Table) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: EventKeys(table).today(), range(16)))
    assert len(set(made)) == 1


def test_a_process_reads_a_key_once(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = EventKeys(table)
    keys.today()
    monkeypatch.setattr(table, "get", lambda *_: pytest.fail("the table was read"))
    keys.today()
