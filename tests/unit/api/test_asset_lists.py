"""The list of uploads: an owner's own, each once, newest first, for one query and one read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.table import assets as assets_module
from comfy_serverless.table.asset_item import Asset, asset_pk
from comfy_serverless.table.asset_names import digest_of
from comfy_serverless.table.assets import Naming
from comfy_serverless.table.jobs import JobStore
from tests.unit.api.test_job_lists import end, make
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.table.test_job_store import output
from tests.unit.table_clock import TableClock


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def upload(api: ApiWorld, name: str, *, owner: str = "team", content: bytes = b"bytes", **naming: Any) -> Asset:
    digest = digest_of(io.BytesIO(content))
    return api.services.assets.store(owner, io.BytesIO(content), digest, Naming(file_path=name, **naming))


def names(api: ApiWorld, query: str = "", **who: Any) -> list[str]:
    found, cursor = [], ""
    while True:
        page = api.request("GET", f"/api/v2/assets?{query}{cursor}", **who)
        assert page.status == 200, page.text
        found += [asset["file_path"] for asset in page.json["assets"]]
        if "next_cursor" not in page.json:
            return found
        cursor = f"&cursor={page.json['next_cursor']}"


def test_uploads_are_listed_in_pages_newest_first(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        moment = f"2026-01-01T00:00:0{number // 2}.000Z"
        monkeypatch.setattr(assets_module, "now_text", lambda moment=moment: moment)
        upload(api, f"{number}.png", content=b"same" if number % 2 else f"{number}".encode())
    upload(api, "theirs.png", owner="other")
    everything = names(api)
    assert sorted(everything) == [f"{number}.png" for number in range(7)]
    assert [int(name[0]) // 2 for name in everything] == [3, 2, 2, 1, 1, 0, 0]
    for limit in (1, 2, 3, 7):
        assert names(api, f"limit={limit}") == everything
    assert names(api, owner="other") == ["theirs.png"]
    assert names(api, owner="nobody") == []


def test_a_page_is_one_query_and_one_read_and_says_what_each_asset_does(api: ApiWorld) -> None:
    made = [upload(api, f"{number}.png") for number in range(20)]
    api.calls.clear()
    page = api.request("GET", "/api/v2/assets?limit=100").json
    assert api.calls == {"Query": 1, "BatchGetItem": 1}
    listed = {asset["id"]: asset for asset in page["assets"]}
    alone = api.request("GET", f"/api/v2/assets/{made[0].id}").json
    links = {"url", "url_expires_at"}
    assert {name: value for name, value in listed[made[0].id].items() if name not in links} == {
        name: value for name, value in alone.items() if name not in links
    }
    assert listed[made[0].id]["url"].startswith("https://")


def test_what_was_deleted_or_has_expired_is_gone_from_the_list(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, deleted = upload(api, "kept.png"), upload(api, "deleted.png")
    expired = upload(api, "expired.png", expires_in_s=60)
    assert api.request("DELETE", f"/api/v2/assets/{deleted.id}").status == 204
    TableClock(monkeypatch, (expired.expires or 0) + 1)
    assert names(api) == ["kept.png"]
    assert api.services.assets.remove_expired(limit=10) == 1
    rows = api.services.table.query("#pk = :pk", {"pk": "assets#team"}).items
    assert [row["asset_id"] for row in rows] == [kept.id]


def test_outputs_of_jobs_and_uploads_of_an_older_release_are_not_in_it(api: ApiWorld) -> None:
    old = upload(api, "old.png")
    api.services.table.delete("assets#team", f"{old.created_at}#{old.id}")
    end(api, make(api, "job"), outputs=(output("made.png"),))
    assert isinstance(api.services.jobs, JobStore)
    assert names(api) == []
    assert api.services.table.get(asset_pk(old.id), "asset") is not None
    assert api.request("DELETE", f"/api/v2/assets/{old.id}").status == 204


def test_a_row_that_leads_to_another_owners_asset_shows_nothing(api: ApiWorld) -> None:
    theirs = upload(api, "theirs.png", owner="other")
    api.services.table.put({"pk": "assets#team", "sk": f"{theirs.created_at}#{theirs.id}", "asset_id": theirs.id})
    assert names(api) == []


@pytest.mark.parametrize(
    ("query", "code"), [("limit=0", "invalid_request"), ("cursor=AAA", "invalid_cursor"), ("tag=x", "invalid_request")]
)
def test_what_cannot_be_is_refused(api: ApiWorld, query: str, code: str) -> None:
    answer = api.request("GET", f"/api/v2/assets?{query}")
    assert (answer.status, answer.code) == (422, code), answer.text
