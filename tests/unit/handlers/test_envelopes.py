"""Every envelope of AWS, at every function that takes events: what is inside is done, or it is said what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.handlers import again, generate, ingest, wiring, wiring_ingest, wiring_worker
from comfy_serverless.handlers.envelopes import Letter, UnknownEvent, contents_of
from comfy_serverless.handlers.events import recognise
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.worker.replies import Replies
from tests.unit import batch_world
from tests.unit.envelope_samples import DROPPED, NOTHING, STRANGE, died, from_sns, notification, s3_notification
from tests.unit.event_samples import answer, sqs_event
from tests.unit.fakes import IN, WORKFLOW, World
from tests.unit.handlers.test_again import Context
from tests.unit.jobs_table import aws

Worlds = Callable[..., World]
KEY = "jobs/über 1+1.json"


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ingest` without a queue that would hold its messages back."""
    monkeypatch.setattr(again, "hold", lambda event, left_s: None)
    monkeypatch.setattr(again, "put_off", lambda event, given_back: given_back)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch, door: None) -> None:
    """`ingest`, which must have nothing to do."""
    behind = SimpleNamespace(drop=lambda dropped: pytest.fail(f"{dropped} is dropped"), keeper=None)
    monkeypatch.setattr(wiring_ingest, "ingest", lambda: behind)


@pytest.fixture
def ingesting(monkeypatch: pytest.MonkeyPatch, door: None) -> Iterator[batch_world.World]:
    """`ingest`, and everything behind it; its bucket has the name that the samples give."""
    monkeypatch.setattr(batch_world, "DROPS", IN)
    with aws() as session:
        here = batch_world.World(session)
        monkeypatch.setattr(wiring_ingest, "ingest", lambda: here.drops)
        yield here


def take(event: object) -> Any:
    return ingest.handler(event, Context())  # type: ignore[arg-type]


# What is inside of each is run, whatever is around it.


@pytest.mark.parametrize("envelope", DROPPED)
def test_every_envelope_names_the_same_object(envelope: str) -> None:
    (plain,) = contents_of(s3_notification(KEY.replace("+", "%2B")))
    key = KEY if "EventBridge" in envelope else KEY.replace("+", "%2B")
    assert contents_of(DROPPED[envelope](key)) == [plain]
    assert isinstance(plain, DroppedObject)
    assert plain.address == (IN, KEY)


@pytest.mark.parametrize("envelope", DROPPED)
@pytest.mark.parametrize("way", ["itself", "a queue"])
def test_the_worker_runs_an_object_however_it_hears_of_it(world: Worlds, envelope: str, way: str) -> None:
    here = world()
    here.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(WORKFLOW))
    event = DROPPED[envelope]("jobs/w.json")
    told = answer(here, sqs_event(event) if way == "a queue" else event)
    assert len(here.engine.runs) == 1
    if way == "a queue":
        assert told == {"batchItemFailures": []}
    else:
        assert [job["status"] for job in told["jobs"]] == ["succeeded"]


@pytest.mark.parametrize("envelope", DROPPED)
@pytest.mark.parametrize("way", ["itself", "a queue"])
def test_ingest_makes_a_job_of_an_object_however_it_hears_of_it(
    ingesting: batch_world.World, envelope: str, way: str
) -> None:
    ingesting.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(batch_world.GRAPH))
    event = DROPPED[envelope]("jobs/w.json")
    told = take(sqs_event(event) if way == "a queue" else event)
    expected: dict[str, object] = {"batchItemFailures": []} if way == "a queue" else {"drops": 1}
    assert told == expected
    assert len(ingesting.messages("jobs")) == 1


@pytest.mark.parametrize(
    "envelope",
    [lambda body: body, notification, from_sns, died, json.dumps],
    ids=["nothing", "SNS in a queue", "SNS", "a record", "a text"],
)
def test_a_request_is_run_whatever_is_around_it(world: Worlds, envelope: Callable[[object], object]) -> None:
    here = world()
    event = sqs_event(envelope({"job_id": "a", "workflow": WORKFLOW}))
    assert answer(here, event) == {"batchItemFailures": []}
    assert here.result("a")["status"] == "succeeded"


def test_a_notification_that_comes_twice_is_one_job(world: Worlds) -> None:
    here = world()
    for _ in range(2):  # SQS gives each message an id of its own
        event = sqs_event(notification({"workflow": WORKFLOW}))
        event["Records"][0]["messageId"] = "another"
        answer(here, event)
    assert answer(here, from_sns({"workflow": WORKFLOW}))["jobs"][0]["id"].startswith("sns-")
    assert len(here.engine.runs) == 1


# What asks for nothing is taken silently.


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("event", NOTHING)
def test_what_asks_for_nothing_is_taken_in_silence(world: Worlds, event: str) -> None:
    here = world()
    assert answer(here, NOTHING[event]) == {"jobs": []}
    assert answer(here, sqs_event(NOTHING[event])) == {"batchItemFailures": []}
    assert take(NOTHING[event]) == {"drops": 0}
    assert take(sqs_event(NOTHING[event])) == {"batchItemFailures": []}
    assert here.stored_keys() == set()


# What is something else is told, and never thrown away.


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("event", STRANGE)
def test_an_event_of_something_else_is_refused_by_its_name(world: Worlds, event: str) -> None:
    strange, word = STRANGE[event]
    for taken_by in (lambda event: answer(world(), event), take):
        with pytest.raises(InvalidRequest) as caught:
            taken_by(strange)
        assert word in caught.value.message
        assert "Taken are job requests" in caught.value.message


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("event", STRANGE)
def test_a_message_that_nobody_can_read_stays_and_costs_the_others_nothing(world: Worlds, event: str) -> None:
    here = world()
    messages = sqs_event(STRANGE[event][0], {"job_id": "good", "workflow": WORKFLOW})
    assert answer(here, messages) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert here.result("good")["status"] == "succeeded"
    assert take(sqs_event(STRANGE[event][0])) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


def test_a_message_of_something_else_among_jobs_of_the_api_costs_neither(
    world: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, ran = world(), list[str]()
    journal = SimpleNamespace(run=lambda worker, job, call: ran.append(job.job_id))
    made = {"journal": journal, "worker": here.worker, "node_list": None}
    made |= {"replies": Replies(here.s3, here.settings), "meter": SimpleNamespace(count=lambda outcomes: None)}
    for name, one in made.items():
        monkeypatch.setattr(wiring_worker, name, lambda one=one: one)
    monkeypatch.setattr(wiring, "settings", lambda: here.settings)
    monkeypatch.setattr(generate, "_put_off", lambda event, given_back: given_back)
    job = {"job": "of-the-api", "request": "s3://assets/requests/of-the-api.json"}
    event = sqs_event(STRANGE["Kinesis"][0], job, {"job_id": "good", "workflow": WORKFLOW})
    assert generate.handler(event, Context()) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert ran == ["of-the-api"]
    assert here.result("good")["status"] == "succeeded"


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    "event",
    [{}, {"Records": []}, {"job_id": "a", "workflow": WORKFLOW}, {"batch": 1}, [], "text", None],
    ids=lambda event: json.dumps(event)[:30],
)
def test_ingest_says_what_it_does_not_take(event: object) -> None:
    with pytest.raises(InvalidRequest, match="neither an event of S3 nor an order of our own"):
        take(event)
    assert take(sqs_event(event)) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


@pytest.mark.parametrize(
    "broken", [None, {"bucket": {"name": None}, "object": {"key": "a"}}, {"bucket": {"name": IN}, "object": {"key": 5}}]
)
def test_a_broken_record_of_s3_is_told_and_costs_the_others_nothing(
    ingesting: batch_world.World, broken: object
) -> None:
    ingesting.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(batch_world.GRAPH))
    event = s3_notification("jobs/w.json")
    event["Records"].insert(0, {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": broken})
    assert take(sqs_event(event)) == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert len(ingesting.messages("jobs")) == 1


# What each event is called is decided by it alone.


def name_of(**item: str | None) -> str:
    (dropped,) = contents_of(s3_notification("jobs/a.json", **item))
    assert isinstance(dropped, DroppedObject)
    return dropped.default_id


@pytest.mark.parametrize(
    "item",
    [{"sequencer": "1"}, {"versionId": "v", "sequencer": "1"}, {"versionId": "null"}, {"sequencer": None}],
    ids=str,
)
def test_a_delivery_that_comes_again_is_the_same_job(item: dict[str, str | None]) -> None:
    assert name_of(**item) == name_of(**item)


def test_each_writing_of_a_key_is_a_job_of_its_own_also_of_the_same_content() -> None:
    names = {
        name_of(sequencer="1"),
        name_of(sequencer="2"),
        name_of(versionId="v", sequencer="1"),
        name_of(versionId="w", sequencer="1"),
    }
    assert len(names) == 4
    assert name_of(versionId="null", sequencer="1") == name_of(sequencer="1"), "no versions are kept"


def test_without_a_number_the_time_tells_one_writing_from_another_of_the_same_content() -> None:
    def told(time: str) -> str:
        event = s3_notification("jobs/a.json", sequencer=None)
        event["Records"][0]["eventTime"] = time
        (dropped,) = contents_of(event)
        assert isinstance(dropped, DroppedObject)
        return dropped.default_id

    assert told("2026-11-29T12:00:00.000Z") == told("2026-11-29T12:00:00.000Z") != told("2026-11-29T12:00:00.001Z")


@pytest.mark.parametrize(
    "text", ["{not json", "", "null", "[1, 2]", '"a word"', "7", "[" * 100_000, "1" * 5000, "\ufeff{}"]
)
def test_what_is_no_event_is_handed_on_as_it_came(text: str) -> None:
    (letter,) = contents_of(text)
    assert isinstance(letter, Letter)
    assert letter.payload == text


def test_every_refusal_is_one_of_the_callers_doing() -> None:
    for event, _ in STRANGE.values():
        contents = contents_of(event)
        assert [type(content) for content in contents] == [UnknownEvent]
        with pytest.raises(ComfyError) as caught:
            recognise(event).answer([], None)  # type: ignore[arg-type]
        assert not caught.value.retryable
