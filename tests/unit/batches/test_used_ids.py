"""A job id counts for one request: a line or a drop that asks for another thing under it fails, and says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Update
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.batch import Batch
from comfy_serverless.batches.fates import fates
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.errors import EngineCrashed
from comfy_serverless.jobs.document import JobError, JobStatus
from comfy_serverless.jobs.lines import lines_of
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.settings import Settings
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.table.job_item import JOB, job_pk
from comfy_serverless.table.jobs import JobStore
from tests.unit.batch_world import GRAPH, RESULTS, World, ended
from tests.unit.jobs_table import aws
from tests.unit.owned_batches import Batches, batches_world
from tests.unit.owned_batches import line as line_of_owner

USED = "has been used for another request"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    with batches_world(monkeypatch) as made:
        yield made


def line(width: int, *, job_id: str = "fox", **more: Any) -> str:
    return json.dumps({"job_id": job_id, "workflow": GRAPH, "set": {"1.width": width}, **more})


def through(world: World, *lines: str, key: str = "batches/many.jsonl") -> Batch:
    """A manifest of these lines that is read, run and reported."""
    batch = world.begin("\n".join(lines).encode(), key)
    world.read_all()
    world.work()
    return world.look(batch)


def rows_of(world: World, batch: Batch) -> list[tuple[str, str, str]]:
    _, rows, _ = world.report(batch)
    return [(row["status"], row["duplicate_of"], row["message"]) for row in rows]


def bad_text(world: World, batch: Batch) -> list[str]:
    body: bytes = world.s3.get_object(Bucket=RESULTS, Key=f"batches/{batch.id}.bad.jsonl")["Body"].read()
    return body.decode().splitlines()


@pytest.mark.parametrize("chunk", [1, 200], ids=["read apart", "read together"])
def test_lines_of_one_id_that_ask_for_other_things_are_told_which_line_has_it(
    world: World, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("comfy_serverless.batches.reading.CHUNK_LINES", chunk)
    batch = through(world, line(1), line(2), line(1, metadata={"of": "today"}), "", line(3), line(4, job_id="hare"))
    summary, rows, failed = world.report(batch)
    assert [(row["line"], row["status"], row["duplicate_of"]) for row in rows] == [
        ("1", "succeeded", ""),
        ("2", "bad", ""),
        ("3", "succeeded", "1"),
        ("5", "bad", ""),
        ("6", "succeeded", ""),
    ]
    assert {(row["code"], row["result"], row["outputs"]) for row in rows if row["status"] == "bad"} == {
        ("invalid_request", "", "")
    }
    told = [row["message"] for row in rows if row["status"] == "bad"]
    assert all(USED in message and message.endswith("It is that of line 1.") for message in told)
    assert [one["message"] for one in summary["first_failures"]] == told
    assert (summary["statuses"], summary["bad_lines"], summary["duplicates"]) == ({"succeeded": 2}, 2, 1)
    assert failed == []
    assert bad_text(world, batch) == [line(2), line(3)]
    assert [(one.line, USED in one.message) for one in world.batches.bad_lines(batch.id)] == [(2, True), (5, True)]
    progress = world.batches.progress(batch)
    assert (progress.bad, progress.duplicates) == (2, 1)


def test_lines_of_two_manifests_are_told_as_well(world: World) -> None:
    through(world, line(1), key="batches/first.jsonl")
    second = through(world, line(2), line(1), key="batches/second.jsonl")
    (bad, _, message), (same, _, _) = rows_of(world, second)
    assert (bad, same) == ("bad", "succeeded")
    assert USED in message
    assert "of line" not in message, "no line of this manifest has it"
    waiting = world.jobs.read("fox")
    assert waiting is not None
    assert second.id not in waiting.batches, "and the job of the other is left as it is"


def test_a_line_that_waits_is_not_joined_by_one_that_asks_for_another_thing(world: World) -> None:
    world.begin(line(1).encode(), "batches/first.jsonl")
    world.read_all()
    second = world.begin(line(2).encode(), "batches/second.jsonl")
    world.read_all()
    standing = world.jobs.read("fox")
    assert standing is not None
    assert second.id not in standing.batches
    assert len(world.messages("batches")) == 1


def test_a_line_that_is_read_again_is_the_same_line(world: World) -> None:
    batch = world.begin("\n".join([line(1), line(2)]).encode())
    world.read_all()
    for is_begun in (False, True):
        if is_begun:
            world.work()
        lines = list(lines_of(["\n".join([line(1), line(2)]).encode()]))
        (bad,) = world.keeper.submit(batch, lines, draws=None)
        assert bad.offset == lines[1].offset


def test_the_same_line_is_never_told_so_whatever_another_release_makes_of_it(world: World) -> None:
    batch = world.begin(line(1).encode())
    world.read_all()
    world.table.update(
        Update(
            pk=job_pk("fox"), sk=JOB, assign={"asked_sha256": "of another release"}, condition="attribute_exists(pk)"
        )
    )
    lines = list(lines_of([line(1).encode()]))
    assert world.keeper.submit(batch, lines, draws=None) == []
    world.work()
    assert world.keeper.submit(batch, lines, draws=None) == []
    assert rows_of(world, world.look(batch)) == [("succeeded", "", "")]


def test_jobs_of_older_releases_do_not_say_what_they_were_asked_and_are_told_as_before(world: World) -> None:
    world.begin(line(1).encode(), "batches/first.jsonl")
    world.read_all()
    change = Update(pk=job_pk("fox"), sk=JOB, assign={}, remove=["asked_sha256"], condition="attribute_exists(pk)")
    world.table.update(change)
    second = through(world, line(2), key="batches/second.jsonl")
    assert rows_of(world, second) == [("succeeded", "", "")]


@pytest.mark.parametrize("first_is", ["drop", "line"])
def test_a_drop_and_a_line_are_told_and_the_same_request_is_one_job(world: World, first_is: str) -> None:
    if first_is == "line":
        through(world, line(1), key="batches/first.jsonl")
    dropped = {width: world.drop(f"jobs/{width}.json", line(width).encode()) for width in (1, 2)}
    for width in (1, 2, 2):  # events come twice
        world.drops.drop(dropped[width])
    other = world.jobs.read(dropped[2].default_id)
    assert other is not None
    assert other.status is JobStatus.FAILED
    error = other.document().error
    assert error is not None
    assert (error.code, USED in error.message) == ("invalid_request", True)
    assert other.labels["source"] == str(dropped[2].address)
    assert world.jobs.read(dropped[1].default_id) is None, "which is the job that it names"
    if first_is == "drop":
        second = world.begin("\n".join([line(3), line(1)]).encode(), "batches/second.jsonl")
        world.read_all()
        (told, same) = (
            fate
            for part in world.batches.ranges(second.id)
            for chunk in fates(world.s3, world.jobs, second, part, reserved=Reserved.of(Settings()))
            for fate in chunk.lines
        )
        assert USED in told.problem
        assert same.state is not None


def test_a_drop_under_the_id_of_a_job_that_is_forgotten_is_a_job(world: World) -> None:
    """Thirty days after it was submitted, and before DynamoDB has deleted it: nothing was done, and nothing said."""
    world.drops.drop(world.drop("jobs/1.json", line(1).encode()))
    assert len(world.messages("jobs")) == 1
    old = world.table.get(job_pk("fox"), JOB)
    assert old is not None
    world.table.put({**old, "expires": 1})
    world.drops.drop(world.drop("jobs/2.json", line(2).encode()))
    assert [message["job"] for message in world.messages("jobs")] == ["fox"]
    state = world.jobs.read("fox")
    assert state is not None
    assert state.labels["source"].endswith("jobs/2.json")


@pytest.mark.parametrize(("width", "error", "is_run"), [(1, None, True), (2, None, False), (2, "retryable", True)])
def test_a_drop_is_not_fulfilled_by_the_result_of_another_request_whose_job_is_forgotten(
    world: World, width: int, error: str | None, is_run: bool
) -> None:
    """Results stay as long as the bucket keeps them. A worker answers with one that stands, and warns of it."""
    world.drops.drop(world.drop("jobs/1.json", line(1).encode()))
    (message,) = world.messages("jobs")
    asked = JobMessage(job_id="fox", address=S3Address.parse(message["request"]))
    digest = asked.read(s3=world.s3, settings=Settings()).digest()
    failure = JobError.of(EngineCrashed("gone")) if error else None
    stands = ended("fox", failure).model_copy(update={"request_sha256": digest})
    world.s3.put_object(Bucket=RESULTS, Key="fox/result.json", Body=stands.to_stored_bytes())
    old = world.table.get(job_pk("fox"), JOB)
    assert old is not None
    world.table.put({**old, "expires": 1})
    dropped = world.drop("jobs/2.json", line(width).encode())
    for _ in range(2):  # its event comes twice
        world.drops.drop(dropped)
    assert {message["job"] for message in world.messages("jobs")} == ({"fox"} if is_run else set())
    other = world.jobs.read(dropped.default_id)
    assert (other is None) is is_run
    if other is not None:
        told = other.document().error
        assert told is not None
        assert (other.status, USED in told.message) == (JobStatus.FAILED, True)


def test_a_drop_under_the_id_of_another_owner_has_an_outcome_of_its_own(world: World) -> None:
    world.drops.drop(world.drop("jobs/1.json", line(1).encode()))
    theirs = Update(pk=job_pk("fox"), sk=JOB, assign={"owner": "rivals"}, condition="attribute_exists(pk)")
    world.table.update(theirs)
    dropped = world.drop("jobs/2.json", line(1).encode())
    world.drops.drop(dropped)
    other = world.jobs.read(dropped.default_id)
    assert other is not None
    error = other.document().error
    assert error is not None
    assert "is taken" in error.message


def test_a_refused_line_is_told_as_well(world: World) -> None:
    through(world, line(1), key="batches/first.jsonl")
    second = through(world, line(2, inputs={"1.image": "s3://theirs/fox.png"}), key="batches/second.jsonl")
    ((status, _, message),) = rows_of(world, second)
    assert (status, USED in message) == ("bad", True)


def test_lines_with_random_seeds_that_are_equal_are_one_job_under_one_id(world: World) -> None:
    sampler = {**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": -1}}}
    both = [json.dumps({"job_id": "fox", "workflow": sampler})] * 2
    assert rows_of(world, through(world, *both)) == [("succeeded", "", ""), ("succeeded", "1", "")]


# Over the API.


def test_lines_of_an_owner_are_checked_for_it_and_told_if_they_are_sent_all_the_same(owned: Batches) -> None:
    lines = [line_of_owner(1, job_id="fox"), line_of_owner(2, job_id="fox"), line_of_owner(1, job_id="fox")]
    refused = owned.post({"name": "many", "lines": lines})
    assert refused.code == "invalid_request"
    assert [one["field"] for one in refused.json["error"]["details"]["errors"]] == ["lines.2"]
    assert "that of line 1" in refused.text
    owned.post({"name": "many", "lines": lines, "force": True})
    owned.follow_orders()
    owned.work()
    owned.look("many")
    done = owned.get("many")
    assert (done["succeeded"], done["bad"], done["duplicates"]) == (1, 1, 1)
    assert USED in done["first_failures"][0]["message"]


def test_generate_and_a_line_are_one_job_if_they_ask_for_the_same(owned: Batches) -> None:
    body = {**line_of_owner(1), "wait_s": 0}
    assert owned.request("POST", "/generate", body={**body, "job_id": "fox"}, owner="team").status == 202
    owned.post(
        {"name": "many", "lines": [line_of_owner(1, job_id="fox"), line_of_owner(2, job_id="fox")], "force": True}
    )
    owned.follow_orders()
    progress = owned.get("many")
    assert (progress["queued"], progress["bad"]) == (1, 1)


class Died(Exception):
    """The process has ended here."""


def die_once(patch: pytest.MonkeyPatch, owner: Any, name: str, *, first: str = "") -> None:
    """Let a method end the process the next time it is called; `first` is done of it before."""
    whole, before = getattr(owner, name), getattr(owner, first) if first else None

    def dying(self: Any, *given: Any, **named: Any) -> Any:
        patch.setattr(owner, name, whole)
        if before is not None:
            before(self, given[0], given[-1])
        raise Died

    patch.setattr(owner, name, dying)


@pytest.mark.parametrize(
    ("dies_in", "name", "first"),
    [
        (Queues, "send_many", ""),
        (BatchStore, "mark_bad", ""),
        (BatchStore, "mark_read", "mark_bad"),
        (BatchStore, "count_bad", ""),
    ],
    ids=["before any is sent", "before the line is bad", "before the range is read", "before it is counted"],
)
def test_a_reader_that_dies_after_it_has_refused_a_line_is_followed_by_one_that_says_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, dies_in: Any, name: str, first: str
) -> None:
    through(world, line(1), key="batches/first.jsonl")
    second = world.begin("\n".join([line(2), line(3, job_id="hare")]).encode(), "batches/second.jsonl")
    (order,) = world.messages("manifests")
    die_once(monkeypatch, dies_in, name, first=first)
    with pytest.raises(Died):
        world.keeper.read_or_pass_on(order["batch"], order["start"], until=float("inf"))
    world.keeper.read_or_pass_on(order["batch"], order["start"], until=float("inf"))  # the queue's message comes again
    assert world.work() == ["hare"], "and the job that has the id is not run again"
    ended = world.look(second)
    (bad, _, message), hare = rows_of(world, ended)
    assert (bad, USED in message) == ("bad", True)
    assert hare == ("succeeded", "", "")
    assert [(one.line, USED in one.message) for one in world.batches.bad_lines(second.id)] == [(1, True)]
    summary, _, _ = world.report(ended)
    assert (summary["lines"], summary["bad_lines"]) == (2, 1)


@pytest.mark.parametrize(
    ("dies_in", "name"),
    [(JobStore, "submit"), (ResultFile, "write"), (JobStore, "refuse")],
    ids=["before its job is there", "before its result", "before its end"],
)
def test_a_drop_that_is_refused_has_one_end_wherever_the_process_dies(
    world: World, monkeypatch: pytest.MonkeyPatch, dies_in: Any, name: str
) -> None:
    world.drops.drop(world.drop("jobs/1.json", line(1).encode()))
    (sent,) = world.messages("jobs")
    dropped = world.drop("jobs/2.json", line(2).encode())
    die_once(monkeypatch, dies_in, name)
    with pytest.raises(Died):
        world.drops.drop(dropped)
    for _ in range(2):  # its event comes again, and once more
        world.drops.drop(dropped)
        other = world.jobs.read(dropped.default_id)
        assert other is not None
        document = other.document()
        assert document.error is not None
        assert (other.status, USED in document.error.message, other.runs) == (JobStatus.FAILED, True, 0)
        stored = world.s3.get_object(Bucket=RESULTS, Key=f"{dropped.default_id}/result.json")["Body"].read()
        assert json.loads(stored)["error"]["code"] == "invalid_request"
    assert world.messages("jobs") == [], "nothing of it is run"
    standing = world.jobs.read("fox")
    assert standing is not None
    assert (standing.status, sent["job"]) == (JobStatus.QUEUED, "fox")
