"""A push is held against what is deployed, and `doctor` holds every alias against it, or against another release."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.jobs.declarations import DeclarationsWriter
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.jobs.image_declarations import publish
from comfy_serverless.workflows.folder import Folder
from comfy_serverless.workflows.items import key_of
from tests.unit.api_world import ASSETS, ApiWorld, api_world
from tests.unit.editor_samples import OBJECT_INFO, PLAIN
from tests.unit.named_world import GRAPH, push
from tests.unit.needs_samples import combo, declared

DOCTOR = "/api/v2/workflows/doctor"
RELEASE = "0123456789ab"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, release_version=RELEASE) as world:
        yield world


def tell(api: ApiWorld, object_info: dict[str, Any], release: str = RELEASE) -> None:
    """What a worker of a release tells; the API has not looked yet."""
    DeclarationsWriter(api.s3, ASSETS, "nodes", release).write(object_info)
    for reader in (api.services.declarations, api.services.node_list):
        reader._read_at = float("-inf")


def without(*classes: str) -> dict[str, Any]:
    return {name: said for name, said in OBJECT_INFO.items() if name not in classes}


def diagnosis(api: ApiWorld, query: str = "", owner: str = "team") -> Any:
    answer = api.request("GET", f"{DOCTOR}{query}", owner=owner)
    assert answer.status == 200, answer.text
    return answer.json


def scaled() -> dict[str, Any]:
    """A graph with a class that not everybody has."""
    graph = copy.deepcopy(GRAPH)
    graph["3"] = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    return graph


def test_what_would_fail_is_not_pushed_unless_somebody_insists(api: ApiWorld) -> None:
    tell(api, without("ImageInvert"))
    refused = push(api, workflow=scaled())
    assert (refused.status, refused.code) == (422, "invalid_workflow")
    [finding] = refused.json["error"]["details"]["findings"]
    assert (finding["kind"], finding["severity"], finding["node_id"]) == ("class_missing", "breaks", "3")
    assert api.request("GET", "/api/v2/workflows/poster").status == 404
    looked_at = push(api, workflow=scaled(), dry_run=True)
    assert (looked_at.status, looked_at.json["findings"]) == (200, [finding])
    forced = push(api, workflow=scaled(), force=True)
    assert (forced.status, forced.json["findings"]) == (201, [finding])


def test_warnings_are_told_and_stop_nothing(api: ApiWorld) -> None:
    tell(api, OBJECT_INFO)
    graph = copy.deepcopy(GRAPH)
    graph["1"]["inputs"]["old"] = 1
    pushed = push(api, workflow=graph)
    assert pushed.status == 201
    assert [(one["kind"], one["severity"]) for one in pushed.json["findings"]] == [("input_unknown", "warns")]


def test_before_anybody_has_told_a_graph_is_pushed_unchecked_and_the_editors_is_refused(api: ApiWorld) -> None:
    pushed = push(api)
    assert pushed.status == 201
    assert [one["kind"] for one in pushed.json["findings"]] == ["not_checked"]
    refused = api.request("PUT", "/api/v2/workflows/other", body={"workflow": PLAIN})
    assert (refused.status, refused.code) == (503, "engine_unavailable")
    assert "run a job first" in refused.json["error"]["message"]
    found = diagnosis(api)
    assert (found["is_known"], found["breaks"]) == (False, 0)
    assert [one["findings"][0]["kind"] for one in found["versions"]] == ["not_checked"]


def test_every_version_that_an_alias_leads_to_is_held_against_the_live_workers(api: ApiWorld) -> None:
    tell(api, OBJECT_INFO)
    push(api)
    push(api, workflow=scaled(), alias="staging")
    push(api, description="a third, which no alias leads to")
    weights = {"alias": "live", "weights": {"1": 3, "2": 1}}
    assert api.request("POST", "/api/v2/workflows/poster/alias", body=weights).status == 200
    assert diagnosis(api)["breaks"] == 0
    tell(api, without("ImageInvert"))
    found = diagnosis(api)
    assert (found["release"], found["release_version"], found["breaks"]) == ("default", RELEASE, 1)
    assert [(one["name"], one["version"], one["aliases"], one["breaks"]) for one in found["versions"]] == [
        ("poster", 1, {"live": 0.75}, False),
        ("poster", 2, {"live": 0.25, "staging": 1.0}, True),
    ]
    assert "ImageInvert" in found["versions"][1]["findings"][0]["message"]


def test_a_release_that_is_not_live_can_be_asked_about(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(api, OBJECT_INFO)
    push(api, workflow=scaled())
    publish(api.s3, ASSETS, Build("other", "fedcba987654"), without("ImageInvert"))
    builds = {"next": ("other", "fedcba987654"), "quiet": ("other", "never-told")}
    monkeypatch.setattr(type(api.services.workers), "build_of", lambda _, name: builds.get(name))
    found = diagnosis(api, "?release=next")
    assert (found["release"], found["release_version"], found["breaks"]) == ("next", "fedcba987654", 1)
    assert diagnosis(api, "?release=quiet")["is_known"] is False
    assert diagnosis(api)["breaks"] == 0
    missing = api.request("GET", f"{DOCTOR}?release=none")
    assert (missing.status, missing.code) == (404, "not_found")


def test_models_only_warn_as_long_as_the_image_alone_has_told(api: ApiWorld) -> None:
    loads = declared({"ckpt_name": combo("there.safetensors")}, "MODEL", "CLIP", "VAE")
    workers = {**OBJECT_INFO, "CheckpointLoaderSimple": loads}
    workers["SaveImage"] = declared({"images": ["MODEL"]})
    publish(api.s3, ASSETS, Build("nodes", RELEASE), workers)
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "mine.safetensors"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    pushed = push(api, workflow=graph, inputs={"model": "1.ckpt_name"})
    assert pushed.status == 201, pushed.text
    assert ("model_missing", "warns") in {(one["kind"], one["severity"]) for one in pushed.json["findings"]}
    tell(api, workers | {"Another": declared({})})
    [examined] = diagnosis(api)["versions"]
    assert "checkpoints/mine.safetensors" in next(
        one["message"] for one in examined["findings"] if one["severity"] == "breaks"
    )


def test_owners_are_apart_and_retired_names_are_passed_over(api: ApiWorld) -> None:
    tell(api, OBJECT_INFO)
    push(api, "mine")
    push(api, "theirs", owner="others")
    push(api, "old")
    api.request("DELETE", "/api/v2/workflows/old")
    assert [one["name"] for one in diagnosis(api)["versions"]] == ["mine"]
    assert [one["name"] for one in diagnosis(api, owner="others")["versions"]] == ["theirs"]
    for name in ("theirs", "old", "nothing"):
        refused = api.request("GET", f"{DOCTOR}?name={name}")
        assert (refused.status, refused.json["error"]["message"]) == (
            404,
            f"there is no workflow {name!r} of yours; what the operator shares is changed by the operator.",
        )


def test_one_name_and_pages(api: ApiWorld) -> None:
    tell(api, OBJECT_INFO)
    for name in ("a", "b", "c"):
        push(api, name)
    assert [one["name"] for one in diagnosis(api, "?name=b")["versions"]] == ["b"]
    first = diagnosis(api, "?limit=2")
    assert [one["name"] for one in first["versions"]] == ["a", "b"]
    rest = diagnosis(api, f"?limit=2&cursor={first['next_cursor']}")
    assert ([one["name"] for one in rest["versions"]], rest.get("next_cursor")) == (["c"], None)
    for query in ("?limit=0", "?what=1", "?cursor=.."):
        assert api.request("GET", f"{DOCTOR}{query}").status == 422


def test_a_document_that_is_damaged_is_a_finding_and_the_others_are_examined(api: ApiWorld) -> None:
    tell(api, OBJECT_INFO)
    push(api, "good")
    push(api, "bad")
    row = next(iter(api.services.workflows.versions("team", "bad")))
    api.s3.put_object(Bucket=ASSETS, Key=key_of("team", "bad", 1, row.sha256), Body=json.dumps({}).encode())
    told = {one["name"]: one["breaks"] for one in diagnosis(api)["versions"]}
    assert told == {"bad": True, "good": False}


def test_files_of_the_image_are_examined_as_version_0(
    api: ApiWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = {**GRAPH, "8": {"class_type": "LoadImage", "inputs": {"image": "author.png"}}}
    loading["2"] = {**GRAPH["2"], "inputs": {**GRAPH["2"]["inputs"], "images": ["8", 0]}}
    for name, content in (("fine", loading), ("scaled", scaled()), ("own", scaled()), ("none", ["no workflow"])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(api.services.named, "_folder", Folder(tmp_path))
    tell(api, without("ImageInvert"))
    push(api, "own")
    found = diagnosis(api)
    assert [(one["name"], one["version"], one["breaks"]) for one in found["versions"]] == [
        ("fine", 0, False),
        ("none", 0, True),
        ("own", 1, False),
        ("scaled", 0, True),
    ]
    assert found["breaks"] == 2
    assert found["versions"][0]["findings"] == []
    first = diagnosis(api, "?limit=3")
    rest = diagnosis(api, f"?limit=3&cursor={first['next_cursor']}")
    assert ([one["name"] for one in rest["versions"]], rest.get("next_cursor")) == (["scaled"], None)
    assert [one["version"] for name in ("scaled", "own") for one in diagnosis(api, f"?name={name}")["versions"]] == [
        0,
        1,
    ]
    api.request("DELETE", "/api/v2/workflows/own")
    assert [one["name"] for one in diagnosis(api, owner="others")["versions"]] == ["fine", "none", "own", "scaled"]
