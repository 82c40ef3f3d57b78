"""A stack just deployed: no worker has ever run, and the API converts, checks and offers by the image's own word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.jobs.image_declarations import publish
from tests.unit.api_world import ASSETS, ApiWorld, api_world
from tests.unit.editor_samples import OBJECT_INFO, PLAIN, PLAIN_GRAPH, with_unknown

BUILD = Build("worker", "3f2a91c07b5e")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, worker_image=BUILD.image, release_version=BUILD.release) as world:
        yield world


@pytest.fixture
def deployed(api: ApiWorld) -> ApiWorld:
    publish(api.s3, ASSETS, BUILD, OBJECT_INFO)
    return api


def test_the_editors_workflow_is_converted(deployed: ApiWorld) -> None:
    answer = deployed.request("POST", "/api/v2/workflows/convert", body={"workflow": PLAIN})
    assert answer.status == 200, answer.text
    assert {node["class_type"] for node in answer.json["workflow"].values()} == {"EmptyImage", "SaveImage"}
    assert answer.json["nodes_told_at"]


def test_what_a_workflow_lacks_is_told(deployed: ApiWorld) -> None:
    answer = deployed.request("POST", "/api/v2/workflows/needs", body={"workflow": with_unknown()}).json
    assert {node["class_type"]: node["known"] for node in answer["nodes"]}["NobodysNode"] is False
    assert answer["missing"]["nodes"] == 1
    assert answer["nodes_told_at"]
    plain = deployed.request("POST", "/api/v2/workflows/needs", body={"workflow": PLAIN}).json
    assert (plain["missing"], plain["notes"]) == ({"models": 0, "nodes": 0}, [])
    assert {entry["address"] for entry in plain["inputs"]} >= {"1.width", "1.color"}


def test_a_job_is_converted_at_the_door_and_taken(deployed: ApiWorld) -> None:
    for workflow in (PLAIN, PLAIN_GRAPH):
        answer = deployed.request("POST", "/api/v2/jobs", body={"workflow": workflow})
        assert answer.status == 201, answer.text


def test_a_job_that_no_worker_can_run_is_refused_before_one_starts(deployed: ApiWorld) -> None:
    unknown = {**PLAIN_GRAPH, "9": {"class_type": "NobodysNode", "inputs": {}}}
    answer = deployed.request("POST", "/api/v2/jobs", body={"workflow": unknown})
    assert (answer.status, answer.code) == (422, "invalid_workflow")
    assert set(answer.json["error"]["details"]["node_errors"]) == {"9"}
    assert deployed.messages() == []


def test_without_it_or_with_that_of_another_build_a_job_is_left_to_the_worker(api: ApiWorld) -> None:
    publish(api.s3, ASSETS, Build(BUILD.image, "0000aaaa1111"), OBJECT_INFO)
    refused = api.request("POST", "/api/v2/workflows/convert", body={"workflow": PLAIN})
    assert (refused.status, refused.code) == (503, "engine_unavailable")
    unknown = {"9": {"class_type": "NobodysNode", "inputs": {}}}
    for workflow in (PLAIN, unknown):
        assert api.request("POST", "/api/v2/jobs", body={"workflow": workflow}).status == 201


def test_health_tells_of_no_lost_pack(deployed: ApiWorld) -> None:
    assert deployed.request("GET", "/api/v2/health/workers").json["nodes_not_loaded"] == []
