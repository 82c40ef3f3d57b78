"""Keys over the API are for admins; an admin's own key is made and ended elsewhere; what a key is told of itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from comfy_serverless.table.api_keys import BudgetAction
from tests.unit.api_world import ApiWorld, api_world

ADMIN = {"is_admin": "true", "key_name": "boss"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", ""), ("PATCH", "/a-key"), ("DELETE", "/a-key")])
@pytest.mark.parametrize("said", [{}, {"is_admin": ""}, {"is_admin": "True"}, {"is_admin": "1"}])
def test_others_are_refused_whatever_they_ask(api: ApiWorld, method: str, path: str, said: dict[str, str]) -> None:
    _, key = api.services.keys.create("a-key", owner="other")
    body = {"POST": {"name": "mine", "owner": "team"}, "PATCH": {"max_in_flight": 7}}.get(method)
    answer = api.request(method, f"/api/v2/keys{path}", body=body, key=said)
    assert (answer.status, answer.code) == (403, "forbidden")
    assert key.id not in answer.text
    assert api.services.keys.list() == [key]


def test_a_key_is_made_shown_once_and_ended(api: ApiWorld) -> None:
    body = {"name": "ci", "owner": "team", "max_in_flight": 3, "budget_usd": 12.5, "budget_action": "refuse"}
    made = api.request("POST", "/api/v2/keys", body=body, key=ADMIN)
    assert made.status == 201
    assert made.headers["cache-control"] == "no-store"
    found = api.services.keys.find(made.json["key"])
    assert found is not None
    assert (found.owner, found.max_in_flight, found.is_admin) == ("team", 3, False)
    assert (found.budget_nanousd, found.budget_action) == (12_500_000_000, BudgetAction.REFUSE)
    listed = api.request("GET", "/api/v2/keys", key=ADMIN)
    assert made.json["key"] not in listed.text
    told = {name: value for name, value in made.json.items() if name != "key"}
    assert listed.json["keys"] == [told]
    ended = api.request("DELETE", f"/api/v2/keys/{told['id']}", key=ADMIN)
    assert (ended.status, ended.json) == (200, {**told, "is_revoked": True})
    assert api.services.keys.find(made.json["key"]) is None
    again = api.request("DELETE", f"/api/v2/keys/{told['id']}", key=ADMIN)
    assert (again.status, again.json) == (200, ended.json), "whoever has lost the answer asks again"
    assert api.request("DELETE", "/api/v2/keys/nobody", key=ADMIN).status == 404


def test_limits_are_changed_one_by_one(api: ApiWorld) -> None:
    _, key = api.services.keys.create("ci", owner="team", max_in_flight=3, requests_per_minute=60)

    def change(called: str = key.id, **limits: object) -> object:
        answer = api.request("PATCH", f"/api/v2/keys/{called}", body=limits, key=ADMIN)
        assert answer.status == 200, answer.text
        names = ("max_in_flight", "requests_per_minute", "budget_usd", "budget_action")
        return tuple(answer.json[name] for name in names)

    assert change(budget_usd=20, budget_action="refuse") == (3, 60, 20.0, "refuse")
    assert change(budget_usd=0.000001) == (3, 60, 0.000001, "refuse")
    assert change("ci", max_in_flight=None) == (None, 60, 0.000001, "refuse")
    assert change(requests_per_minute=5, budget_usd=None) == (None, 5, None, None)
    (found,) = api.services.keys.list()
    assert (found.id, found.max_in_flight, found.requests_per_minute) == (key.id, None, 5)


@pytest.mark.parametrize(
    "wrong", [{}, {"budget_usd": 0}, {"max_in_flight": 0}, {"owner": "me"}, {"budget_action": None}]
)
def test_what_no_key_can_have_is_no_change(api: ApiWorld, wrong: dict[str, object]) -> None:
    _, key = api.services.keys.create("ci", owner="team", max_in_flight=3)
    answer = api.request("PATCH", "/api/v2/keys/ci", body=wrong, key=ADMIN)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert api.services.keys.list() == [key]


def test_no_log_has_the_text_of_a_key(
    api: ApiWorld, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = api.request("POST", "/api/v2/keys", body={"name": "ci", "owner": "team"}, key=ADMIN)
    said = "".join(map(repr, map(vars, caplog.records))) + "".join(capsys.readouterr())
    assert made.json["id"] in said, "who made which key is told"
    assert made.json["key"].removeprefix("csk_") not in said


@pytest.mark.parametrize(
    "wrong",
    [
        {"is_admin": True},
        {"name": "a b"},
        {"owner": ""},
        {"budget_usd": 0},
        {"budget_usd": -1},
        {"budget_usd": 1e300},
        {"budget_usd": "free"},
        {"budget_usd": "5"},
        {"budget_usd": True},
        {"budget_action": "explode"},
        {"max_in_flight": 0},
        {"max_in_flight": 1e3},
        {"expires_in_s": 10**12},
        {"key": "csk_chosen"},
    ],
)
def test_what_a_key_cannot_be_is_refused(api: ApiWorld, wrong: dict[str, object]) -> None:
    answer = api.request("POST", "/api/v2/keys", body={"name": "ci", "owner": "team", **wrong}, key=ADMIN)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert api.services.keys.list() == []


def test_an_admins_key_is_not_changed_or_ended_over_the_api(api: ApiWorld) -> None:
    text, boss = api.services.keys.create("boss", owner="ops", is_admin=True)
    for called in (boss.id, "boss"):
        answer = api.request("DELETE", f"/api/v2/keys/{called}", key=ADMIN)
        assert (answer.status, answer.code) == (403, "forbidden")
        answer = api.request("PATCH", f"/api/v2/keys/{called}", body={"max_in_flight": 1}, key=ADMIN)
        assert (answer.status, answer.code) == (403, "forbidden")
    assert api.services.keys.find(text) == boss
    taken = api.request("POST", "/api/v2/keys", body={"name": "boss", "owner": "team"}, key=ADMIN)
    assert taken.status == 422, "its name is taken all the same"
    assert api.services.keys.revoke("boss").is_revoked


def test_a_key_is_told_of_itself(api: ApiWorld) -> None:
    me = api.request("GET", "/api/v2/me", key={"key_name": "ci", "max_in_flight": "2"}).json
    assert (me["owner"], me["key_name"], me["is_admin"]) == ("team", "ci", False)
    assert me["limits"] == {"max_in_flight": 2, "requests_per_minute": None}
    assert (me["budget"], me["events_url"]) == (None, None)
    assert me["prices"] == {"usd_per_second": None, "usd_per_request": None}
    assert api.request("GET", "/api/v2/me", key=ADMIN).json["is_admin"] is True
    assert api.request("GET", "/api/v2/me", owner="").status == 401
