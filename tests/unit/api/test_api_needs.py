"""`POST /api/v2/workflows/needs`: what of a workflow is not on the workers, by what they have published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.jobs import declarations
from comfy_serverless.jobs.declarations import DeclarationsWriter
from tests.unit.api_world import ASSETS, Answer, ApiWorld, api_world
from tests.unit.editor_samples import node, saved
from tests.unit.needs_samples import FOX_URL, OBJECT_INFO, SHA256, loader, with_checkpoint, with_subgraph

PATH = "/api/v2/workflows/needs"
GRAPH: dict[str, Any] = {"4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "fox.safetensors"}}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    monkeypatch.setattr(declarations, "_KNOWN_S", 0.0)
    with api_world(monkeypatch) as world:
        yield world


@pytest.fixture
def worker(api: ApiWorld) -> None:
    """A worker has told what its ComfyUI has."""
    DeclarationsWriter(api.s3, ASSETS, "nodes").write(OBJECT_INFO)


def ask(api: ApiWorld, body: object, **more: Any) -> Answer:
    return api.request("POST", PATH, body=body, **more)


def names(answer: Answer) -> list[tuple[str, bool | None]]:
    assert answer.status == 200, answer.text
    return [(model["name"], model["there"]) for model in answer.json["models"]]


@pytest.mark.usefixtures("worker")
def test_it_says_what_the_workers_lack_and_where_that_is_from(api: ApiWorld) -> None:
    answer = ask(api, {"workflow": with_checkpoint()})
    assert names(answer) == [("fox.safetensors", False)]
    assert answer.json["models"][0]["url"] == FOX_URL
    assert answer.json["missing"] == {"models": 1, "nodes": 0}
    assert answer.json["nodes_told_at"] is not None
    assert names(ask(api, {"workflow": with_checkpoint("there.safetensors")})) == [("there.safetensors", True)]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    "body",
    [
        with_checkpoint(),
        {"workflow": with_checkpoint(), "set": {"1.x": 5}, "job_id": "a"},
        {"workflow": json.dumps(with_checkpoint())},
        {"prompt": GRAPH, "workflow": with_checkpoint()},
        {"workflow": GRAPH, "extra_data": {"extra_pnginfo": {"workflow": with_checkpoint()}}},
        {"prompt": GRAPH, "extra_data": {"extra_pnginfo": {"workflow": with_checkpoint()}}, "client_id": "x"},
    ],
    ids=["bare", "a request", "in a text", "of a picture", "with what the editor saved", "of /prompt"],
)
def test_it_takes_a_workflow_in_any_wrapper(api: ApiWorld, body: dict[str, Any]) -> None:
    answer = ask(api, body)
    assert names(answer) == [("fox.safetensors", False)]
    assert answer.json["models"][0]["url"] == FOX_URL


@pytest.mark.usefixtures("worker")
def test_models_that_the_job_brings_are_there(api: ApiWorld) -> None:
    brought = [{"url": FOX_URL, "folder": "checkpoints", "sha256": SHA256}]
    assert names(ask(api, {"workflow": GRAPH, "models": brought})) == [("fox.safetensors", True)]
    wrong = ask(api, {"workflow": GRAPH, "models": [{"url": FOX_URL, "folder": "checkpoint"}]})
    assert (wrong.status, wrong.code) == (422, "invalid_request")
    assert "did you mean 'checkpoints'?" in wrong.text


@pytest.mark.usefixtures("worker")
def test_classes_that_no_worker_has_come_with_their_packs(api: ApiWorld) -> None:
    workflow = saved(
        [node(1, "Toy", properties={"cnr_id": "toys", "ver": "1.0"}), loader(2, "PaidPicture", ["fox"])], []
    )
    answer = ask(api, {"workflow": workflow}).json
    assert answer["nodes"][0] == {
        "class_type": "Toy",
        "node_ids": ["1"],
        "count": 1,
        "pack": {"cnr_id": "toys", "aux_id": None, "ver": "1.0"},
        "known": False,
    }
    assert answer["partner_nodes"] == ["PaidPicture"]
    assert answer["inputs"][0]["address"] == "2.prompt"


def test_before_a_worker_has_told_anything_it_is_not_known_what_is_there(api: ApiWorld) -> None:
    answer = ask(api, {"workflow": with_subgraph([])})
    assert names(answer) == [("inner.safetensors", None)]
    assert answer.json["missing"] == {"models": 0, "nodes": 0}
    assert "no worker has told yet" in answer.json["notes"][0]
    assert answer.json["nodes_told_at"] is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"workflow": "name"}, "invalid_request"),
        ({"workflow": "s3://bucket/key.json"}, "invalid_request"),
        ({"workflow": {}}, "invalid_workflow"),
        ({"workflow": {"1": {"class_type": "X"}}}, "invalid_workflow"),
        ([1], "invalid_request"),
        ({"workflow": {"nodes": [], "x": {"a": [[[[[[[[{}]]]]]]]]}}, "models": 5}, "invalid_request"),
    ],
)
def test_what_is_no_workflow_is_refused(api: ApiWorld, body: object, code: str) -> None:
    answer = ask(api, body)
    assert (answer.status, answer.code) == (422, code)


def test_it_needs_a_key_and_keeps_nothing(api: ApiWorld) -> None:
    assert ask(api, {"workflow": GRAPH}, owner="").status == 401
    before = [found["Key"] for found in api.s3.list_objects_v2(Bucket=ASSETS).get("Contents", [])]
    assert ask(api, {"workflow": GRAPH}).status == 200
    assert [found["Key"] for found in api.s3.list_objects_v2(Bucket=ASSETS).get("Contents", [])] == before
    assert api.messages() == []
