"""A line that asks for something random is a job of its own each time; any other is the same job as ever."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches import ranges as ranges_module
from comfy_serverless.batches import reading as reading_module
from comfy_serverless.batches.batch import BatchStatus
from comfy_serverless.errors import ComfyError, NodeExecutionError
from comfy_serverless.graph.workflow import draw_seeds
from comfy_serverless.jobs.document import JobError
from comfy_serverless.jobs.line_ids import asks_for_chance
from comfy_serverless.jobs.lines import lines_of
from comfy_serverless.jobs.request import JOB_ID_PATTERN, JobRequest
from comfy_serverless.jobs.stored_request import request_at, request_of
from comfy_serverless.jobs.workflow_source import graph_of
from comfy_serverless.settings import Settings
from tests.unit.batch_world import DROPS, World, ended, job_of
from tests.unit.fakes import files_in
from tests.unit.jobs_table import aws

WORKFLOWS = Path(__file__).parents[3] / "workflows"
NO_CLIENT: Any = None


def sampler(seed: object, name: str = "seed") -> dict[str, Any]:
    return {"3": {"class_type": "KSampler", "inputs": {name: seed, "steps": 1}, "_meta": {"title": "My Sampler"}}}


RANDOM: dict[str, dict[str, Any]] = {
    "set by class": {"workflow": "text_to_image", "set": {"KSampler.seed": -1}},
    "set by id": {"workflow": sampler(1), "set": {"3.seed": -1}},
    "set by title": {"workflow": sampler(1), "set": {"My Sampler.seed": -1}},
    "set as text": {"workflow": sampler(1), "set": {"3.seed": "-1"}},
    "set as another number": {"workflow": sampler(1), "set": {"3.seed": -1.0}},
    "set over a drawn one": {"workflow": sampler(-1), "set": {"3.steps": 5}},
    "in the graph": {"workflow": sampler(-1)},
    "in the graph, as text": {"workflow": sampler(" -1 ")},
    "noise_seed": {"workflow": sampler(-1, "noise_seed")},
    "a bare graph": sampler(-1),
    "a body of /prompt": {"prompt": sampler(-1)},
    "wrapped": {"workflow": {"prompt": sampler(-1)}},
    "one of two": {"workflow": {**sampler(5), "4": sampler(-1)["3"]}},
}
SAME: dict[str, dict[str, Any]] = {
    "a number": {"workflow": "text_to_image", "set": {"KSampler.seed": 1}},
    "the graph's is replaced": {"workflow": sampler(-1), "set": {"3.seed": 4}},
    "a minus one elsewhere": {"workflow": sampler(3), "set": {"3.steps": -1}},
    "-12": {"workflow": sampler(3), "set": {"3.seed": -12}},
    "a text that says it": {"workflow": sampler(3), "metadata": {"seed": "-1"}},
    "another input's name": {"workflow": sampler(-1, "my_seed")},
}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session, workflows_dir=WORKFLOWS)


def lines(document: object, count: int = 5) -> bytes:
    return b"\n".join([json.dumps(document).encode()] * count)


def run(world: World, error: ComfyError | None = None) -> list[str]:
    """Run all jobs whose messages wait, as a worker that reads their requests does."""
    ran = []
    for body in world.messages("batches"):
        job = job_of(body)
        assert job.read(s3=world.s3, settings=Settings()).job_id == job.job_id
        if world.journal.hold_back(job):
            continue
        if world.jobs.begin(job.job_id, run="run").claim.name == "RUN":
            ran.append(job.job_id)
            end = ended(job.job_id, JobError.of(error) if error else None)
            assert world.jobs.finish(job.job_id, end, run="run", webhook=False, places=())
    return ran


def ids(document: dict[str, Any], *, batch_id: str = "b-1") -> list[str | None]:
    manifest = lines(document)
    found = lines_of([manifest])
    return [request_at(line, batch_id=batch_id, draws=lambda _: False).request.job_id for line in found]


@pytest.mark.parametrize("document", RANDOM.values(), ids=RANDOM)
def test_lines_that_draw_a_seed_have_an_id_each_and_the_same_one_again(document: dict[str, Any]) -> None:
    assert len({*ids(document), *ids(document, batch_id="b-2")}) == 10
    assert ids(document) == ids(document)
    assert all(job_id and re.fullmatch(JOB_ID_PATTERN, job_id) for job_id in ids(document))


@pytest.mark.parametrize("document", SAME.values(), ids=SAME)
def test_lines_that_draw_none_have_the_id_they_always_had(document: dict[str, Any]) -> None:
    (line, *_) = lines_of([lines(document)])
    assert {*ids(document), *ids(document, batch_id="b-2")} == {request_of(line).job_id}


def test_five_lines_that_draw_a_seed_are_five_jobs_beside_five_that_are_one(world: World) -> None:
    batch = world.begin(lines(RANDOM["set by class"]) + b"\n" + lines(SAME["a number"]))
    world.read_all()
    assert len(set(run(world))) == 6
    world.look(batch)
    summary, rows, _ = world.report(batch)
    assert (summary["lines"], summary["duplicates"], summary["statuses"]) == (10, 4, {"succeeded": 6})
    assert len({row["job_id"] for row in rows}) == 6


@pytest.mark.parametrize("document", [*RANDOM.values(), *SAME.values()], ids=[*RANDOM, *SAME])
def test_a_line_asks_for_chance_if_the_worker_would_draw_a_seed_for_it(document: dict[str, Any]) -> None:
    request = JobRequest.parse(document)
    whole = files_in(WORKFLOWS).expand(request, owner="", key="a")
    graph = graph_of(whole, s3=NO_CLIENT, settings=Settings()).graph
    assert graph is not None
    _, seeds = draw_seeds(graph)
    assert asks_for_chance(request, draws=lambda _name: False) == bool(seeds)


def test_a_line_that_names_its_job_is_that_job(world: World) -> None:
    world.begin(lines({"job_id": "mine", **RANDOM["in the graph"]}))
    world.read_all()
    assert run(world) == ["mine"]


def test_whatever_comes_twice_each_random_line_runs_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges_module, "RANGE_BYTES", 150)
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 2)
    dropped = world.drop("batches/a.jsonl", lines(RANDOM["in the graph"], 9))
    batch = world.drops.begin_batch(dropped)
    world.drops.begin_batch(dropped)
    mark_read = world.batches.mark_read
    with monkeypatch.context() as cut:  # each chunk is cut off before it is written that it is read
        cut.setattr(type(world.batches), "mark_read", lambda *_: 1 / 0)
        for part in world.batches.ranges(batch.id):
            with pytest.raises(ZeroDivisionError):
                world.keeper.read(batch.id, part.start, until=float("inf"))
    assert world.batches.mark_read == mark_read
    first = run(world)
    world.read_all()
    assert len({*first, *run(world)}) == 9
    world.look(batch)
    assert world.report(batch)[0]["statuses"] == {"succeeded": 9}


def test_two_manifests_draw_anew_and_a_retry_runs_each_failed_line_once(world: World) -> None:
    first, second = (world.begin(lines(RANDOM["in the graph"], 2), key=f"batches/{name}.jsonl") for name in "ab")
    world.read_all()
    assert len(set(run(world))) == 4
    for batch in (first, second):
        world.look(batch)
        assert world.report(batch)[0]["statuses"] == {"succeeded": 2}
    third = world.begin(lines(RANDOM["in the graph"], 3), key="batches/c.jsonl")
    world.read_all()
    failed = run(world, error=NodeExecutionError("no"))
    world.look(third)
    repeated = b"\n".join(json.dumps(line).encode() for line in world.report(third)[2])
    for key in ("batches/c-again.jsonl", "batches/c-once-more.jsonl"):
        world.begin(repeated, key=key)
    world.read_all()
    assert sorted(run(world)) == sorted(f"{job_id}-again2" for job_id in failed)


def test_a_named_workflow_with_a_drawn_seed_is_drawn_for_each_line_whatever_becomes_of_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lucky.json"
    file.write_text(json.dumps(sampler(-1)), encoding="utf-8")
    monkeypatch.setattr(type(world.keeper), "named", files_in(tmp_path), raising=False)
    batch = world.begin(lines({"workflow": "lucky"}, 4) + b"\n" + lines({"workflow": "lucky", "set": {"3.seed": 4}}, 2))
    world.read_all()
    file.write_text(json.dumps(sampler(7)), encoding="utf-8")  # a newer image
    assert len(set(run(world))) == 5
    assert world.look(batch).status is BatchStatus.COMPLETED
    assert world.report(batch)[0]["duplicates"] == 1


@pytest.mark.parametrize(("first", "then"), [(-1, 7), (7, -1)])
def test_a_workflow_that_changes_while_a_range_is_read_changes_no_line_that_was_read(
    world: World, monkeypatch: pytest.MonkeyPatch, first: int, then: int
) -> None:
    """Paused in the middle, and resumed: what was submitted keeps its id, and so do the lines behind it."""
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 2)
    key = "wf/changing.json"
    world.s3.put_object(Bucket=DROPS, Key=key, Body=json.dumps(sampler(first)).encode())
    document = {"workflow": f"s3://{DROPS}/{key}"}
    manifest = b"\n".join(json.dumps({**document, "metadata": {"n": str(number)}}).encode() for number in range(6))
    batch = world.begin(manifest)
    (part,) = world.batches.ranges(batch.id)
    world.keeper.read(batch.id, part.start, until=0)  # one chunk
    (part,) = world.batches.ranges(batch.id)
    assert part.lines == 2
    world.s3.put_object(Bucket=DROPS, Key=key, Body=json.dumps(sampler(then)).encode())
    world.keeper.read(batch.id, part.start, until=float("inf"))
    assert len(run(world)) == 6
    world.look(batch)
    assert world.report(batch)[0]["statuses"] == {"succeeded": 6}, "no line has lost its job"
    keeper = world.keeper
    (part,) = world.batches.ranges(batch.id)
    item = world.table.get(f"batch#{batch.id}", f"range#{part.start:015}")
    assert item is not None
    world.table.put({**item, "offset": 0})  # read once more
    keeper.read(batch.id, part.start, until=float("inf"))
    assert run(world) == []


def test_so_is_a_workflow_in_the_input_bucket(world: World) -> None:
    world.s3.put_object(Bucket=DROPS, Key="wf/lucky.json", Body=json.dumps(sampler(-1)).encode())
    batch = world.begin(lines({"workflow": f"s3://{DROPS}/wf/lucky.json"}, 3) + b"\n" + lines({"workflow": "s3://x/y"}))
    world.read_all()
    assert len(set(run(world))) == 4
    world.look(batch)
    assert world.report(batch)[0]["duplicates"] == 4


def test_a_batch_that_the_last_release_has_begun_keeps_the_ids_that_it_had(world: World) -> None:
    batch = world.begin(lines(RANDOM["in the graph"], 3))
    for part in world.batches.ranges(batch.id):  # of the last release: it does not count what begins in a range
        item = {"pk": f"batch#{batch.id}", "sk": f"range#{part.start:015}", "start": 0, "end": part.end, "offset": 0}
        world.table.put({**item, "touched": 0})
    world.read_all()
    assert len(run(world)) == 1
    world.look(batch)
    summary, rows, _ = world.report(batch)
    assert (summary["duplicates"], [row["line"] for row in rows]) == (2, ["1", "2", "3"])


def test_the_last_release_finds_the_request_of_such_a_line_and_a_pause_holds_it(world: World) -> None:
    batch = world.begin(lines(RANDOM["in the graph"], 2))
    world.read_all()
    messages = world.messages("batches")
    for message in messages:
        at = S3Address.parse(message["request"])
        key, _, place = at.key.partition("#")
        offset, length = map(int, place.split("-"))
        body = world.s3.get_object(Bucket=at.bucket, Key=key)["Body"].read()[offset : offset + length]
        assert json.loads(body)["job_id"] == message["job"], "it makes no id by itself then"
    world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    held = [world.journal.hold_back(job_of(message)) for message in messages]
    assert held == [True, True]
