"""Parameters of addresses that a route does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from comfy_serverless.api.auth import PUBLIC, is_public
from comfy_serverless.api.query import check_parameters
from comfy_serverless.errors import InvalidRequest
from tests.unit.api_world import ApiWorld, api_world

LISTS = {
    "/api/v2/jobs": "limit=1&cursor=&status=queued&metadata[a]=b&metadata[a.b[0]]=c",
    "/api/v2/jobs/x/outputs": "limit=1",
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def test_every_route_that_needs_a_key_refuses_what_it_does_not_have(api: ApiWorld) -> None:
    routes = {  # the app's own, so that none is missing that is in no document
        (method, re.sub(r"<\w+>|\.\+", "x", route.path))
        for route in (*api.app._static_routes, *api.app._dynamic_routes)
        for method in ([route.method] if isinstance(route.method, str) else route.method)
    }
    refused = 0
    for method, path in sorted(routes):
        if is_public(method, path):
            continue
        answer = api.request(method, f"{path}?limt=5")
        assert answer.status == 422, (method, path, answer.text)
        if method != "HEAD":
            assert "query.limt: is no parameter of this route (" in answer.json["error"]["message"]
            assert answer.json["error"]["message"].endswith(").")
        refused += 1
    assert refused > 40


@pytest.mark.parametrize("path", sorted(path for _, path in PUBLIC))
def test_public_routes_let_those_of_browsers_and_monitors_pass(api: ApiWorld, path: str) -> None:
    named = path.replace("{proxy+}", "main.js")
    assert api.request("GET", f"{named}?_=1", owner="").status == 200


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("limt=5", "did you mean 'limit'?"),
        ("Limit=5", "did you mean 'limit'?"),
        ("metdata[team]=a", "did you mean 'metadata[name]'?"),
        ("metadata=a", "did you mean 'metadata[name]'?"),
        ("zzzzzz=1", "it has created_after, cursor, expand, limit, metadata[name], status"),
    ],
)
def test_the_refusal_says_what_was_probably_meant(api: ApiWorld, query: str, hint: str) -> None:
    answer = api.request("GET", f"/api/v2/jobs?{query}")
    assert (answer.status, answer.code) == (422, "invalid_request")
    (problem,) = answer.json["error"]["details"]["errors"]
    assert problem["field"] == f"query.{query.partition('=')[0]}"
    assert problem["problem"].endswith(f"({hint})")


@pytest.mark.parametrize("path", LISTS)
def test_what_a_list_has_passes(api: ApiWorld, path: str) -> None:
    assert "no parameter of" not in api.request("GET", f"{path}?{LISTS[path]}").text


def test_very_many_and_very_long_names_are_told_in_short() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_parameters([f"{number}{'x' * 1000}" for number in range(1000)], ["limit"])
    assert len(caught.value.message) < 4000
    assert "and 980 more" in caught.value.message
