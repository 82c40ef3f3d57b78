"""How many calls of AWS a job waits for, one after the other, on its way through the API. One more fails here.

No time is measured. The calls of a row go on only once all of them have begun: those that are made one after the other
never come that far, and a call that no row has is named.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from botocore.client import BaseClient

from comfy_serverless.aws import sqs as sqs_module
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.handlers import authorizer, wiring
from comfy_serverless.jobs import declarations as declarations_module
from comfy_serverless.jobs import node_list as node_list_module
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.stored_request import MAX_IN_MESSAGE_BYTES
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.worker import journal as journal_module
from comfy_serverless.worker.journal import Journal
from comfy_serverless.worker.worker import Call, Outcome, Worker
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.version import NamedInput, Version
from tests.patience import PATIENCE_S
from tests.unit import named_world
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.fakes import WORKFLOW, FakeEngine, FakeInputs, files_in, made
from tests.unit.named_world import push
from tests.unit.named_world import run as run_named

Row = Sequence[str]


class Rows:
    """What may be asked of AWS, row by row: the calls of one row at the same time, the rows one after the other."""

    def __init__(self, *rows: Row) -> None:
        self._left = [Counter(row) for row in rows]
        self._waiting: Counter[str] = Counter()
        self._change = threading.Condition()
        self._number = 0
        self.problems: list[str] = []

    def begin(self, operation: str) -> None:
        """Let a call go on once all of its row have begun."""
        with self._change:
            row = self._left[self._number] if self._number < len(self._left) else Counter[str]()
            if not row[operation]:
                self.problems.append(f"{operation} is none of row {self._number}, of which {dict(+row)} are left")
                return
            number = self._number
            row[operation] -= 1
            if not +row:
                self._number += 1
                self._change.notify_all()
            elif not self._change.wait_for(lambda: self._number > number, timeout=PATIENCE_S):
                self.problems.append(f"{operation} is waited for before {dict(+row)}: they are one after the other")
                self._number = max(self._number, number + 1)
                self._change.notify_all()

    def check(self) -> None:
        """Fail unless all were made, as they should."""
        left = [dict(+row) for row in self._left[self._number :]]
        assert (self.problems, left) == ([], [])


@contextmanager
def in_rows(*rows: Row) -> Iterator[None]:
    """Hold all calls to these rows, from `with` to the end of the block."""
    expected = Rows(*rows)
    ask = BaseClient._make_api_call  # type: ignore[attr-defined]

    def begin(client: Any, operation: str, arguments: Any) -> Any:
        expected.begin(operation)
        answer = ask(client, operation, arguments)
        if operation == "PutObject" and "ChecksumSHA256" in arguments:
            answer["ChecksumSHA256"] = arguments["ChecksumSHA256"]  # S3 says that it has these bytes; moto does not
        return answer

    with patch.object(BaseClient, "_make_api_call", begin):
        yield
    expected.check()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    # On a machine that is busy with other things, what is known for a while and said now and then would be in the way.
    monkeypatch.setattr(sqs_module, "DEPTH_KNOWN_S", PATIENCE_S)
    monkeypatch.setattr(node_list_module, "_KNOWN_S", PATIENCE_S)
    monkeypatch.setattr(journal_module, "TICK_S", PATIENCE_S)
    monkeypatch.setattr(journal_module, "SIGN_OF_LIFE_S", PATIENCE_S)
    with api_world(monkeypatch, dispatch_parameter="/of/a/gpu/stack") as world:
        yield world


@pytest.fixture
def worker(api: ApiWorld) -> Iterator[Worker]:
    engine = FakeEngine(outputs=(made(),))
    made_worker = Worker(
        settings=api.services.settings, engine=engine, s3=api.services.s3, inputs=FakeInputs(), named=files_in(None)
    )
    yield made_worker
    made_worker.close()


def submit(api: ApiWorld, workflow: dict[str, Any] = WORKFLOW, headers: Mapping[str, str] | None = None) -> str:
    answer = api.request("POST", "/api/v2/jobs", body={"workflow": workflow}, headers=headers)
    assert answer.status == 201, answer.text
    return str(answer.json["id"])


def run(api: ApiWorld, worker: Worker) -> Outcome:
    """What `generate` does with the message that waits."""
    (message,) = api.messages()
    job = JobMessage.parse(json.dumps(message))
    assert job is not None
    journal = Journal(api.services.jobs, api.services.workers, api.services.care.webhook_queue)
    with in_rows(*TO_EXECUTION, *TO_END):
        outcome = journal.run(worker, job, Call(is_heard=False))
    assert isinstance(outcome, Outcome)
    outcome.release()
    return outcome


#: From a request to the message: the request to S3 beside the job and its idempotency key to the table, then the queue.
TO_MESSAGE = (("PutObject", "TransactWriteItems"), ("SendMessage",))
#: Then the answer waits for one more, beside which the job may be running: the job is marked as sent.
TO_ANSWER = (("UpdateItem",),)
#: From the message to ComfyUI: whose job is it, and has it run before?
TO_EXECUTION = (("UpdateItem", "GetObject"),)
#: The same of one that comes to a worker itself, and is in no table: is there a `result.json`?
ALONE = (("GetObject",),)
#: From its last output to the end: the output beside its thumbnail, then `result.json`.
TO_RESULT = (("PutObject", "PutObject"), ("PutObject",))
#: From the last output to the end: the output beside its thumbnail, `result.json` beside the outputs in the table, the
#: end with its sums.
TO_END = (("PutObject", "PutObject"), ("PutObject", "BatchWriteItem"), ("TransactWriteItems",))


def test_a_job_waits_for_three_calls_before_it_executes_and_for_three_after(api: ApiWorld, worker: Worker) -> None:
    submit(api)
    api.messages()
    with in_rows(*TO_MESSAGE, *TO_ANSWER):
        job_id = submit(api, headers={"Idempotency-Key": "once"})
    assert run(api, worker).job.status is JobStatus.SUCCEEDED
    with in_rows(("Query",)):
        job = api.request("GET", f"/api/v2/jobs/{job_id}").json
    assert (job["status"], len(job["outputs"])) == ("succeeded", 1)
    with in_rows(("Query",)):
        assert "succeeded" in api.request("GET", f"/api/v2/jobs/{job_id}/events").text


def test_a_run_of_a_named_workflow_waits_for_one_read_more(api: ApiWorld) -> None:
    """The heads of the owner and of the operator, in one call; the version was read before."""
    assert push(api).status == 201
    for number in (1, 2):
        assert run_named(api, {"color": number}).status == 201
    with in_rows(("BatchGetItem",), *TO_MESSAGE, *TO_ANSWER):
        assert run_named(api, {"color": 3}).status == 201
    with in_rows(("BatchGetItem",), *TO_MESSAGE, *TO_ANSWER):
        assert run_named(api, {"color": 3}, query="version=1&sticky=customer-7").status == 201
    with in_rows(("BatchGetItem",)):
        assert run_named(api, {"colour": 3}).status == 422, "what is refused has written nothing"


def test_what_a_process_of_the_api_does_not_know_yet_costs_two_more(api: ApiWorld) -> None:
    """Where jobs go, once a minute; then, at the same time, whether there is room, and what nodes there are."""
    with in_rows(("GetParameters",), ("GetQueueAttributes", "GetObject"), *TO_MESSAGE, *TO_ANSWER):
        submit(api)


def test_a_run_of_a_named_workflow_costs_one_read_more_than_a_job(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations_module, "_NOT_KNOWN_S", PATIENCE_S)
    assert named_world.push(api).status == 201
    assert named_world.run(api).status == 201
    for headers in ({}, {"idempotency-key": "once"}):
        with in_rows(("BatchGetItem",), *TO_MESSAGE, *TO_ANSWER):
            assert named_world.run(api, {"color": 5}, headers=headers).status == 201


def test_a_worker_that_is_given_a_name_asks_once_and_reads_a_version_once(api: ApiWorld) -> None:
    """Before ComfyUI may begin: what the name means, and, once in the process, the version's document."""
    colour = NamedInput(name="color", targets=("1.color",), kind=InputKind.INTEGER)
    api.services.workflows.push(Version(name="poster", number=0, owner="", graph=named_world.GRAPH, inputs=(colour,)))
    names = Finder(api.services.workflows, None, nobody_declares)
    worker = Worker(
        settings=api.services.settings, engine=FakeEngine(), s3=api.services.s3, inputs=FakeInputs(), named=names
    )
    asked, read = (("BatchGetItem",),), (("GetObject",),)
    for number, rows in enumerate(((*asked, *read), asked, asked)):
        sent = SentRequest(payload={"workflow": "poster", "inputs": {"color": 5}}, default_id=f"named-{number}")
        with in_rows(*ALONE, *rows, *TO_RESULT):
            outcome = worker.run(sent, Call())
        assert outcome.job.status is JobStatus.SUCCEEDED
        outcome.release()
    worker.close()


def test_whose_key_it_is_costs_one_call_a_minute(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "keys", lambda: api.services.keys)
    key = api.services.keys.create("ci", owner="team").text
    with in_rows(("GetItem",)):
        authorizer.handler({"headers": {"authorization": f"Bearer {key}"}}, None)
    with in_rows(("GetItem",), ("GetItem",)):  # it may be an admin's
        authorizer.handler({"headers": {"authorization": "Bearer some-key"}}, None)


def test_a_request_that_is_too_large_for_a_message_costs_the_worker_one_call_more(
    api: ApiWorld, worker: Worker
) -> None:
    long = {**WORKFLOW, "5": {"class_type": "CLIPTextEncode", "inputs": {"text": "x" * MAX_IN_MESSAGE_BYTES}}}
    submit(api)
    api.messages()
    with in_rows(*TO_MESSAGE, *TO_ANSWER):
        submit(api, long)
    (message,) = api.messages()
    assert "content" not in message
    job = JobMessage.parse(json.dumps(message))
    assert job is not None
    journal = Journal(api.services.jobs, api.services.workers, api.services.care.webhook_queue)
    with in_rows(*TO_EXECUTION, ("GetObject",), *TO_END):
        outcome = journal.run(worker, job, Call(is_heard=False))
    assert isinstance(outcome, Outcome)
    assert outcome.job.status is JobStatus.SUCCEEDED
    outcome.release()


def test_a_list_with_all_that_it_shows_waits_for_two_calls(api: ApiWorld, worker: Worker) -> None:
    api.messages()
    submit(api)
    assert run(api, worker).job.status is JobStatus.SUCCEEDED
    for query in ("/api/v2/jobs?expand=outputs,progress,error", "/api/v2/outputs", "/api/v2/outputs?type=image"):
        with in_rows(("Query",), ("BatchGetItem",)):
            page = api.request("GET", query).json
        assert len(page.get("jobs", page.get("outputs"))) == 1
    with in_rows(("Query",)):
        assert len(api.request("GET", "/api/v2/jobs").json["jobs"]) == 1
