"""What a batch tells of its lines at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from comfy_serverless.batches import ranges as ranges_module
from comfy_serverless.batches.batch import BatchStatus
from comfy_serverless.batches.fates import fates
from comfy_serverless.batches.report import PART_FORM, next_id
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.jobs.document import JobError
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.settings import Settings
from tests.unit.batch_world import GRAPH, Clock, World, ended, manifest
from tests.unit.jobs_table import aws


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


def test_the_failed_lines_of_a_report_are_a_manifest_that_runs_them_again(world: World) -> None:
    batch = world.begin(manifest(20))
    world.read_all()
    world.work(failing=4)
    world.look(batch)
    failed = world.report(batch)[2]
    again = world.begin("\n".join(map(json.dumps, failed)).encode(), key="batches/again.jsonl")
    world.read_all()
    assert len(world.work(failing=5)) == 5
    world.look(again)
    summary, _, third = world.report(again)
    assert summary["statuses"] == {"succeeded": 4, "failed": 1}
    assert third[0]["job_id"].endswith("-again3")


def test_a_report_that_takes_longer_than_an_invocation_goes_on_where_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", 1000)
    batch = world.begin(manifest(120, bad=6) + b"\n" + manifest(12) + b"\n\n\n")
    world.read_all()
    assert len(world.work(failing=10)) == 120
    ranges = len(world.batches.ranges(batch.id))
    assert ranges > 10
    looks = 0
    while (found := world.batches.get(batch.id)) is not None and found.report is None:
        world.keeper.advance(batch.id, until=6.0, now=Clock())
        looks += 1
        told = sum(part.part_form == PART_FORM for part in world.batches.ranges(batch.id))
        assert told < ranges or world.report(batch)
    assert looks > 2
    summary, rows, failed = world.report(batch)
    assert (summary["lines"], summary["bad_lines"], summary["duplicates"]) == (138, 6, 12)
    assert summary["statuses"] == {"succeeded": 108, "failed": 12}
    first = {row["job_id"]: row["line"] for row in reversed(rows) if row["job_id"]}
    twice = [row for row in rows if row["duplicate_of"]]
    assert [int(row["line"]) for row in twice] == list(range(127, 139))
    assert all(row["duplicate_of"] == first[row["job_id"]] for row in twice)
    assert len(failed) == len({line["job_id"] for line in failed}) == 12


def test_half_of_a_character_is_a_bad_line_and_keeps_no_report_from_being_written(world: World) -> None:
    half = '{"workflow": {"1": {"class_type": "A", "inputs": {"text": "a fox \\ud83d"}}}}'
    whole = '{"workflow": {"1": {"class_type": "A", "inputs": {"text": "a fox \\ud83e\\udd8a"}}}}'
    label = '{"workflow": "a", "metadata": {"a": "\\udc00"}, "job_id": "mine"}'
    batch = world.begin("\n".join([half, whole, label]).encode() + b'\n{"workflow": "\xed\xa0\xbd"}')
    world.read_all()
    assert len(world.messages("batches")) == 1
    (state,) = world.open_jobs(batch)
    world.jobs.begin(state.id, run="run")
    assert world.jobs.finish(state.id, ended(state.id, None), run="run", webhook=False, places=())
    world.look(batch)
    summary, rows, _ = world.report(batch)
    assert (summary["bad_lines"], summary["statuses"]) == (3, {"succeeded": 1})
    assert all("character" in row["message"] for row in rows if row["status"] == "bad")


@pytest.mark.parametrize("length", [10, 55, 57, 58, 63, 64])
def test_a_failed_job_has_a_new_id_of_its_own_however_long_the_old_one_is(length: int) -> None:
    ids = [f"{'customer-with-a-very-long-name-and-a-number-'[: length - 2]:x<{length - 2}}{n}" for n in range(10, 30)]
    for _ in range(12):
        ids = [next_id(job_id) for job_id in ids]
        assert len(set(ids)) == 20
        assert all(len(job_id) <= 64 for job_id in ids)
    assert next_id("fox") == "fox-again2"
    assert next_id("fox-again2") == "fox-again3"
    assert next_id("fox-again") == "fox-again-again2"


def test_long_lines_are_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", 10**9)
    line = json.dumps({"workflow": GRAPH, "metadata": {}, "set": {"1.a": "x" * 3_000_000}}) + "\n"
    batch = world.begin(line.encode() * 7)
    parts = world.batches.ranges(batch.id)
    assert [
        len(chunk.lines)
        for part in parts
        for chunk in fates(world.s3, world.jobs, batch, part, reserved=Reserved.of(Settings()))
    ] == [3, 3, 1]


def test_a_report_holds_messages_as_they_were(world: World) -> None:
    batch = world.begin(manifest(2))
    world.read_all()
    message = 'a "quote", a comma,\na new line,\r\na \u2028 and \U0001f98a'
    for state in world.open_jobs(batch):
        world.jobs.begin(state.id, run="run")
        job = ended(state.id, JobError.of(NodeExecutionError(message)))
        assert world.jobs.finish(state.id, job, run="run", webhook=False, places=())
    world.look(batch)
    summary, rows, failed = world.report(batch)
    assert [row["message"] for row in rows] == [message] * 2
    assert [entry["message"] for entry in summary["first_failures"]] == [message] * 2
    assert len(failed) == 2


def test_an_empty_manifest_is_a_batch_that_is_over(world: World) -> None:
    for number, content in enumerate((b"", b"\n\n \r\n")):
        batch = world.begin(content, key=f"batches/empty{number}.jsonl")
        world.read_all()
        assert world.look(batch).status is BatchStatus.COMPLETED
        assert world.report(batch)[0]["lines"] == 0
