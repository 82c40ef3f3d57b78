"""What the API tells of packs that did not import: to everybody how many, to keys which, to a job its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.connector.upkeep import Condition
from comfy_serverless.jobs import node_list
from comfy_serverless.jobs.node_list import NodeListWriter
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.worker.metrics import Meter
from tests.patience import PATIENCE_S
from tests.unit.api_world import ASSETS, Answer, ApiWorld, api_world

LOST = NotImported("toy", "cannot open '/opt/comfyui/custom_nodes/toy/x.so'", "/opt/x", frozenset({"SaveImage"}))


@pytest.fixture(autouse=True)
def _lists_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_list, "_KNOWN_S", 0.0)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


@pytest.fixture
def worker(api: ApiWorld) -> list[NotImported]:
    """A worker that tells its nodes; the list is of the packs that it lacks."""
    lost = [LOST]
    writer = NodeListWriter(api.s3, ASSETS, "nodes", lambda: {"KSampler": {}}, lambda: lost)
    writer.write_if_due()
    writer.wait(PATIENCE_S)
    return lost


def submit(api: ApiWorld) -> Answer:
    return api.request("POST", "/api/v2/jobs", body={"workflow": {"9": {"class_type": "SaveImage", "inputs": {}}}})


def test_anybody_hears_how_many_packs_are_lost_and_nothing_else(api: ApiWorld, worker: list[NotImported]) -> None:
    assert api.request("GET", "/api/v2/health?detail", owner="").json["nodes_not_loaded"] == 1
    assert set(api.request("GET", "/api/v2/health", owner="").json) == {"status", "version"}


def test_a_key_shows_which_and_why_without_folders_of_the_worker(api: ApiWorld, worker: list[NotImported]) -> None:
    answer = api.request("GET", "/api/v2/health/workers")
    assert answer.json == {"nodes_not_loaded": [{"pack": "toy", "reason": "cannot open '…/x.so'"}]}
    assert api.request("GET", "/api/v2/health/workers", owner="").status == 401


def test_nothing_is_lost_where_no_worker_has_told_of_it(api: ApiWorld) -> None:
    assert api.request("GET", "/api/v2/health?detail", owner="").json["nodes_not_loaded"] == 0
    assert api.request("GET", "/api/v2/health/workers").json == {"nodes_not_loaded": []}


def test_a_workflow_that_needs_a_lost_pack_is_refused_with_the_reason(api: ApiWorld, worker: list[NotImported]) -> None:
    error = submit(api).json["error"]
    assert error["code"] == "invalid_workflow"
    assert "(SaveImage), which is of toy, which did not import: cannot open '…/x.so'" in error["message"]
    (problem,) = error["details"]["node_errors"].values()
    assert "which is of toy" in problem["errors"][0]["message"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"[{}]", b"\xff", b'{"pack": 1}'])
def test_lists_of_other_releases_are_read_as_far_as_they_go(
    api: ApiWorld, worker: list[NotImported], body: bytes
) -> None:
    api.s3.put_object(Bucket=ASSETS, Key="engine/nodes/not-imported.json", Body=body)
    assert api.request("GET", "/api/v2/health?detail", owner="").json["nodes_not_loaded"] == 0
    assert submit(api).code == "invalid_workflow"


def test_an_api_of_the_last_release_reads_the_list_of_classes_as_it_did(
    api: ApiWorld, worker: list[NotImported]
) -> None:
    assert json.loads(api.s3.get_object(Bucket=ASSETS, Key="engine/nodes.json")["Body"].read()) == ["KSampler"]


def test_the_metric_follows_the_running_engine(capsys: pytest.CaptureFixture[str]) -> None:
    lost = [2, 0]
    meter = Meter(Condition, lambda: lost.pop(0))
    meter.count([])
    meter.count([])
    lines: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("NodesNotLoaded") for line in lines] == [[2], None]


def test_a_release_with_a_name_is_told(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queues, "release", lambda _: ("next", "3f2a91c07b5e"))
    told = {"release": "next", "release_version": "3f2a91c07b5e"}
    assert api.request("GET", "/api/v2/health/workers").json == {"nodes_not_loaded": [], **told}
    assert told.items() <= api.request("GET", "/api/v2/health?detail", owner="").json.items()
