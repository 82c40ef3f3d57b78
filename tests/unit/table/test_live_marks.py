"""The release that jobs go to: how it is written and read, and where jobs go while some of it is gone."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.handlers import wiring
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table import dispatch as module
from comfy_serverless.table.dispatch import RELEASE_GONE, Queues, Switch
from comfy_serverless.table.live import DEFAULT, NAME, UNNAMED, Live, Release, live_parameter
from comfy_serverless.table.target import parse_target
from tests.unit.jobs_table import REGION, aws

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"
PARAMETER = "/comfy-serverless/stack/dispatch"
LIVE = "/comfy-serverless/stack/live"


def release(name: str, **target: Any) -> Release:
    fields = target or {"backend": "queue", "job_queue_url": f"https://{name}", "batch_queue_url": f"https://{name}-b"}
    return Release(name, fields, version=f"{name}-1")


def names(releases: Any) -> list[str]:
    return [one.name for one in releases]


# What is decided.


def test_promoting_remembers_so_many_and_forgets_none_in_which_jobs_may_wait() -> None:
    live = Live()
    for name in ("one", "two", "three"):
        live = live.promoted(release(name), since="now")
    assert (live.now.name, names(live.before), names(live.left)) == ("three", ["two", "one"], [DEFAULT])
    again = live.promoted(release("one"), since="later", keep=2)
    assert (again.now.name, names(again.before), names(again.left)) == ("one", ["three"], ["two", DEFAULT])
    assert names(again.all()) == ["one", "three", DEFAULT, "two"]
    assert names(again.emptied({"two"}).left) == [DEFAULT]


def test_what_is_forgotten_is_neither_gone_back_to_nor_looked_for() -> None:
    live = Live()
    for name in ("one", "two", "three", "four"):
        live = live.promoted(release(name), since="now")
    assert (names(live.before), names(live.left)) == (["three", "two"], ["one", DEFAULT])
    gone = live.forgotten({"two", "one"})
    assert (gone.now, names(gone.before), names(gone.left)) == (live.now, ["three"], [DEFAULT])


def test_rolling_back_leads_to_the_one_before_and_back_to_where_no_release_had_a_name() -> None:
    live = Live().promoted(release("one"), since="1").promoted(release("two"), since="2")
    back = live.rolled_back(since="3")
    assert back is not None
    assert (back.now.name, back.now.since, names(back.before), names(back.left)) == ("one", "3", [DEFAULT], ["two"])
    first = back.rolled_back(since="4")
    assert first is not None
    assert (first.now.name, first.now.target, names(first.left)) == (DEFAULT, {}, ["one", "two"])
    assert first.rolled_back(since="5") is None


def test_rolling_back_passes_over_what_is_gone_but_forgets_no_job_in_it() -> None:
    live = (
        Live()
        .promoted(release("one"), since="1")
        .promoted(release("two"), since="2")
        .promoted(release("three"), since="3")
    )
    back = live.rolled_back(since="4", is_there=lambda one: one.name != "two")
    assert back is not None
    assert (back.now.name, names(back.before), names(back.left)) == ("one", [], ["three", "two", DEFAULT])
    assert live.rolled_back(since="4", is_there=lambda _: False) is None


@pytest.mark.parametrize("name", ["next", "a", "v2", "flux-2", "a" * 20])
def test_a_release_is_called_as_infra_allows_it(name: str) -> None:
    assert NAME.fullmatch(name)
    settings = (Path(__file__).parents[3] / "infra" / "settings.py").read_text(encoding="utf-8")
    assert f'pattern=r"^({NAME.pattern})?$"' in settings


def test_what_is_written_is_read_the_same() -> None:
    live = Live().promoted(release("one"), since="1").promoted(release("two", backend="new", any=[1]), since="2")
    assert Live.parse(live.to_text()) == live
    assert Live.parse("") == Live(UNNAMED)


def test_the_first_format_stays_readable() -> None:
    live = Live.parse((FIXTURES / "live.json").read_text())
    assert (live.now.name, live.now.version, names(live.before), names(live.left)) == (
        "next", "3f2a91c07b5e", ["first", DEFAULT], ["broken"],
    )  # fmt: skip
    assert parse_target(live.now.target_text) == parse_target((FIXTURES / "dispatch_queue.json").read_text())


@pytest.mark.parametrize(
    "text", ["{", "[]", "7", "{}", '{"release": "a", "before": 3}', '{"release": "a", "left": [1]}']
)
def test_what_no_command_has_written_is_named(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"the parameter `live` holds .*: delete it \(aws ssm delete-parameter"):
        Live.parse(text)


@pytest.mark.parametrize(("dispatch", "live"), [(PARAMETER, LIVE), ("dispatch", "live"), ("/a/b", "/a/live")])
def test_it_stands_beside_the_other(dispatch: str, live: str) -> None:
    assert live_parameter(dispatch) == live


# Where jobs go.


class World:
    """Queues of some releases, the two parameters, and a switch that looks each time."""

    def __init__(self, session: Any) -> None:
        self.sqs, self.ssm = session.client("sqs"), session.client("ssm")
        self.urls = {
            name: [self.sqs.create_queue(QueueName=f"{name}{kind}")["QueueUrl"] for kind in ("", "-batches")]
            for name in ("own", "gpu", "one", "two")
        }
        self.switch = self.new_switch()

    def new_switch(self) -> Switch:
        return Switch(Queues.at(*self.urls["own"], sqs=self.sqs), PARAMETER, self.ssm, wiring.endpoint)

    def release(self, name: str) -> Release:
        job, batch = self.urls[name]
        return Release(name, {"backend": "queue", "job_queue_url": job, "batch_queue_url": batch}, version=f"{name}-1")

    def announce(self, name: str) -> None:
        self.put(PARAMETER, self.release(name).target_text)

    def put(self, parameter: str, text: str) -> None:
        self.ssm.put_parameter(Name=parameter, Value=text, Type="String", Overwrite=True)

    def promote(self, *releases: str) -> None:
        live = Live()
        for name in releases:
            live = live.promoted(self.release(name), since="now")
        self.put(LIVE, live.to_text())

    def delete(self, name: str) -> None:
        for url in self.urls[name]:
            self.sqs.delete_queue(QueueUrl=url)

    def send(self, job_id: str, *, is_batch: bool = False) -> None:
        self.switch.send(
            JobMessage(job_id=job_id, address=S3Address.parse("s3://assets/requests/t/1.json")), is_batch=is_batch
        )

    def waiting(self, name: str) -> list[str]:
        found = []
        for url in self.urls[name]:
            answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            found += [json.loads(message["Body"])["job"] for message in answer.get("Messages", [])]
        return sorted(found)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "TARGET_KNOWN_S", 0.0)
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.setenv(name, REGION)
    with aws() as session:
        yield World(session)


def gone(text: str) -> int:
    """How often a live release was told to be gone, in the metrics."""
    return sum(json.loads(line).get("code") == RELEASE_GONE for line in text.splitlines() if line.startswith('{"_aws'))


def test_a_live_release_wins_over_a_gpu_stack_without_a_name(world: World) -> None:
    world.announce("gpu")
    world.send("job-1")
    world.promote("one")
    world.send("job-2")
    world.send("job-3", is_batch=True)
    assert world.switch.release() == ("one", "one-1")
    assert (world.waiting("gpu"), world.waiting("one")) == (["job-1"], ["job-2", "job-3"])


def test_back_where_no_release_has_a_name_the_gpu_stack_is_or_else_our_own(world: World) -> None:
    live = Live().promoted(world.release("one"), since="1").rolled_back(since="2")
    assert live is not None
    world.put(LIVE, live.to_text())
    world.send("job-1")
    world.announce("gpu")
    world.send("job-2")
    assert (world.waiting("own"), world.waiting("gpu"), world.switch.release()) == (["job-1"], ["job-2"], (DEFAULT, ""))


def test_a_release_that_is_gone_is_told_and_jobs_go_to_the_one_before(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.announce("gpu")
    world.promote("one", "two")
    world.send("job-1")
    assert gone(capsys.readouterr().out) == 0
    world.delete("two")
    world.send("job-2")
    world.send("job-3", is_batch=True)
    assert world.waiting("one") == ["job-2", "job-3"]
    assert gone(capsys.readouterr().out) >= 1
    world.delete("one")
    world.send("job-4")
    assert world.waiting("gpu") == ["job-4"]
    world.delete("gpu")
    world.send("job-5")
    world.switch = world.new_switch()  # of a process that has seen nothing of it
    world.send("job-6")
    assert world.waiting("own") == ["job-5", "job-6"]


@pytest.mark.parametrize("is_batch", [False, True])
def test_one_that_goes_within_the_minute_costs_no_job(
    world: World, monkeypatch: pytest.MonkeyPatch, is_batch: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "TARGET_KNOWN_S", 60.0)
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 60.0)  # its queue is still believed to be there
    world.promote("one", "two")
    assert (world.switch.depth(), world.switch.depth(is_batch=True)) == (0, 0)
    world.delete("two")
    world.send("job-1", is_batch=is_batch)
    world.switch.send_many([JobMessage(job_id="job-2", address=S3Address.parse("s3://assets/requests/t/1.json"))])
    assert world.waiting("one") == ["job-1", "job-2"]
    assert gone(capsys.readouterr().out) == 1


def test_how_many_wait_can_be_asked_although_the_release_is_gone(world: World) -> None:
    world.promote("one")
    world.delete("one")
    world.send("job-1")
    assert (world.switch.depth(), world.switch.may_hold(), world.switch.still_wait()) == (1, False, True)


def test_jobs_of_the_release_before_still_wait_there_and_are_not_taken_for_lost(world: World) -> None:
    world.promote("one")
    world.send("job-1")
    world.promote("one", "two")
    assert (world.switch.depth(), world.switch.still_wait(), world.switch.still_wait(is_batch=True)) == (0, True, False)
    back = Live().promoted(world.release("one"), since="1").rolled_back(since="2")
    assert back is not None
    world.put(LIVE, back.to_text())
    assert (world.switch.release()[0], world.switch.still_wait()) == (DEFAULT, True)
    assert world.waiting("one") == ["job-1"]
    assert (world.switch.still_wait(), world.switch.may_hold()) == (False, True)


def test_a_queue_that_cannot_be_asked_now_is_not_taken_for_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.promote("one", "two")

    def refuse(_: JobQueue, *, error: Exception) -> int:
        raise error

    errors = (
        ClientError({"Error": {"Code": "ThrottlingException"}}, "GetQueueAttributes"),
        EndpointConnectionError(endpoint_url="https://sqs"),
    )
    for error in errors:
        with monkeypatch.context() as patch:
            patch.setattr(JobQueue, "depth", functools.partialmethod(refuse, error=error))
            world.send("job-1")
        assert world.waiting("two") == ["job-1"]
    assert gone(capsys.readouterr().out) == 0


def test_one_before_that_cannot_be_used_stops_no_job(world: World) -> None:
    odd = Release("odd", {"backend": "ecs"})
    live = Live().promoted(odd, since="1").promoted(world.release("one"), since="2")
    world.put(LIVE, live.to_text())
    world.send("job-1")
    assert (world.waiting("one"), world.switch.still_wait()) == (["job-1"], False)
    world.delete("one")
    world.send("job-2")
    assert world.waiting("own") == ["job-2"]


def test_a_parameter_that_nobody_can_read_is_named_and_no_job_goes_astray(world: World) -> None:
    for text in ('{"release": "one", "backend": "ecs"}', '{"release": "one"}'):
        world.put(LIVE, text)
        with pytest.raises(InvalidSetting, match="the release one in `live` holds"):
            world.send("job-1")
    assert world.waiting("own") == []
