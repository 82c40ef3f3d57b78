"""`comfy-serverless release` against a stack of CloudFormation: what it lists, moves, refuses and names."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli import release_prune, releases
from comfy_serverless.cli.main import main
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.jobs.document import JobError, JobStatus
from comfy_serverless.table import one_at_a_time
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.live import DEFAULT, Live
from tests.patience import PATIENCE_S
from tests.unit.jobs_table import REGION, aws, create_table
from tests.unit.table_clock import TableClock

STACK = "mine"
#: None of these checks hangs for the half hour that one may take.
pytestmark = pytest.mark.timeout(300)
LIVE = f"/comfy-serverless/{STACK}/live"


class World:
    """A stack with some releases, and workers that do as they are told."""

    def __init__(self, session: Any) -> None:
        self.table, _ = create_table(session)
        self.sqs, self.ssm, self.s3 = (session.client(name) for name in ("sqs", "ssm", "s3"))
        for bucket in ("assets", "output"):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        names = ("own", "own-batches")
        self.urls: dict[str, str] = {name: self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in names}
        outputs = {
            "JobsTableName": self.table.name,
            "JobQueueUrl": self.urls["own"],
            "BatchQueueUrl": self.urls["own-batches"],
            "AssetsBucketName": "assets",
            "OutputBucketName": "output",
        }
        session.client("cloudformation").create_stack(
            StackName=STACK,
            TemplateBody=json.dumps({"Resources": {}, "Outputs": {k: {"Value": v} for k, v in outputs.items()}}),
        )
        self.cloudformation = session.client("cloudformation")
        self.jobs = JobStore(self.table, lease_s=30, max_runs=3)

    def announce(self, name: str, version: str = "3f2a91c07b5e") -> None:
        """A release, as a stack of `infra/` announces it."""
        self.urls[name] = self.sqs.create_queue(QueueName=f"{STACK}-release-{name}-jobs")["QueueUrl"]
        batches = self.sqs.create_queue(QueueName=f"{STACK}-release-{name}-batches")["QueueUrl"]
        told = {"backend": "queue", "job_queue_url": self.urls[name], "batch_queue_url": batches, "image": "i"}
        told |= {"stack": f"{STACK}-lambda-gpu-{name}", "release_version": version}
        path = f"/comfy-serverless/{STACK}/releases/{name}"
        self.ssm.put_parameter(Name=path, Value=json.dumps(told), Type="String", Overwrite=True)

    def deploy(self, name: str) -> None:
        """The stack that a release is."""
        topic = {"T": {"Type": "AWS::SNS::Topic"}}
        text = json.dumps({"Resources": topic})
        self.cloudformation.create_stack(StackName=f"{STACK}-lambda-gpu-{name}", TemplateBody=text)

    def stacks(self) -> set[str]:
        """The names of the stacks that there are."""
        return {one["StackName"] for one in self.cloudformation.describe_stacks()["Stacks"]}

    def live(self) -> Live:
        found = self.ssm.get_parameters(Names=[LIVE])["Parameters"]
        return Live.parse(found[0]["Value"] if found else "")

    def works(self, name: str, end: Callable[[World, JobState], None]) -> threading.Thread:
        """Have a worker of this release take one job from its queue, and end it so."""

        def work() -> None:
            answer: dict[str, Any] = {}
            while not answer.get("Messages"):
                time.sleep(0.1)  # the emulator would turn in circles while it waits, and hold up everybody
                answer = self.sqs.receive_message(QueueUrl=self.urls[name])
            job_id = json.loads(answer["Messages"][0]["Body"])["job"]
            self.sqs.delete_message(QueueUrl=self.urls[name], ReceiptHandle=answer["Messages"][0]["ReceiptHandle"])
            state = self.jobs.begin(job_id, run="run-1").state
            assert state is not None
            end(self, state)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


def succeed(world: World, state: JobState) -> None:
    job = state.whole_document().model_copy(update={"status": JobStatus.SUCCEEDED})
    assert world.jobs.finish(state.id, job, run="run-1", webhook=False, places=())


def fail(world: World, state: JobState) -> None:
    error = NodeExecutionError("no module named flux", details={"node_id": "3", "class_type": "Flux"})
    job = state.whole_document().model_copy(update={"status": JobStatus.FAILED, "error": JobError.of(error)})
    assert world.jobs.finish(state.id, job, run="run-1", webhook=False, places=())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.setenv(name, REGION)
    monkeypatch.setenv("COMFY_STACK", STACK)
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    with aws() as session:
        yield World(session)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a command with this exit code: what it prints, and what it says."""

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert main(["release", *arguments]) == code
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def test_a_stack_without_named_releases_has_one(world: World, told: Callable[..., tuple[str, str]]) -> None:
    world.sqs.send_message(QueueUrl=world.urls["own"], MessageBody="x")
    listed = json.loads(told("ls", "--json")[0])["releases"]
    assert [(one["name"], one["state"], one["waiting"]) for one in listed] == [(DEFAULT, "live", 1)]
    assert told("rollback", code=1)[1].startswith("invalid_request: default is live, and nothing was before it")


def test_a_release_is_promoted_after_its_check_and_rolled_back(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    world.announce("next")
    world.works("next", succeed)
    printed, said = told("promote", "next")
    assert printed == "next\n"
    assert "the check has succeeded" in said
    assert (world.live().now.name, world.live().now.version) == ("next", "3f2a91c07b5e")
    assert "next is live already" in told("promote", "next")[1]
    rows = told("ls")[0].splitlines()
    assert [row.split()[0] for row in rows] == ["release", "next", DEFAULT]
    assert "previous" in rows[2]
    assert told("rollback")[0] == "default\n"
    assert world.live().now.name == DEFAULT


def test_one_whose_check_fails_is_not_and_the_node_and_the_log_are_named(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    world.announce("next")
    world.works("next", fail)
    printed, said = told("promote", "next", "--json", code=1)
    error = json.loads(printed)["error"]
    assert error["code"] == "node_execution_error"
    assert "its check failed at node 3 Flux: no module named flux" in said
    assert f"comfy-serverless logs {error['details']['job_id']} --stack {STACK}" in said
    assert world.live() == Live()


def test_a_check_that_takes_too_long_is_canceled(world: World, told: Callable[..., tuple[str, str]]) -> None:
    world.announce("next")
    printed, said = told("promote", "next", "--timeout", "0.1", "--json", code=1)
    assert "`--timeout` gives more" in said
    state = world.jobs.read(json.loads(printed)["error"]["details"]["job_id"])
    assert state is not None
    assert (state.status.value, state.release, world.live()) == ("canceled", "next", Live())


def test_without_a_check_it_warns(world: World, told: Callable[..., tuple[str, str]]) -> None:
    world.announce("next")
    assert "warning: no check is run" in told("promote", "next", "--no-check")[1]
    assert world.live().now.name == "next"


def test_the_check_gets_the_files_it_is_given(
    world: World, told: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    world.announce("next")
    (tmp_path / "photo.png").write_bytes(b"png")
    seen: list[Any] = []

    def see(world: World, state: JobState) -> None:
        bucket, _, key = state.request.removeprefix("s3://").partition("/")
        seen.append(json.loads(world.s3.get_object(Bucket=bucket, Key=key)["Body"].read())["request"])
        succeed(world, state)

    world.works("next", see)
    told("promote", "next", "--check", "workflows/thumbnail.json", "--input", f"10.image={tmp_path / 'photo.png'}")
    (request,) = seen
    bucket, _, key = request["inputs"]["10.image"].removeprefix("s3://").partition("/")
    assert world.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"png"


def test_two_who_promote_do_not_undo_each_other(world: World, told: Callable[..., tuple[str, str]]) -> None:
    world.announce("next")
    world.announce("other")

    def meanwhile(world: World, state: JobState) -> None:
        other = Live().promoted(Live().now.__class__("other", {"backend": "queue"}), since="now")
        world.ssm.put_parameter(Name=LIVE, Value=other.to_text(), Type="String", Overwrite=True)
        succeed(world, state)

    world.works("next", meanwhile)
    assert "somebody has made 'other' live since this command began" in told("promote", "next", code=1)[1]
    assert world.live().now.name == "other"


def test_one_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_at_a_time, "ASK_EVERY_S", 0.01)
    order: list[str] = []
    has_it, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with one_at_a_time.one_at_a_time(world.table):
            has_it.set()
            may_end.wait(PATIENCE_S)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert has_it.wait(PATIENCE_S)
    threading.Timer(0.2, may_end.set).start()
    with one_at_a_time.one_at_a_time(world.table):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_turn_of_somebody_who_died_is_over_some_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = TableClock(monkeypatch)
    assert one_at_a_time._take(world.table, "dead")
    clock.later(one_at_a_time.HELD_S - 1)
    assert not one_at_a_time._take(world.table, "another")
    clock.later(1)
    with one_at_a_time.one_at_a_time(world.table):
        held = world.table.get(one_at_a_time.PK, one_at_a_time.SK)
        assert held is not None
        assert held["holder"] != "dead"
    assert world.table.get(one_at_a_time.PK, one_at_a_time.SK) is None


def test_a_turn_is_ours_although_only_the_first_answer_was_lost(world: World) -> None:
    assert one_at_a_time._take(world.table, "me")
    assert one_at_a_time._take(world.table, "me")
    assert not one_at_a_time._take(world.table, "another")


def test_what_waits_in_the_stacks_own_queue_of_batches_counts(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    world.sqs.send_message(QueueUrl=world.urls["own-batches"], MessageBody="x")
    (default,) = json.loads(told("ls", "--json")[0])["releases"]
    assert default["waiting"] == 1


def test_rolling_back_never_leads_to_one_that_is_gone(world: World, told: Callable[..., tuple[str, str]]) -> None:
    for name in ("one", "two", "three"):
        world.announce(name)
        told("promote", name, "--no-check")
    world.sqs.delete_queue(QueueUrl=world.urls["two"])
    printed, said = told("rollback")
    assert (printed, world.live().now.name) == ("one\n", "one")
    assert "two is gone, and was passed over" in said


def test_without_one_that_is_there_nothing_is_rolled_back(world: World, told: Callable[..., tuple[str, str]]) -> None:
    for name in ("one", "two"):
        world.announce(name)
        told("promote", name, "--no-check", "--keep", "2")
    world.sqs.delete_queue(QueueUrl=world.urls["one"])
    before = world.live()
    assert "two is live, and what was before it is gone (one)" in told("rollback", code=1)[1]
    assert world.live() == before


def test_a_release_is_forgotten_once_nobody_sends_to_it_any_more(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute functions still send jobs to it: an empty queue alone says nothing."""
    for name in ("one", "two", "three"):
        world.announce(name)
        told("promote", name, "--no-check", "--keep", "1")
    assert {one.name for one in world.live().left} == {"one", "two", DEFAULT}
    world.sqs.send_message(QueueUrl=world.urls["one"], MessageBody="x")
    monkeypatch.setattr(releases, "SETTLED_S", -1)
    told("promote", "one", "--no-check", "--keep", "1")
    told("promote", "two", "--no-check", "--keep", "1")
    assert {one.name for one in world.live().left} == {"one"}, "three is empty, and so is the stack's own"


def test_one_that_was_deployed_anew_is_told_and_promoted_again(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    world.announce("next")
    told("promote", "next", "--no-check")
    world.announce("next", version="000000000001")
    assert "next was deployed anew since it was promoted" in told("ls")[1]
    assert json.loads(told("ls", "--json")[0])["releases"][0]["is_changed"]
    told("promote", "next", "--no-check")
    assert world.live().now.version == "000000000001"
    assert "is live already" in told("promote", "next")[1]


def test_one_stacks_mistake_leaves_the_others_to_be_listed_and_promoted(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    world.announce("next")
    for name, text in (("odd", "{}"), ("older", "[")):
        world.ssm.put_parameter(Name=f"/comfy-serverless/{STACK}/releases/{name}", Value=text, Type="String")
    printed, said = told("ls")
    assert "odd cannot be used: the parameter of the release odd holds" in said
    assert sum("unusable" in row for row in printed.splitlines()) == 2
    assert "the parameter of the release odd holds '{}'" in told("promote", "odd", code=1)[1]
    assert told("promote", "next", "--no-check")[0] == "next\n"


@pytest.mark.parametrize("name", ["Next", "a/b", "a--b", "x" * 21, "", "-x"])
def test_a_name_that_no_release_can_have_is_refused(
    world: World, told: Callable[..., tuple[str, str]], name: str
) -> None:
    assert "is no name of a release" in told("promote", "--", name, code=1)[1]


def test_more_than_a_parameter_holds_is_refused_and_moves_nothing(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.announce("next")
    monkeypatch.setattr(releases, "MAX_PARAMETER_BYTES", 100)
    assert "Give a smaller --keep" in told("promote", "next", "--no-check", code=1)[1]
    assert world.live() == Live()


def test_a_check_that_could_not_be_sent_is_canceled(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.announce("next")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("comfy_serverless.table.dispatch.Queues.send", interrupt)
    assert (
        "'next' was not promoted, and nothing was moved: its check is canceled" in told("promote", "next", code=130)[1]
    )
    ((job,), _) = world.jobs.page("release-check", labels={}, status=None, limit=9, before=None)
    assert job.status == "canceled"


def test_a_stack_whose_functions_do_not_look_for_a_live_release_is_told_to_be_deployed_first(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.announce("next")
    monkeypatch.setattr("comfy_serverless.cli.stack.outputs_of", lambda _: {"JobsTableName": "x", "JobQueueUrl": "y"})
    assert "has no output BatchQueueUrl" in told("promote", "next", "--no-check", code=1)[1]
    assert world.live() == Live()


def test_one_that_was_never_promoted_yet_is_not_offered_to_be_deleted(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    world.announce("next")
    assert "can be deleted" not in told("ls")[1]


def test_what_can_be_deleted_is_named_with_its_command_once_nothing_is_in_it(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    for name in ("one", "two", "three"):
        world.announce(name)
        told("promote", name, "--no-check", "--keep", "2")
    world.sqs.send_message(QueueUrl=world.urls["one"], MessageBody="x")
    assert "one: jobs are still in it (1 wait, 0 run)" in told("ls")[1]
    world.sqs.purge_queue(QueueUrl=world.urls["one"])
    assert (
        'one can be deleted: make cdk CDK_ARGS="destroy mine-lambda-gpu-one -c release=one -c stack=mine"'
        in told("ls")[1]
    )
    assert [one.name for one in world.live().before] == ["two"]


def test_one_that_is_gone_is_shown_and_cannot_be_promoted(world: World, told: Callable[..., tuple[str, str]]) -> None:
    world.announce("next")
    world.sqs.delete_queue(QueueUrl=world.urls["next"])
    (gone,) = (one for one in json.loads(told("ls", "--json")[0])["releases"] if one["name"] == "next")
    assert (gone["is_gone"], gone["waiting"]) == (True, None)
    said = told("promote", "next", code=1)[1]
    assert "its stack is gone. There are: default." in said
    assert "-c release=next" in said


def three_releases(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch, *, settled_s: float = -10
) -> None:
    """`one`, `two` and `three`, promoted one after the other: a rollback leads from `three` to `two`, to no other."""
    monkeypatch.setattr(release_prune, "SETTLED_S", settled_s)
    for name in ("one", "two", "three"):
        world.announce(name)
        world.deploy(name)
        told("promote", name, "--no-check", "--keep", "2")


def test_pruning_lists_what_nobody_goes_back_to_and_deletes_nothing(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_releases(world, told, monkeypatch)
    printed, said = told("prune")
    assert [line.split()[0] for line in printed.splitlines()] == ["release", "one", "two"]
    assert "can be deleted" in printed
    assert "a rollback leads to it (--previous takes it, too)" in printed
    assert said == "nothing was deleted: --delete deletes 1 stack\n"
    assert world.stacks() == {"mine", *(f"mine-lambda-gpu-{name}" for name in ("one", "two", "three"))}


def test_pruning_deletes_the_stacks_and_forgets_them(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_releases(world, told, monkeypatch)
    printed, said = told("prune", "--delete", "--yes", "--previous", "--json")
    assert json.loads(printed)["is_deleted"]
    assert "one is gone" in said
    assert world.stacks() == {"mine", "mine-lambda-gpu-three"}
    assert [one.name for one in world.live().all()] == ["three", DEFAULT]
    assert told("rollback", code=1)[1].startswith("invalid_request: three is live, and nothing was before it")


@pytest.mark.parametrize(("answer", "is_deleted"), [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False)])
def test_a_person_is_asked_first(
    world: World,
    told: Callable[..., tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    is_deleted: bool,
) -> None:
    three_releases(world, told, monkeypatch)
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert "Delete 1 stack? [y/N]" in told("prune", "--delete")[1]
    assert ("mine-lambda-gpu-one" not in world.stacks()) == is_deleted


def test_where_nobody_can_answer_nothing_is_deleted(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_releases(world, told, monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "--yes deletes without asking. Nothing was deleted." in told("prune", "--delete", code=1)[1]
    assert "mine-lambda-gpu-one" in world.stacks()


def test_one_with_jobs_one_just_left_and_one_to_be_promoted_stay(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_releases(world, told, monkeypatch, settled_s=1000)
    assert "functions may still send jobs to it" in told("prune")[0]
    monkeypatch.setattr(release_prune, "SETTLED_S", -10)
    world.sqs.send_message(QueueUrl=world.urls["one"], MessageBody="x")
    time.sleep(1.1)  # the moments that decide are whole seconds
    world.announce("four")
    kept = {one["name"]: one["kept"] for one in json.loads(told("prune", "--previous", "--json")[0])["releases"]}
    assert kept == {
        "one": "jobs are still in it (1 wait, 0 run)",
        "two": None,
        "four": "it was deployed after the live one was promoted: it is still to be promoted",
    }


def test_what_has_come_since_the_question_keeps_a_release(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_releases(world, told, monkeypatch)

    def answer(_verdicts: object) -> bool:
        world.sqs.send_message(QueueUrl=world.urls["one"], MessageBody="x")
        return True

    monkeypatch.setattr(release_prune, "agreed", answer)
    said = told("prune", "--delete", code=1)[1]
    assert "one: jobs are still in it (1 wait, 0 run). Nothing was deleted" in said
    assert "mine-lambda-gpu-one" in world.stacks()


def test_a_stack_that_is_none_of_a_release_is_never_deleted(
    world: World, told: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    three_releases(world, told, monkeypatch)
    path = f"/comfy-serverless/{STACK}/releases/one"
    fields = json.loads(world.ssm.get_parameter(Name=path)["Parameter"]["Value"])
    text = json.dumps({**fields, "stack": STACK})
    world.ssm.put_parameter(Name=path, Value=text, Type="String", Overwrite=True)
    printed, _ = told("prune", "--delete", "--yes", "--previous")
    assert "the stack that it names (mine) is not a release of mine: delete it by hand" in printed
    assert STACK in world.stacks()


def test_yes_without_delete_is_a_mistake(capsys: pytest.CaptureFixture[str], world: World) -> None:
    with pytest.raises(SystemExit):
        main(["release", "prune", "--yes"])
    assert "nothing is asked without --delete" in capsys.readouterr().err
