"""Lines that name a workflow: checked and pinned as they are read, whatever becomes of the name then."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches import reading as reading_module
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.ranges import Range, workflow_key
from comfy_serverless.errors import ComfyError, NodeExecutionError
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.jobs.document import JobError
from comfy_serverless.jobs.line_ids import Question
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.named import expanded
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import version_of
from comfy_serverless.settings import Settings
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.store import WorkflowStore
from comfy_serverless.workflows.version import NamedInput, Version
from tests.unit.batch_world import ASSETS, World, ended, job_of
from tests.unit.jobs_table import aws

OWNER = Settings().drop_owner
GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}},
}
INPUTS = (
    NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT, role=Role.PROMPT, default="a fox"),
    NamedInput(name="photo", targets=("1.image",), kind=InputKind.FILE, role=Role.IMAGE, media="image"),
    NamedInput(name="seed", targets=("3.seed",), kind=InputKind.INTEGER, role=Role.SEED, default=7),
)


class Named:
    """A world with named workflows in it."""

    def __init__(self, session: Any, folder: Path) -> None:
        self.world = world = World(session, workflows_dir=folder)
        self.store = WorkflowStore(world.table, world.s3, ASSETS)
        self.finder = Finder(self.store, folder, lambda: None)
        world.keeper = replace(world.keeper, named=self.finder)
        world.drops = replace(world.drops, keeper=world.keeper)

    def push(self, name: str = "poster", *, owner: str = OWNER, steps: int = 1, **changes: Any) -> None:
        graph: dict[str, Any] = {**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": steps}}}
        version = {"name": name, "number": 0, "owner": owner, "graph": graph, "inputs": INPUTS, **changes}
        self.store.push(Version(**version))

    def live(self, **weights: int) -> None:
        self.store.move(OWNER, "poster", "live", {int(name[1:]): weight for name, weight in weights.items()}, by="me")

    def jobs(self) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
        """The jobs whose messages wait: what their labels say in the table, and their graphs as a worker makes them."""
        found = {}
        for body in self.world.messages("batches"):
            message = JobMessage.parse(json.dumps(body))
            state = self.world.jobs.read(message.job_id) if message is not None else None
            assert message is not None
            assert state is not None
            request = message.read(s3=self.world.s3, settings=Settings())
            whole = expanded(self.finder, request, owner=message.owner_name, key=message.job_id, was_taken=True)
            assert isinstance(whole.workflow, dict)
            told = {name: whole.metadata.get(name) for name in ("workflow", "version")}
            assert told == {name: state.labels[name] for name in told}, "what the table says is what runs"
            found[message.job_id] = (dict(state.labels), whole.workflow)
            self.last = message
        return found

    def end(self, job_id: str, error: ComfyError | None = None) -> None:
        assert self.world.jobs.begin(job_id, run="run").claim.name == "RUN"
        document = ended(job_id, None if error is None else JobError.of(error))
        assert self.world.jobs.finish(job_id, document, run="run", webhook=False, places=())

    def bad(self, batch: Batch) -> dict[int | None, str]:
        return {one.line: one.message for one in self.world.batches.bad_lines(batch.id)}


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Named]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    (tmp_path / "portrait.json").write_text(json.dumps(GRAPH), encoding="utf-8")
    with aws() as session:
        yield Named(session, tmp_path)


def lines(*documents: object) -> bytes:
    return b"\n".join(json.dumps(one).encode() for one in documents)


def many(count: int, **fields: Any) -> bytes:
    return lines(*({"workflow": "poster", "inputs": {"prompt": f"fox {n}"}, **fields} for n in range(count)))


def part_of(named: Named, batch: Batch) -> Range:
    (part,) = named.world.batches.ranges(batch.id)
    return part


def test_a_line_runs_the_version_that_its_name_meant_when_it_was_read(named: Named) -> None:
    named.push(steps=1)
    named.world.begin(many(3, metadata={"customer": "42"}))
    named.world.read_all()
    named.push(steps=2)
    named.live(v2=1)
    named.store.retire(OWNER, "poster")
    found = named.jobs()
    assert len(found) == 3
    for labels, graph in found.values():
        assert labels == {"customer": "42", "workflow": "poster", "version": "1"}
        assert graph["3"]["inputs"]["steps"] == 1


def test_the_line_is_not_blown_up_by_the_graph_and_older_workers_leave_it_to_newer_ones(named: Named) -> None:
    named.push(graph={**GRAPH, "9": {"class_type": "Note", "inputs": {"text": "x" * 100_000}}})
    named.world.begin(many(50))
    named.world.read_all()
    messages = named.world.messages("batches")
    assert {message["version"] for message in messages} == {3}
    objects = named.world.s3.list_objects_v2(Bucket=ASSETS, Prefix="requests/batches/named-")["Contents"]
    assert sum(each["Size"] for each in objects) < 50 * 300


def test_a_batch_that_is_read_while_the_alias_moves_loses_nothing(
    named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "CHUNK_LINES", 5)
    named.push(steps=1)
    named.push(steps=2)
    batch = named.world.begin(many(40))
    for number in range(8):
        named.live(**{f"v{1 + number % 2}": 1})
        named.world.keeper.read(batch.id, 0, until=0)  # a chunk
    found = named.jobs()
    assert Counter(labels["version"] for labels, _ in found.values()) == {"1": 20, "2": 20}
    for labels, graph in found.values():
        assert labels["version"] == str(graph["3"]["inputs"]["steps"])
    for job_id in found:
        named.end(job_id)
    assert named.world.look(batch).status is BatchStatus.COMPLETED
    summary, rows, _ = named.world.report(batch)
    assert (summary["lines"], summary["bad_lines"], summary["statuses"]) == (40, 0, {"succeeded": 40})
    assert Counter((row["metadata.workflow"], row["metadata.version"]) for row in rows) == {
        ("poster", "1"): 20,
        ("poster", "2"): 20,
    }


def test_a_chunk_that_is_read_again_after_the_alias_has_moved_keeps_what_its_jobs_were_pinned_to(
    named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    named.push(steps=1)
    named.push(steps=2)
    batch = named.world.begin(many(4))
    with monkeypatch.context() as cut:
        cut.setattr(type(named.world.batches), "mark_read", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            named.world.keeper.read(batch.id, 0, until=float("inf"))
    named.live(v2=1)
    named.world.read_all()
    assert {labels["version"] for labels, _ in named.jobs().values()} == {"1"}


def test_weights_share_lines_by_the_ids_of_their_jobs(named: Named) -> None:
    named.push(steps=1)
    named.push(steps=2)
    named.live(v1=50, v2=50)
    named.world.begin(many(60))
    named.world.read_all()
    first = {job_id: labels["version"] for job_id, (labels, _) in named.jobs().items()}
    assert 10 < Counter(first.values())["2"] < 50
    for job_id in first:
        whole = named.finder.expand(JobRequest(workflow="poster"), owner=OWNER, key=job_id)
        assert whole.metadata["version"] == first[job_id], "sticky by the job's id, at every door"


def test_a_retry_and_a_resume_keep_the_version(named: Named) -> None:
    named.push(steps=1)
    batch = named.world.begin(many(3))
    named.world.read_all()
    named.push(steps=2)
    named.live(v2=1)
    assert named.world.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING])
    for message in named.world.messages("batches"):
        assert named.world.journal.hold_back(job_of(message))
    assert named.world.batches.set_status(batch.id, BatchStatus.RUNNING, was=[BatchStatus.PAUSED])
    named.world.keeper.resume(batch.id, until=float("inf"))
    found = named.jobs()
    assert [labels["version"] for labels, _ in found.values()] == ["1"] * 3
    for job_id in found:
        named.end(job_id, NodeExecutionError("no"))
    named.world.look(batch)
    _, _, again = named.world.report(batch)
    assert [line["workflow"] for line in again] == ["poster@1"] * 3
    named.world.begin(lines(*again), key="batches/again.jsonl")
    named.world.read_all()
    assert [labels["version"] for labels, _ in named.jobs().values()] == ["1"] * 3


def test_a_retry_of_a_shared_one_is_not_taken_for_the_owners_that_was_pushed_meanwhile(named: Named) -> None:
    named.push(owner="", steps=5)
    named.store.share("poster")
    batch = named.world.begin(many(2))
    named.world.read_all()
    named.push(steps=9)  # the owner's own version 1
    found = named.jobs()
    assert [graph["3"]["inputs"]["steps"] for _, graph in found.values()] == [5, 5]
    for job_id in found:
        named.end(job_id, NodeExecutionError("no"))
    named.world.look(batch)
    named.world.begin(lines(*named.world.report(batch)[2]), key="batches/again.jsonl")
    named.world.read_all()
    assert [graph["3"]["inputs"]["steps"] for _, graph in named.jobs().values()] == [5, 5]


def test_a_line_of_a_shared_one_runs_although_that_is_shared_no_more_and_later_lines_are_bad(named: Named) -> None:
    named.push(owner="", steps=5)
    named.store.share("poster")
    named.world.begin(many(2))
    named.world.read_all()
    named.store.share("poster", False)
    assert [graph["3"]["inputs"]["steps"] for _, graph in named.jobs().values()] == [5, 5]
    later = named.world.begin(lines({"workflow": "poster"}, {"workflow": "shared/poster@1"}), key="batches/2.jsonl")
    named.world.read_all()
    assert named.bad(later).keys() == {1, 2}
    assert all(message.startswith("there is no workflow 'poster'") for message in named.bad(later).values())


def test_a_file_of_the_image_is_not_taken_for_a_workflow_that_is_pushed_meanwhile(named: Named) -> None:
    batch = named.world.begin(lines({"workflow": "portrait", "inputs": {"1.image": "s3://photos/a.png"}}))
    named.world.read_all()
    named.push("portrait", steps=9)
    (message,) = named.world.messages("batches")
    assert "version" not in message, "workers of every release know it"
    request = job_of(message).read(s3=named.world.s3, settings=Settings())
    assert (request.workflow, version_of(request)) == ("portrait.json", 1)
    whole = expanded(named.finder, request, owner=OWNER, key="x")
    assert whole.metadata["version"] == "0"
    assert part_of(named, batch).is_read


BAD = {
    "no such workflow": ({"workflow": "postre"}, "there is no workflow 'postre'"),
    "no such input": ({"workflow": "poster", "inputs": {"promt": "x"}}, "inputs.promt"),
    "a wrong value": ({"workflow": "poster", "inputs": {"prompt": 5, "seed": "x"}}, "inputs.seed"),
    "no such version": ({"workflow": "poster@9"}, "no version 9"),
    "too many labels": (
        {"workflow": "poster", "metadata": {str(n): "x" for n in range(49)}},
        "no room for the labels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_line_that_cannot_run_is_a_bad_line_and_stays_one(named: Named, case: str) -> None:
    document, words = BAD[case]
    named.push()
    batch = named.world.begin(many(2) + b"\n" + lines(document) + b"\n" + many(1, job_id="mine"))
    named.world.read_all()
    assert words in named.bad(batch)[3]
    assert list(named.bad(batch)) == [3]
    # What it named is there by now: but it was judged when it was read.
    named.push("postre")
    for number in range(9):
        named.push(steps=number + 10)
    for job_id in named.jobs():
        named.end(job_id)
    assert named.world.look(batch).status is BatchStatus.COMPLETED
    summary, rows, again = named.world.report(batch)
    assert (summary["lines"], summary["bad_lines"], summary["statuses"]) == (4, 1, {"succeeded": 3})
    assert [row["status"] for row in rows] == ["succeeded", "succeeded", "bad", "succeeded"]
    assert words in rows[2]["message"]
    assert again == []
    raw = named.world.s3.get_object(Bucket="results-bucket", Key=f"batches/{batch.id}.bad.jsonl")["Body"].read()
    assert json.loads(raw) == document


def test_a_job_that_runs_is_no_bad_line_because_its_workflow_is_gone(named: Named) -> None:
    named.push()
    batch = named.world.begin(many(3))
    named.world.read_all()
    named.store.retire(OWNER, "poster")
    for job_id in named.jobs():
        named.end(job_id)
    named.world.look(batch)
    summary, _, _ = named.world.report(batch)
    assert (summary["bad_lines"], summary["statuses"]) == (0, {"succeeded": 3})


def test_a_line_whose_job_was_forgotten_is_judged_anew_and_ends_its_batch(named: Named) -> None:
    """Another batch's of 30 days ago: the table has forgotten it, and the workflow is gone by now."""
    named.push()
    batch = named.world.begin(many(2))
    named.world.read_all()
    first, second = named.jobs()
    named.end(first)
    for sk in ("job", "batch"):
        named.world.table._client.delete_item(
            TableName=named.world.table.name, Key={"pk": {"S": f"job#{second}"}, "sk": {"S": sk}}
        )
    named.store.retire(OWNER, "poster")
    named.world.look(batch)  # finds the line without a job
    assert named.world.look(batch).status is BatchStatus.COMPLETED
    assert named.world.report(batch)[0]["bad_lines"] == 1


def test_lines_of_another_owner_and_of_nobody_read_alike(named: Named) -> None:
    named.push("theirs", owner="somebody-else")
    batch = named.world.begin(lines({"workflow": "theirs"}, {"workflow": "thiers"}))
    named.world.read_all()
    told = named.bad(batch)
    assert told[1].replace("theirs", "X") == told[2].replace("thiers", "X")


RANDOM: tuple[tuple[dict[str, Any], dict[str, Any], int], ...] = (
    ({"workflow": "poster", "inputs": {"seed": -1}}, {}, 3),
    ({"workflow": "poster", "inputs": {"prompt": "x"}}, {"seed": -1}, 3),
    ({"workflow": "poster"}, {"seed": -1}, 3),
    ({"workflow": "poster", "inputs": {"seed": 5}}, {"seed": -1}, 1),
    ({"workflow": "poster", "set": {"3.seed": 5}}, {"seed": -1}, 1),
    ({"workflow": "poster", "set": {"KSampler.seed": -1}}, {}, 3),
    ({"workflow": "poster", "inputs": {"seed": 5}}, {}, 1),
    ({"workflow": "poster", "inputs": {"prompt": "-1"}}, {}, 1),
    ({"workflow": "poster"}, {"rolled": {"6.text": "{a|b} fox"}}, 3),
    ({"workflow": "poster", "inputs": {"prompt": "a fox"}}, {"rolled": {"6.text": "{a|b} fox"}}, 1),
    ({"workflow": "poster", "inputs": {"photo": "s3://photos/a.png"}}, {"rolled": {"6.text": "{a|b} fox"}}, 3),
    ({"workflow": "poster", "inputs": {"prompt": "{a|b} fox"}}, {}, 1),
)


@pytest.mark.parametrize(("document", "has", "jobs"), RANDOM, ids=map(str, range(len(RANDOM))))
def test_a_line_that_asks_for_something_random_is_a_job_of_its_own(
    named: Named, document: dict[str, Any], has: dict[str, Any], jobs: int
) -> None:
    graph = {**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": has.get("seed", 7), "steps": 1}}}
    named.push(graph=graph, rolled=has.get("rolled", {}))
    batch = named.world.begin(lines(*[document] * 3))
    named.world.read_all()
    found = named.jobs()
    assert len(found) == jobs
    named.push(steps=8)  # whatever it is now, the ids stay
    named.live(v2=1)
    for job_id in found:
        named.end(job_id)
    assert named.world.look(batch).status is BatchStatus.COMPLETED
    assert named.world.report(batch)[0]["statuses"] == {"succeeded": jobs}


def test_one_of_two_versions_with_something_random_is_enough(named: Named) -> None:
    named.push(steps=1)
    named.push(graph={**GRAPH, "3": {"class_type": "KSampler", "inputs": {"seed": -1, "steps": 2}}})
    named.live(v1=99, v2=1)
    named.world.begin(lines(*[{"workflow": "poster"}] * 3))
    named.world.read_all()
    assert len(named.jobs()) == 3


def test_a_range_that_the_last_release_has_begun_keeps_its_ids(named: Named) -> None:
    """It asked only about the workflow as it is, whatever inputs a line gives."""
    request = JobRequest.parse({"workflow": "poster", "inputs": {"image": "s3://photos/a.png"}})
    question = Question.about(request, "poster", is_of_texts=False).to_text()
    key = workflow_key("poster")
    part = Range(start=0, end=9, offset=9, begun=1, drawing=frozenset({key}))
    assert part.draws(question)
    assert not replace(part, steady=frozenset({workflow_key(question)})).draws(question)
    assert Question.parse(question).given == ("image",)


def test_many_lines_cost_a_look_at_the_table_for_each_chunk(named: Named) -> None:
    named.push()
    named.world.begin(many(200))
    before = Counter(named.world.calls)
    named.world.read_all()
    assert (Counter(named.world.calls) - before)["BatchGetItem"] < 10


def test_a_line_that_names_a_bucket_which_is_not_listed_is_refused_as_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        named = Named(session, tmp_path)
        settings = Settings(output_bucket="results-bucket", assets_bucket=ASSETS, allowed_input_buckets=("mine",))
        named.world.keeper = replace(named.world.keeper, settings=settings)
        named.push()
        photos = [{"photo": f"s3://{bucket}/a.png"} for bucket in ("mine", "theirs")]
        batch = named.world.begin(lines(*({"workflow": "poster", "inputs": photo} for photo in photos)))
        named.world.read_all()
        (job_id,) = named.jobs()
        named.end(job_id)
        named.world.look(batch)
        summary, rows, _ = named.world.report(batch)
        assert summary["codes"] == {"missing_asset": 1}
        assert "InputBuckets" in rows[1]["message"]
        assert S3Address.parse(rows[1]["result"]).bucket == "results-bucket"


def test_a_line_with_an_id_of_its_own_asks_by_name_for_the_same_whatever_the_name_means(named: Named) -> None:
    named.push(steps=1)
    own = {"job_id": "fox", "workflow": "poster", "inputs": {"prompt": "a fox"}}
    first = named.world.begin(json.dumps(own).encode(), "batches/first.jsonl")
    named.world.read_all()
    named.push(steps=2)
    other = {**own, "inputs": {"prompt": "a hare"}}
    second = named.world.begin(f"{json.dumps(own)}\n{json.dumps(other)}".encode(), "batches/second.jsonl")
    named.world.read_all()
    assert named.bad(first) == {}
    assert list(named.bad(second)) == [2]
    assert "has been used for another request" in named.bad(second)[2]
    ((labels, _),) = named.jobs().values()
    assert labels["version"] == "1"
