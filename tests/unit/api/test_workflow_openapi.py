"""`/openapi.json` with a key: one path for each workflow of its owner, private, bounded, and safe whatever it says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from comfy_serverless.api import workflow_openapi
from comfy_serverless.api.workflow_openapi import MOST_BYTES, MOST_WORKFLOWS, Described, with_workflows
from comfy_serverless.errors import AssetUnavailable
from comfy_serverless.workflows.version import Version
from tests.unit.api_world import Answer, ApiWorld, api_world
from tests.unit.held_versions import HeldVersions
from tests.unit.named_world import GRAPH, push, run

RUNS = "/api/v2/workflows/poster/runs"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def key_of(api: ApiWorld, owner: str, **limits: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {api.services.keys.create(f'of-{owner}', owner=owner, **limits).text}"}


def described(api: ApiWorld, headers: dict[str, str] | None = None) -> Answer:
    return api.request("GET", "/openapi.json", headers=headers, owner="")


def own_paths(answer: Answer) -> set[str]:
    return {
        path for path, entry in answer.json["paths"].items() if "your workflows" in next(iter(entry.values()))["tags"]
    }


def fail(*_: object, **__: object) -> Version:
    raise AssetUnavailable("S3 does not answer.")


def test_without_a_key_there_are_the_routes_alone_and_everybody_may_keep_them(api: ApiWorld) -> None:
    push(api)
    answer = described(api)
    assert own_paths(answer) == set()
    assert "/api/v2/workflows/{name}/runs" in answer.json["paths"]
    assert answer.headers["cache-control"].startswith("public")
    assert answer.headers["vary"] == "authorization", "or a cache would answer who sends a key with it"


def test_with_a_key_there_is_a_path_for_each_workflow_of_its_owner(api: ApiWorld) -> None:
    push(api, description="Makes a poster.\nOf one color.")
    push(api, "confidential", owner="other")
    api.services.workflows.push(Version(name="common", number=0, owner="", graph=GRAPH))
    api.services.workflows.share("common")
    answer = described(api, key_of(api, "team"))
    assert own_paths(answer) == {RUNS, "/api/v2/workflows/common/runs"}
    assert "confidential" not in answer.text
    operation = answer.json["paths"][RUNS]["post"]
    assert (operation["summary"], operation["description"]) == ("Run poster: Makes a poster.", "Of one color.")
    assert [one["name"] for one in operation["parameters"] if one["in"] == "path"] == []
    inputs = answer.json["components"]["schemas"]["Inputs-poster"]
    assert inputs["properties"].keys() == {"color", "width"}
    assert answer.json["openapi"].startswith("3.1"), "whose schemas are JSON Schema 2020-12"
    assert "all 2 are shown" in answer.json["info"]["description"]


def test_the_document_of_one_owner_is_kept_by_nobody_else(api: ApiWorld) -> None:
    push(api)
    key = key_of(api, "team")
    answer = described(api, key)
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["vary"] == "authorization"
    again = described(api, {**key, "if-none-match": answer.headers["etag"]})
    assert (again.status, again.text) == (304, "")
    push(api, "another")
    assert described(api, {**key, "if-none-match": answer.headers["etag"]}).status == 200


def test_it_is_made_once_for_what_the_heads_say(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def counted(*given: Any) -> dict[str, Any]:
        made.append(given)
        return with_workflows(*given)

    monkeypatch.setattr("comfy_serverless.api.workflow_documents.with_workflows", counted)
    for number in range(12):
        push(api, f"poster-{number}")
    key, other = key_of(api, "team"), key_of(api, "other")
    first = described(api, key)
    before = Counter(api.calls)
    again = described(api, key)
    assert Counter(api.calls) - before == {"GetItem": 1, "Query": 2}, "the key, and the heads of two owners"
    assert (again.text, len(made)) == (first.text, 1)
    assert own_paths(described(api, other)) == set(), "what is kept is one owner's"
    push(api, "poster-3", inputs={"red": "1.color"}, alias="live")
    assert "red" in described(api, key).json["components"]["schemas"]["Inputs-poster-3"]["properties"]
    api.request("POST", "/api/v2/workflows/poster-3/alias", body={"alias": "live", "rollback": True}, owner="team")
    assert described(api, key).text == first.text
    api.request("DELETE", "/api/v2/workflows/poster-3", owner="team")
    assert "/api/v2/workflows/poster-3/runs" not in own_paths(described(api, key))


def test_a_workflow_that_cannot_be_read_is_looked_for_again(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    push(api)
    key = key_of(api, "team")
    with monkeypatch.context() as broken:
        broken.setattr(api.services.named, "behind", fail)
        assert own_paths(described(api, key)) == set()
    assert own_paths(described(api, key)) == {RUNS}


def test_a_key_that_is_none_is_told_so(api: ApiWorld) -> None:
    for header in ("Bearer csk_wrong", "Bearer", "Basic abc", "x" * 10_000):
        answer = described(api, {"authorization": header})
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert "public" not in answer.headers["cache-control"]


def test_the_document_counts_as_a_request_of_the_key(api: ApiWorld) -> None:
    key = key_of(api, "team", requests_per_minute=1)
    assert {described(api, key).status for _ in range(4)} >= {200, 429}


def test_each_example_runs_as_it_stands(api: ApiWorld) -> None:
    push(api)
    push(
        api, "photo", workflow={**GRAPH, "3": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}}}, inputs=None
    )
    answer = described(api, key_of(api, "team"))
    for path in own_paths(answer):
        content = answer.json["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        sent = api.request("POST", path, body=content["example"])
        assert sent.status == 201, sent.text


def test_a_retired_workflow_and_one_without_live_have_no_path(api: ApiWorld) -> None:
    push(api)
    push(api, "staged", alias="staging")
    api.request("DELETE", "/api/v2/workflows/poster")
    assert own_paths(described(api, key_of(api, "team"))) == set()


def test_one_that_cannot_be_read_does_not_hide_the_others(api: ApiWorld) -> None:
    push(api, "broken")
    push(api)
    for item in api.s3.list_objects_v2(Bucket="assets-bucket", Prefix="workflows/owners/team/broken/")["Contents"]:
        api.s3.delete_object(Bucket="assets-bucket", Key=item["Key"])
    api.services.named._documents.__init__()  # type: ignore[misc]  # as in another process
    assert own_paths(described(api, key_of(api, "team"))) == {RUNS}


HOSTILE = "</script><script>alert(1)</script> ![x](http://evil.example/x.png) \u2028 \x00 javascript:alert(1)"


def test_the_document_holds_few_whole_workflows_at_once(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version may have 6 MB: at any time there are as many as are read beside each other."""
    for number in range(12):
        push(api, f"poster-{number}")
    lookup, made_by = "comfy_serverless.api.workflow_lookup", "comfy_serverless.api.workflow_views.as_described"
    held = HeldVersions(monkeypatch, lookup, made_by=made_by, of=12)
    assert len(own_paths(described(api, key_of(api, "team")))) == 12
    assert len(held.at_once) == 12
    beside = api.services.beside
    assert isinstance(beside, ThreadPoolExecutor)
    assert max(held.at_once) <= beside._max_workers


def test_what_an_author_writes_is_text_and_nothing_else(api: ApiWorld) -> None:
    graph = json.loads(json.dumps(GRAPH))
    graph["1"]["inputs"]["color"] = 7
    graph["1"]["_meta"] = {"title": HOSTILE}
    choice = {"target": "1.color", "title": HOSTILE, "description": HOSTILE}
    assert push(api, workflow=graph, inputs={"color": choice}, description=HOSTILE * 20).status == 201
    page = api.request("GET", "/docs", owner="")
    assert HOSTILE not in page.text
    answer = described(api, key_of(api, "team"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert own_paths(answer) == {RUNS}
    assert run(api, {"color": 5}).status == 201


def test_no_value_of_an_author_names_another_place() -> None:
    evil = {"$ref": "file:///etc/passwd", "kept": 1}
    schema = {"$schema": "x", "type": "object", "properties": {"a": {"default": evil, "enum": [evil, [evil]]}}}
    document = _document(_one("poster", schema=schema, example={"a": evil}))
    text = json.dumps(
        [document["components"]["schemas"]["Inputs-poster"], document["paths"][RUNS]["post"]["requestBody"]]
    )
    assert "file:" not in text
    assert "$schema" not in text
    assert '"kept": 1' in text


def test_a_thousand_workflows_leave_the_document_within_its_bounds_and_it_says_so() -> None:
    seen = []

    def many() -> Iterator[Described]:
        for number in range(1_000):
            seen.append(number)
            yield _one(f"w{number:04}")

    document = _document(many())
    shown = [path for path in document["paths"] if path.startswith("/api/v2/workflows/w")]
    assert len(shown) == MOST_WORKFLOWS
    assert len(seen) <= MOST_WORKFLOWS + 1, "the others are not even looked at"
    assert f"the first {MOST_WORKFLOWS} are shown" in document["info"]["description"]
    assert "GET /api/v2/workflows lists all" in document["info"]["description"]


def test_huge_schemas_leave_the_document_within_its_bounds() -> None:
    large = {"type": "object", "properties": {f"a{number}": {"description": "x" * 900} for number in range(100)}}
    document = _document(_one(f"w{number:04}", schema=large) for number in range(50))
    assert len(json.dumps(document)) < MOST_BYTES + 200_000
    assert "are shown" in document["info"]["description"]
    huge = {"type": "object", "description": "x" * 300_000}
    one = _document(_one("poster", schema=huge))["components"]["schemas"]["Inputs-poster"]
    assert one["type"] == "object"
    assert "GET /api/v2/workflows/poster" in one["description"]


def _one(name: str, **parts: Any) -> Described:
    plain: dict[str, Any] = {"title": "", "description": "", "schema": {"type": "object"}, "example": {}}
    return Described(name=name, **{**plain, **parts})


def _document(workflows: Any) -> dict[str, Any]:
    bare = {
        "info": {"description": "The API."},
        "paths": {workflow_openapi.GENERIC: {"post": {"tags": ["x"], "parameters": [{"in": "path", "name": "name"}]}}},
    }
    return with_workflows(bare, [workflows] if isinstance(workflows, Described) else workflows)
