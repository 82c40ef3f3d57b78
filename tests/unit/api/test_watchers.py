"""How many streams an owner may have: no owner takes the places of another, and none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tests.unit.api_world import ApiWorld, api_world
from tests.unit.event_world import URL, EventWorld, body
from tests.unit.fakes import WORKFLOW
from tests.unit.table_clock import TableClock


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, events_url=URL) as world:
        yield world


@pytest.fixture
def events(api: ApiWorld) -> EventWorld:
    return EventWorld(api, each=2)


def link(api: ApiWorld, owner: str) -> str:
    return str(api.request("GET", "/api/v2/me", owner=owner).json["events_url"])


def test_an_owner_has_so_many_streams_and_another_has_his_own(api: ApiWorld, events: EventWorld) -> None:
    text = api.services.keys.create("ci", owner="team").text
    job = api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW}).json
    first, second = events.open(link(api, "team")), events.open(job["urls"]["events"])
    assert (first.status, second.status) == (200, 200)
    others: tuple[tuple[str, dict[str, Any]], ...] = (
        (link(api, "team"), {}),
        (job["urls"]["events"], {}),
        ("/api/v2/events", {"authorization": f"Bearer {text}"}),
    )
    for url, headers in others:
        refused = events.open(url, **headers)
        assert (refused.status, refused.headers["retry-after"]) == (429, "10")
        assert '"too_many_streams"' in body(refused)
    assert events.open(link(api, "rivals")).status == 200
    first.close()
    first.close()  # once is enough, and twice gives back no other's
    third = events.open(link(api, "team"))
    assert third.status == 200
    assert events.open(link(api, "team")).status == 429


def test_a_stream_that_was_read_to_its_end_has_no_place_any_more(api: ApiWorld, events: EventWorld) -> None:
    for _ in range(5):
        assert "retry:" in body(events.open(link(api, "team"), until_s=5))


def test_what_is_over_or_refused_takes_no_place(api: ApiWorld, events: EventWorld) -> None:
    job = api.request("POST", "/api/v2/jobs", body={"workflow": WORKFLOW}).json
    assert api.request("POST", f"/api/v2/jobs/{job['id']}/cancel").status in (200, 202)
    kept = [events.open(job["urls"]["events"]) for _ in range(4)]
    kept += [events.open(f"{URL}/api/v2/jobs/none/events?token=x"), events.open("/api/v2/events")]
    assert [one.status for one in kept] == [200] * 4 + [401] * 2
    assert [events.open(link(api, "team")).status for _ in range(3)] == [200, 200, 429]


def test_a_watcher_that_is_lost_keeps_its_place_no_longer_than_its_stream_may_last(
    api: ApiWorld, events: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = TableClock(monkeypatch)
    late = [events.open(link(api, "team"), until_s=60) for _ in range(2)]
    clock.later(60)
    assert events.open(link(api, "team")).status == 429
    clock.later(15)
    assert [events.open(link(api, "team")).status for _ in range(2)] == [200, 200]
    for lost in late:  # what is another's by now is not given back
        lost.close()
    assert events.open(link(api, "team")).status == 429


def test_a_table_that_fails_gives_no_place_and_breaks_no_end(
    api: ApiWorld, events: EventWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, standing = link(api, "team"), events.open(link(api, "team"))

    def down(*_: Any, **__: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://aws")

    monkeypatch.setattr("comfy_serverless.aws.dynamodb.Table.try_update", down)
    standing.close()
    assert events.open(url).status == 500
