"""What a trace tells of a job: one tree from the request to each upload, through every door, and nothing secret."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from comfy_serverless import tracing
from comfy_serverless.connector.facts import NodeSpan, Timings
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.fetch.web import Network
from comfy_serverless.handlers.events import recognise
from comfy_serverless.jobs.links import Links
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.settings import Settings
from comfy_serverless.webhooks.calls import WebhookCaller
from comfy_serverless.worker.journal import Journal
from comfy_serverless.worker.worker import Call, Outcome, Worker
from tests.unit.api_world import ApiWorld, api_world
from tests.unit.batch_world import World as BatchWorld
from tests.unit.batch_world import manifest
from tests.unit.fakes import WORKFLOW, FakeEngine, FakeExecution, FakeInputs, files_in, made
from tests.unit.jobs_table import aws
from tests.unit.traced_world import Kept, kept
from tests.unit.tracing.test_trace_context import PARENT, SPAN_ID, TRACE_ID

HEADERS = {"traceparent": PARENT, "tracestate": "vendor=1"}
PASSED_ON = tracing.Trace(PARENT, "vendor=1")
SECRET = "hunter2"


class TimedEngine(FakeEngine):
    """Says when its nodes ran, also when it fails."""

    def run(self, *arguments: Any, **options: Any) -> FakeExecution:
        begun = time.time()
        ran = (NodeSpan("3", begun, begun + 0.5), NodeSpan("9", begun + 0.5, begun + 0.6))
        timings = Timings(1, 600, 601, node_spans=ran)
        try:
            return replace(super().run(*arguments, **options), timings=timings)
        except NodeExecutionError as error:
            error.timings = timings
            raise


@pytest.fixture
def spans() -> Iterator[Kept]:
    with kept() as spans:
        yield spans


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def work(api: ApiWorld, engine: FakeEngine | None = None) -> list[JobMessage]:
    """What `generate` does with the messages that wait."""
    jobs = [JobMessage.parse(json.dumps(message)) for message in api.messages()]
    settings, s3 = api.services.settings, api.s3
    made = Worker(settings=settings, engine=engine or TimedEngine(), s3=s3, inputs=FakeInputs(), named=files_in(None))
    with closing(made) as worker:
        journal = Journal(api.services.jobs, api.services.workers, api.services.care.webhook_queue)
        for job in jobs:
            assert job is not None
            outcome = journal.run(worker, job, Call(is_heard=False))
            assert isinstance(outcome, Outcome)
            outcome.release()
    return [job for job in jobs if job is not None]


def call_webhooks(api: ApiWorld) -> list[dict[str, str]]:
    """The headers of the calls that are due."""
    sent: list[dict[str, str]] = []

    def post(_url: str, *, headers: dict[str, str], **_: Any) -> int:
        sent.append(headers)
        return 200

    caller = WebhookCaller(api.services.jobs, Links(api.s3, 60), Network())
    with patch("comfy_serverless.webhooks.calls.post", post):
        for message in api.messages(api.webhook_queue_url):
            caller.call(message["job"])
    return sent


def submit(api: ApiWorld, **headers: str) -> str:
    graph = json.loads(json.dumps(WORKFLOW))
    graph["3"]["inputs"]["text"] = f"a prompt with {SECRET}"
    graph["9"]["inputs"]["filename_prefix"] = SECRET
    body = {
        "workflow": graph,
        "webhook_url": f"https://receiver.example.com/hook?token={SECRET}",
        "webhook_secret": "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
        "metadata": {"label": SECRET},
        "extra_data": {"api_key_comfy_org": SECRET},
    }
    with patch("comfy_serverless.api.submission.check_webhook"):
        answer = api.request("POST", "/api/v2/jobs", body=body, headers=headers)
    assert answer.status == 201, answer.text
    return str(answer.json["id"])


def test_a_jobs_spans_are_one_tree_from_the_callers_to_the_webhook(api: ApiWorld, spans: Kept) -> None:
    job_id = submit(api, **HEADERS)
    work(api)
    (headers,) = call_webhooks(api)
    request = spans.named("POST request")
    assert (request.context.trace_id, request.parent.span_id) == (int(TRACE_ID, 16), int(SPAN_ID, 16))
    assert spans.tree(request) == {
        "submit job": {
            "wait in queue": {},
            "run job": {
                "fetching": {},
                "wait for ComfyUI": {},
                "execute": {"KSampler": {}, "SaveImage": {}},
                "upload": {},
                "thumbnail": {},
                "finish delivery": {},
                "store result": {},
            },
            "call webhook": {},
        }
    }
    assert {span.context.trace_id for span in spans.all} == {int(TRACE_ID, 16)}
    kinds = {span.name: span.kind.name for span in spans.all}
    assert [kinds[name] for name in ("POST request", "submit job", "run job", "call webhook")] == [
        "SERVER",
        "PRODUCER",
        "CONSUMER",
        "CLIENT",
    ]
    run = spans.named("run job")
    assert (run.attributes or {})["comfy.job_id"] == job_id
    assert (run.attributes or {})["comfy.status"] == "succeeded"
    sampler = spans.named("KSampler")
    assert sampler.end_time - sampler.start_time == pytest.approx(0.5e9, abs=1e3)
    told = tracing.Trace.of(headers)
    assert told is not None
    assert (told.trace_id, told.span_id, told.tracestate) == (
        TRACE_ID,
        f"{spans.named('call webhook').context.span_id:016x}",
        "vendor=1",
    )


def test_no_span_tells_a_secret_a_prompt_a_name_or_a_link(api: ApiWorld, spans: Kept) -> None:
    submit(api)
    engine = TimedEngine(outputs=(made(f"{SECRET}.png"),), error=NodeExecutionError(f"the prompt {SECRET} is bad"))
    work(api, engine)
    call_webhooks(api)
    texts = spans.texts()
    assert len(spans.all) > 8
    for secret in (SECRET, "whsec_", "s3://", "https://", "receiver.example.com", "X-Amz-", "Result"):
        assert secret not in texts


def test_a_failed_job_says_so_by_its_code_with_the_nodes_that_ran(api: ApiWorld, spans: Kept) -> None:
    submit(api)
    work(api, TimedEngine(error=NodeExecutionError("no")))
    for name in ("run job", "execute"):
        span = spans.named(name)
        assert not span.status.is_ok
        assert (span.attributes or {})["error.type"] == "node_execution_error"
    assert set(spans.tree(spans.named("execute"))) == {"KSampler", "SaveImage"}


def test_who_only_looks_again_and_again_makes_no_spans(api: ApiWorld, spans: Kept) -> None:
    job_id = submit(api)
    before = len(spans.all)
    for path in ("", "/events", "/outputs"):
        api.request("GET", f"/api/v2/jobs/{job_id}{path}", headers=HEADERS)
    assert len(spans.all) == before


def test_off_the_callers_place_goes_through_to_the_webhook_unchanged(api: ApiWorld) -> None:
    submit(api, **HEADERS)
    (job,) = work(api)
    assert job.trace == PASSED_ON
    (headers,) = call_webhooks(api)
    assert tracing.Trace.of(headers) == PASSED_ON


def test_off_and_without_a_caller_in_a_trace_nothing_of_it_is_written(api: ApiWorld) -> None:
    job_id = submit(api)
    assert "traceparent" not in json.dumps(api.messages())
    item = api.services.table.get(f"job#{job_id}", "job")
    assert item is not None
    assert "trace" not in item
    state = api.services.jobs.read(job_id)
    assert state is not None
    assert state.message.trace is None


def test_a_job_that_is_sent_again_is_still_in_its_trace(api: ApiWorld) -> None:
    job_id = submit(api, **HEADERS)
    state = api.services.jobs.read(job_id)
    assert state is not None
    assert state.message.trace == PASSED_ON
    assert JobMessage.parse(state.message.to_text()) == state.message


@pytest.mark.parametrize("value", ["", "nonsense", "00-0-0-0", 7, None, {"a": 1}, "x" * 100_000])
def test_a_message_with_nonsense_for_a_trace_is_a_message_all_the_same(value: object) -> None:
    text = json.dumps({"job": "j", "request": "s3://bucket/key", "traceparent": value, "tracestate": value, "newer": 1})
    message = JobMessage.parse(text)
    assert message is not None
    assert message.trace is None
    assert message.others == {"newer": 1}


def test_each_line_of_a_batch_is_a_trace_of_its_own_that_names_its_batch(spans: Kept) -> None:
    with aws() as session:
        world = BatchWorld(session)
        batch = world.begin(manifest(3))
        world.read_all()
        messages = [JobMessage.parse(json.dumps(message)) for message in world.messages("batches")]
    lines = [span for span in spans.all if span.name == "submit line"]
    assert len({span.context.trace_id for span in lines}) == 3
    reading = spans.named("read manifest").context
    for span in lines:
        assert span.parent is None
        assert (span.attributes or {})["comfy.batch_id"] == batch.id
        assert [link.context.span_id for link in span.links] == [reading.span_id]
    places = {message.job_id: message.trace for message in messages if message is not None}
    for span in lines:
        trace = places[str((span.attributes or {})["comfy.job_id"])]
        assert trace is not None
        assert int(trace.span_id, 16) == span.context.span_id


def test_a_line_that_names_its_callers_place_continues_that_trace(spans: Kept) -> None:
    line = {"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}, "metadata": HEADERS}
    with aws() as session:
        world = BatchWorld(session)
        world.begin(json.dumps(line).encode())
        world.read_all()
        (message,) = world.messages("batches")
    assert message["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert spans.named("submit line").parent.span_id == int(SPAN_ID, 16)


HTTP = {"requestContext": {"http": {"method": "POST"}}, "headers": HEADERS, "body": "{}"}
BALANCED = {
    "requestContext": {"elb": {}},
    "httpMethod": "POST",
    "multiValueHeaders": {name: [value] for name, value in HEADERS.items()},
    "body": "{}",
}
QUEUED = {
    "messageId": "1",
    "eventSource": "aws:sqs",
    "body": json.dumps({"workflow": {}}),
    "messageAttributes": {name: {"dataType": "String", "stringValue": value} for name, value in HEADERS.items()},
}


@pytest.mark.parametrize(
    "event",
    [HTTP, BALANCED, {"Records": [QUEUED]}, {"workflow": {}, "metadata": HEADERS}],
    ids=["HTTP", "load balancer", "SQS", "payload"],
)
def test_every_door_of_the_worker_hears_where_its_caller_is(event: Any) -> None:
    (source,) = recognise(event).sources()
    assert source.trace == PASSED_ON


@pytest.mark.parametrize(
    "event",
    [
        {"requestContext": {"http": {"method": "POST"}}, "headers": "x", "body": "{}"},
        {"requestContext": {"elb": {}}, "httpMethod": "POST", "multiValueHeaders": {"traceparent": []}, "body": "{}"},
        {"Records": [{**QUEUED, "messageAttributes": {"traceparent": "x"}}]},
        {"Records": [{**QUEUED, "messageAttributes": ["x"]}]},
        {"workflow": {}, "metadata": [PARENT]},
        {"workflow": {}, "metadata": {"traceparent": 7}},
    ],
)
def test_nonsense_at_a_door_is_nobodys_place(event: Any) -> None:
    (source,) = recognise(event).sources()
    assert source.trace is None


def test_the_address_of_a_collector_is_one() -> None:
    assert Settings().otel_endpoint is None
    found = Settings.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert found.otel_endpoint == "http://127.0.0.1:4318"
