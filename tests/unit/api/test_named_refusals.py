"""What the routes of named workflows refuse: it is said why, in the contract's envelope, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.api_world import ASSETS, ApiWorld, api_world
from tests.unit.named_world import GRAPH, problems, push, run

LIST = "/api/v2/workflows"


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    """One with a workflow, for requests that are refused and leave nothing."""
    with pytest.MonkeyPatch.context() as patch, api_world(patch) as world:
        assert push(world).status == 201
        yield world


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "workflow"),
        ({"workflow": "poster"}, "is the name"),
        ({"workflow": GRAPH, "alais": "live"}, "did you mean 'alias'?"),
        ({"workflow": GRAPH, "alias": "v3"}, "no alias can be called"),
        ({"workflow": GRAPH, "dry_run": "yes"}, "dry_run"),
        ({"workflow": {"1": {"class_type": 5}}}, "workflow"),
        ({"workflow": GRAPH, "inputs": {"a": "9.color", "b": "1.colour"}}, "1.color"),
        ({"workflow": GRAPH, "outputs": {"picture": "7"}}, "7"),
        ("not json", "JSON"),
        ([], ""),
        (None, ""),
    ],
)
def test_a_push_that_cannot_be_kept_says_why_and_leaves_nothing(api: ApiWorld, body: object, words: str) -> None:
    answer = api.request("PUT", f"{LIST}/poster", body=body, owner="empty")
    assert 400 <= answer.status < 500, answer.text
    assert words in answer.json["error"]["message"]
    assert api.request("GET", LIST, owner="empty").json == {"workflows": []}
    assert "Contents" not in api.s3.list_objects_v2(Bucket=ASSETS, Prefix="workflows/owners/empty/")


@pytest.mark.parametrize("name", ["doctor", "convert", "needs", "a b", "x" * 65, "-a", "é", "a@b"])
def test_no_workflow_gets_a_name_that_it_cannot_have(api: ApiWorld, name: str) -> None:
    answer = push(api, name)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert run(api, name=name).status == 404


@pytest.mark.parametrize(
    ("method", "path", "near"),
    [
        ("GET", f"{LIST}?limits=3", "limit"),
        ("GET", f"{LIST}/poster?alais=live", "alias"),
        ("GET", f"{LIST}/poster/versions?curser=3", "cursor"),
        ("POST", f"{LIST}/poster/runs?wait=3", "wait_s"),
        ("POST", f"{LIST}/poster/runs?stick=3", "sticky"),
        ("POST", f"{LIST}/poster/runs?Version=1", "version"),
    ],
)
def test_a_parameter_that_no_route_has_is_refused(api: ApiWorld, method: str, path: str, near: str) -> None:
    answer = api.request(method, path, body={} if method == "POST" else None)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert f"did you mean {near!r}?" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "query", ["alias=live&version=1", "version=x", "version=-1", "alias=", "alias=V3", "wait_s=99"]
)
def test_a_parameter_that_cannot_be_is_refused(api: ApiWorld, query: str) -> None:
    assert run(api, query=query).code == "invalid_request"


@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD"])
def test_a_method_that_no_route_has_is_told_in_the_envelope(api: ApiWorld, method: str) -> None:
    answer = api.request(method, f"{LIST}/poster")
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"colour": 5, "width": "wide"}, {"inputs.colour", "inputs.width"}),
        ({"inputs": {"colour": 5}, "meta": {}, "deadline_s": -1}, {"inputs.colour", "meta", "deadline_s"}),
        ({"inputs": {"color": 5}, "webhook_url": 7}, {"webhook_url"}),
        ({"inputs": {"1.color": 5}}, {"inputs.1.color"}),
        ({"inputs": [1]}, {"inputs.inputs"}),
        ({"metadata": {"a": "b"}, "color": "red"}, {"inputs.metadata", "inputs.color"}),
        ({"width": 5.5, "color": True}, {"inputs.width", "inputs.color"}),
        ({"prompt": {"1": {"class_type": "EvilNode", "inputs": {}}}}, {"inputs.prompt"}),
    ],
)
def test_all_that_does_not_fit_is_said_at_once_and_nothing_is_queued(
    api: ApiWorld, body: object, fields: set[str]
) -> None:
    answer = run(api, body)
    assert (answer.status, answer.code) == (422, "invalid_request"), answer.text
    assert set(problems(answer)) == fields
    assert api.messages() == []
    assert api.request("GET", "/api/v2/jobs").json["jobs"] == []


def test_a_slip_of_the_pen_is_told(api: ApiWorld) -> None:
    assert "did you mean 'color'?" in problems(run(api, {"colour": 5}))["inputs.colour"]
    assert "did you mean 'metadata'?" in problems(run(api, {"inputs": {}, "metadta": {}}))["metadta"]
    assert "goes into `inputs`" in problems(run(api, {"inputs": {}, "color": 5}))["color"]
    assert "beside `inputs`" in problems(run(api, {"metadata": {"a": "b"}}))["inputs.metadata"]


@pytest.mark.parametrize("body", ["", "[]", "nope", '"text"', "5", "null", b"\xff\xfe\x00"])
def test_a_body_that_is_no_object_is_refused(api: ApiWorld, body: object) -> None:
    answer = run(api, body)
    assert 400 <= answer.status < 500
    assert answer.json["error"]["code"]


def test_a_huge_body_of_inputs_is_refused_before_it_costs_anything(api: ApiWorld) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    for body in ({f"a{number}": 1 for number in range(5_000)}, {"color": deep}, {"inputs": {"color": deep}}):
        answer = run(api, body)
        assert (answer.status, answer.code) == (422, "invalid_request")
        assert len(answer.text) < 100_000
