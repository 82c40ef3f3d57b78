"""Every message about a job names its owner, so that SQS can keep the queues fair between owners."""

from __future__ import annotations

import ast
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.client
import pytest

from comfy_serverless.aws.sqs import group_of
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.errors import WorkerStopped
from comfy_serverless.handlers import caretaker, wiring
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.settings import Settings
from comfy_serverless.table.settlement import Settlement
from tests.unit.api_world import api_world
from tests.unit.batch_world import World as BatchWorld
from tests.unit.batch_world import manifest
from tests.unit.fakes import FakeEngine
from tests.unit.jobs_table import aws
from tests.unit.table.test_job_store import World
from tests.unit.worker.test_journal import Office, Worlds

SOURCE = Path(__file__).parents[3] / "lambda" / "comfy_serverless"
GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {}}, "2": {"class_type": "SaveImage", "inputs": {}}}
#: Queues that hold no jobs of owners. What is dropped has no owner yet; webhooks are called one by one.
NOT_OF_JOBS = frozenset({"webhooks"})


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """The queue and the group of each message that anybody has sent. A message without a group fails the test."""
    sent: list[tuple[str, str]] = []
    base: Any = botocore.client.BaseClient  # whose stubs leave out what every call goes through
    call = base._make_api_call

    def watch(client: Any, operation: str, request: dict[str, Any]) -> Any:
        if operation in {"SendMessage", "SendMessageBatch"}:
            queue = request["QueueUrl"].rpartition("/")[2]
            if queue not in NOT_OF_JOBS:
                sent.extend((queue, entry["MessageGroupId"]) for entry in request.get("Entries", [request]))
        return call(client, operation, request)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", watch)
    yield sent
    assert sent


@pytest.mark.parametrize("name", ["team", "a", "x" * 128, string.punctuation, "a@b.c", "drops"])
def test_an_owner_whose_name_sqs_takes_is_a_group_of_that_name(name: str) -> None:
    assert group_of(name) == name


@pytest.mark.parametrize("name", ["", "the team", "x" * 129, "équipe", "a\nb", "\ud800", "sha256:", "job 1", "\x7f"])
def test_any_other_name_is_a_group_that_sqs_takes_and_that_nobody_else_has(name: str) -> None:
    group = group_of(name)
    assert 1 <= len(group) <= 128
    assert set(group) <= set(string.ascii_letters + string.digits + string.punctuation)
    assert group == group_of(name)
    assert group not in {group_of(other) for other in (f"{name} ", group, "another one")}


def test_only_one_module_sends_messages_and_there_all_that_are_for_jobs_have_a_group() -> None:
    senders: dict[str, list[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in {"send_message", "send_message_batch"}:
                senders.setdefault(path.relative_to(SOURCE).as_posix(), []).append(ast.unparse(node))
    assert set(senders) == {"aws/sqs.py"}
    without = [call for call in senders["aws/sqs.py"] if "MessageGroupId" not in call and "entries" not in call]
    assert ["'job': job_id" in call for call in without] == [True], "of webhooks alone"


def test_jobs_of_the_api(groups: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch) as world:
        for owner in ("team", "the other team"):
            assert world.request("POST", "/api/v2/jobs", body={"workflow": GRAPH}, owner=owner).status == 201
        body = {"workflow": GRAPH, "wait_s": 0}
        assert world.request("POST", "/generate", body=body, owner="team").status == 202
    assert groups == [("jobs", "team"), ("jobs", group_of("the other team")), ("jobs", "team")]


def test_drops_and_hundreds_of_lines_their_orders_and_a_resumed_batch(groups: list[tuple[str, str]]) -> None:
    with aws() as session:
        world = BatchWorld(session)
        world.drops.drop(world.drop("jobs/one.json", json.dumps(GRAPH).encode()))
        batch = world.begin(manifest(450))
        world.read_all()
        assert groups.count(("batches", "drops")) == 450
        state = world.open_jobs(batch)[0]
        assert world.jobs.park(state.id, batches=state.batches) is None
        world.keeper.resume(batch.id, until=float("inf"))
    assert groups.count(("batches", "drops")) == 451
    assert set(groups) == {("jobs", "drops"), ("manifests", batch.id), ("batches", "drops")}


def test_a_batch_that_the_caretaker_has_advanced(
    groups: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with aws() as session:
        world = BatchWorld(session)
        monkeypatch.setattr(BatchStore, "neglected", lambda _store, *, limit: ["some", "more"][:limit])
        monkeypatch.setattr(wiring, "batches", lambda: world.batches)
        monkeypatch.setattr(wiring, "settings", lambda: Settings(manifest_queue_url=world.urls["manifests"]))
        monkeypatch.setattr(wiring, "manifest_queue", lambda: world.keeper.own_queue)
        assert caretaker._wake_stale_batches() == 2
    assert groups == [("manifests", "some"), ("manifests", "more")]


@pytest.mark.parametrize("status", ["Expired", "Failed"])
def test_jobs_that_are_sent_again(groups: list[tuple[str, str]], status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with aws() as session:
        world = World(session, monkeypatch)
        neglected, unbegun = world.submit(), world.submit()
        told = {"invocationStatus": status, "inferenceId": unbegun}
        assert Settlement(world.care).hear(json.dumps(told))
        world.begin(neglected)
        world.later(32)
        assert world.care.round() >= 1
    assert set(groups) == {("jobs", "team")}
    assert len(groups) >= 2


def test_a_job_that_its_worker_gives_back(groups: list[tuple[str, str]], world: Worlds) -> None:
    with aws() as session:
        office = Office(world(engine=FakeEngine(error=WorkerStopped("the machine goes"))), session)
        office.run(office.submit())
        (message,) = office.sent_again()
    assert groups == [("jobs", group_of(f"job {message['job']}"))], "of an owner whom the message does not name"


def test_a_message_of_the_release_before_is_a_tenant_of_its_own(groups: list[tuple[str, str]]) -> None:
    with aws() as session:
        world = BatchWorld(session)
        for number in (1, 2):
            message = JobMessage.parse(json.dumps({"job": f"j-{number}", "request": "s3://assets/r.json"}))
            assert message is not None
            world.keeper.workers.send(message)
    assert groups == [("jobs", group_of("job j-1")), ("jobs", group_of("job j-2"))]
