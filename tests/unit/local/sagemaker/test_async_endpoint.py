"""The endpoint on this machine is as strict as SageMaker, and as unkind."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.aws.processes import LocalProcess, clean_environment
from local.sagemaker.async_endpoint import MAX_DELIVERIES, AsyncEndpoint
from local.sagemaker.async_instance import Health
from local.sagemaker.async_invocation import HEADER, FailureLayout, Invocation, Refused
from tests.patience import PATIENCE_S

PROGRAM = Path(__file__).parents[2] / "fake_container.py"
BUCKET = "bucket"
QUICK = Health(every_s=0.05, startup_s=20.0, patience_s=0.5)


class Objects:
    """As much of S3 as an endpoint uses."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def put_object(self, **put: Any) -> None:
        self.content[f"s3://{put['Bucket']}/{put['Key']}"] = put["Body"]

    def get_object(self, **wanted: str) -> Any:
        try:
            return {"Body": BytesIO(self.content[f"s3://{wanted['Bucket']}/{wanted['Key']}"])}
        except KeyError:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject") from None


class World:
    """An endpoint in front of programs that do as they are told."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self.folder = folder
        self.s3 = Objects()
        self.told: list[dict[str, Any]] = []
        self.started: list[LocalProcess] = []
        fields: dict[str, Any] = {"health": QUICK, **options}
        self.endpoint = AsyncEndpoint(
            "gpu",
            s3=self.s3,  # type: ignore[arg-type]
            bucket=BUCKET,
            start=self._start,
            notify=self.told.append,
            **fields,
        )
        self.client: Any = boto3.Session("local", "local").client(
            "sagemaker-runtime",
            region_name="eu-central-1",
            endpoint_url=self.endpoint.url,
            config=Config(proxies={}, retries={"total_max_attempts": 1}, parameter_validation=False),
        )

    def _start(self, port: int) -> LocalProcess:
        command = [sys.executable, str(PROGRAM), str(port), str(self.folder)]
        self.started.append(LocalProcess(command, clean_environment(), name="container"))
        return self.started[-1]

    def invoke(self, body: Any = None, **fields: Any) -> dict[str, Any]:
        inline = {} if "InputLocation" in fields else {"Body": json.dumps(body or {}).encode()}
        answer: dict[str, Any] = self.client.invoke_endpoint_async(EndpointName="gpu", **inline, **fields)
        return answer

    def ends(self, count: int = 1, *, within_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """The notifications, as soon as there are so many."""
        until(lambda: len(self.told) >= count, within_s=within_s)
        return self.told

    def hold(self, name: str = "held") -> Path:
        """What invocations that hold wait for, until it is unlinked."""
        held = self.folder / name
        held.touch()
        return held

    def answer(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.s3.content[sent["OutputLocation"]])
        return document

    def failure(self, sent: Mapping[str, Any]) -> bytes:
        return self.s3.content[sent["FailureLocation"]]


Make = Callable[..., AbstractContextManager[World]]


@pytest.fixture
def world(tmp_path: Path) -> Make:
    """`with world(idle_s=1) as here:` runs an endpoint with these options."""

    @contextmanager
    def make(**options: Any) -> Iterator[World]:
        here = World(tmp_path, options)
        with here.endpoint:
            yield here

    return make


def until(is_so: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, "it has not come to that"
        time.sleep(0.01)


def test_from_zero_an_invocation_starts_an_instance_and_its_answer_lies_where_it_was_said(world: Make) -> None:
    with world() as here:
        assert here.endpoint.instances == []
        sent = here.invoke(
            {"x": 1},
            InferenceId="one",
            ContentType="application/json",
            CustomAttributes="trace=1",
            S3OutputPathExtension="jobs/one",
            Filename="answer.json",
        )
        assert (sent["InferenceId"], sent["ResponseMetadata"]["HTTPStatusCode"]) == ("one", 202)
        assert sent["OutputLocation"] == f"s3://{BUCKET}/endpoint/output/jobs/one/answer.json"
        assert sent["FailureLocation"] == f"s3://{BUCKET}/endpoint/failure/jobs/one/answer.json"
        (told,) = here.ends()
        answer = here.answer(sent)
        assert (answer["inference_id"], answer["custom"], answer["content_type"], answer["got"]) == (
            "one",
            "trace=1",
            "application/json",
            {"x": 1},
        )
        assert (told["invocationStatus"], told["inferenceId"]) == ("Completed", "one")
        assert told["responseParameters"]["outputLocation"] == sent["OutputLocation"]


def test_without_a_name_each_invocation_has_its_own_and_an_output_beside_the_others(world: Make) -> None:
    with world() as here:
        first, second = here.invoke(), here.invoke()
        here.ends(2)
        assert first["InferenceId"] != second["InferenceId"]
        assert first["OutputLocation"] != second["OutputLocation"]
        assert first["OutputLocation"].endswith(".out")


def test_input_is_read_from_s3_and_one_that_is_not_there_fails_the_invocation(world: Make) -> None:
    with world() as here:
        here.s3.content["s3://inputs/one.json"] = b'{"from": "s3"}'
        found = here.invoke(InputLocation="s3://inputs/one.json")
        here.ends(1)
        assert here.answer(found)["got"] == {"from": "s3"}
        lost = here.invoke(InputLocation="s3://inputs/two.json")
        assert here.ends(2)[1]["invocationStatus"] == "Failed"
        assert b"NoSuchKey" in here.failure(lost)


def test_capacity_takes_its_time(world: Make) -> None:
    with world(start_delay_s=0.6) as here:
        (here.folder / "slow").touch()
        begun = time.monotonic()
        here.invoke()
        until(lambda: bool(here.endpoint.instances))
        assert time.monotonic() - begun >= 0.6, "the delay"
        assert here.endpoint.backlog == 1
        here.ends()
        assert time.monotonic() - begun >= 1.6, "nothing is sent before a ping is answered with 200"


def test_no_instance_has_more_in_flight_than_it_may_and_both_kinds_count_as_backlog(world: Make) -> None:
    with world(in_flight=2) as here:
        held = here.hold()
        sent = [here.invoke({"holds": True}) for _ in range(5)]
        until(lambda: here.endpoint.waiting == 3 and len([*here.folder.glob("calls-*")]) == 2)
        assert here.endpoint.backlog == 5
        held.unlink()
        here.ends(5)
        assert {here.answer(one)["at_once"] for one in sent} == {1, 2}
        until(lambda: here.endpoint.backlog == 0)


def test_there_are_as_many_instances_as_the_backlog_needs(world: Make) -> None:
    with world(in_flight=1, max_instances=2) as here:
        held = here.hold()
        sent = [here.invoke({"holds": True}) for _ in range(4)]
        until(lambda: here.endpoint.waiting == 2)
        held.unlink()
        here.ends(4)
        assert len({here.answer(one)["pid"] for one in sent}) == 2
        assert len(here.started) == 2


def test_it_goes_back_to_zero_when_nobody_waits_and_comes_again(world: Make) -> None:
    with world(idle_s=0.3) as here:
        first = here.invoke()
        here.ends(1)
        until(lambda: here.endpoint.instances == [] and here.started[0].exit_code is not None)
        second = here.invoke()
        here.ends(2)
        assert here.answer(first)["pid"] != here.answer(second)["pid"]


def test_what_waits_too_long_expires_and_never_runs(world: Make) -> None:
    with world(start_delay_s=3600.0, shortest_ttl_s=1) as here:
        here.invoke(InferenceId="late", RequestTTLSeconds=1)
        here.invoke(InferenceId="patient")
        (told,) = here.ends()
        assert (told["invocationStatus"], told["inferenceId"]) == ("Expired", "late")
        assert here.endpoint.waiting == 1
        assert here.s3.content == {}


def test_what_takes_too_long_has_failed_though_the_container_goes_on(world: Make) -> None:
    with world() as here:
        held = here.hold()
        sent = here.invoke({"holds": True}, InvocationTimeoutSeconds=1)
        (told,) = here.ends()
        held.unlink()
        assert told["invocationStatus"] == "Failed"
        assert b"within 1 s" in here.failure(sent)
        assert here.endpoint.instances[0].is_usable


def test_an_instance_that_dies_is_replaced_and_its_invocations_are_delivered_again(world: Make) -> None:
    with world() as here:
        other = here.invoke()
        here.ends(1)
        sent = here.invoke({"dies": 1})
        here.ends(2)
        assert here.answer(sent)["deliveries"] == 2
        assert here.answer(sent)["pid"] != here.answer(other)["pid"]


def test_an_invocation_that_kills_every_container_fails_at_last(world: Make) -> None:
    with world() as here:
        sent = here.invoke({"dies": 99}, InferenceId="deadly")
        (told,) = here.ends()
        assert told["invocationStatus"] == "Failed"
        assert f"{MAX_DELIVERIES} times".encode() in here.failure(sent)
        assert len((here.folder / "calls-deadly").read_text()) == MAX_DELIVERIES


def test_an_instance_that_answers_pings_no_more_is_replaced_with_all_it_does(world: Make) -> None:
    with world() as here:
        sent = here.invoke({"sickens": True})
        here.ends()
        assert here.answer(sent)["deliveries"] == 2
        assert here.started[0].exit_code is not None, "the sick one is gone"
        assert here.answer(sent)["pid"] == here.started[1].pid


def test_an_instance_that_never_answers_a_ping_is_given_up(world: Make) -> None:
    with world(health=Health(every_s=0.05, startup_s=0.3, patience_s=10.0)) as here:
        (here.folder / "slow").touch()
        here.invoke()
        until(lambda: len(here.started) >= 2)
        until(lambda: here.started[0].exit_code is not None)
        (here.folder / "slow").unlink()
        here.endpoint._health = QUICK
        assert here.ends()[0]["invocationStatus"] == "Completed"


def test_scale_in_ends_a_container_with_sigterm_and_its_work_goes_to_another(world: Make) -> None:
    with world() as here:
        held = here.hold()
        sent = here.invoke({"holds": True})
        until(lambda: here.endpoint.waiting == 0)
        (instance,) = here.endpoint.instances
        here.endpoint.scale_in(instance)
        held.unlink()
        here.ends()
        assert here.started[0].exit_code == -15, "it had no handler"
        assert here.answer(sent)["pid"] == here.started[1].pid


@pytest.mark.parametrize("layout", list(FailureLayout))
def test_a_failure_is_told_in_either_layout_with_the_body_in_its_object(world: Make, layout: FailureLayout) -> None:
    with world(failure_layout=layout) as here:
        sent = here.invoke({"status": 503})
        (told,) = here.ends()
        assert json.loads(here.failure(sent))["got"] == {"status": 503}
        assert sent["OutputLocation"] not in here.s3.content
        place = told if layout is FailureLayout.FLAT else told["responseParameters"]
        assert place["failureLocation"] == sent["FailureLocation"]
        assert place["failureReason"].startswith("status 503")
        assert ("responseParameters" in told) is (layout is FailureLayout.NESTED)


@pytest.mark.parametrize("wish", [{"bare": True}, {"status": 302}, {"status": 404}])
def test_an_answer_that_is_none_is_a_failure(world: Make, wish: dict[str, Any]) -> None:
    with world() as here:
        sent = here.invoke(wish)
        assert here.ends()[0]["invocationStatus"] == "Failed"
        assert ("did not specify the required Content-Length" in here.failure(sent).decode()) is ("bare" in wish)


def test_an_invocation_can_be_delivered_again_while_it_runs_and_afterwards(world: Make) -> None:
    with world() as here:
        first, second = here.hold("held-1"), here.hold("held-2")
        calls = here.folder / "calls-twice"
        sent = here.invoke({"holds": True}, InferenceId="twice")
        until(calls.exists)
        here.endpoint.deliver_again("twice")
        until(lambda: calls.read_text() == "xx")
        first.unlink()
        here.ends(1)
        second.unlink()
        here.ends(2)
        assert (here.answer(sent)["deliveries"], here.answer(sent)["at_once"]) == (2, 2)
        here.endpoint.deliver_again("twice")
        here.ends(3)
        assert (here.answer(sent)["deliveries"], here.answer(sent)["at_once"]) == (3, 1)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("RequestTTLSeconds", {"RequestTTLSeconds": 59}),
    ("RequestTTLSeconds", {"RequestTTLSeconds": 21_601}),
    ("InvocationTimeoutSeconds", {"InvocationTimeoutSeconds": 0}),
    ("InvocationTimeoutSeconds", {"InvocationTimeoutSeconds": 3601}),
    ("InferenceId", {"InferenceId": ""}),
    ("InferenceId", {"InferenceId": "i" * 65}),
    ("InferenceId", {"InferenceId": " one"}),
    ("S3OutputPathExtension", {"S3OutputPathExtension": "s3:one"}),
    ("S3OutputPathExtension", {"S3OutputPathExtension": "https:one"}),
    ("S3OutputPathExtension", {"S3OutputPathExtension": "one two"}),
    ("S3OutputPathExtension", {"S3OutputPathExtension": "x" * 513}),
    ("Filename", {"Filename": "f" * 33}),
    ("Filename", {"Filename": ".hidden"}),
    ("Filename", {"Filename": "one.tar.gz"}),
    ("Filename", {"Filename": "one/two"}),
    ("CustomAttributes", {"CustomAttributes": "c" * 1025}),
    ("CustomAttributes", {"CustomAttributes": "ü"}),
    ("ContentType", {"Content-Type": "t" * 1025}),
    ("Accept", {"Accept": "a" * 1025}),
    ("InputLocation", {"InputLocation": "one/two"}),
    ("InputLocation", {"InputLocation": "s3://" + "k" * 1020}),
]


@pytest.mark.parametrize(("name", "fields"), REFUSED)
def test_what_sagemaker_refuses_is_refused(name: str, fields: dict[str, Any]) -> None:
    headers = {
        HEADER + ("Inference-Id" if key == "InferenceId" else key).replace("CustomA", "Custom-A"): str(value)
        for key, value in fields.items()
    }
    with pytest.raises(Refused, match=name):
        Invocation.of(headers, b"" if "InputLocation" in fields else b"{}")


def test_one_body_there_must_be_and_no_more_and_not_too_long() -> None:
    for headers, body in (
        ({}, b""),
        ({f"{HEADER}InputLocation": "s3://bucket/key"}, b"{}"),
        ({}, b"x" * 128_001),
    ):
        with pytest.raises(Refused, match="Body"):
            Invocation.of(headers, body)


def test_what_is_just_within_the_limits_is_taken() -> None:
    longest = Invocation.of(
        {
            f"{HEADER}RequestTTLSeconds": "21600",
            f"{HEADER}InvocationTimeoutSeconds": "3600",
            f"{HEADER}Inference-Id": "i" * 64,
            f"{HEADER}S3OutputPathExtension": "x" * 512,
            f"{HEADER}Filename": "f" * 32,
            f"{HEADER}Custom-Attributes": "c" * 1024,
        },
        b"x" * 128_000,
    )
    assert (longest.ttl_s, longest.timeout_s) == (21_600, 3600)
    shortest = Invocation.of(
        {f"{HEADER}RequestTTLSeconds": "60", f"{HEADER}InvocationTimeoutSeconds": "1"}, b"x", shortest_ttl_s=None
    )
    assert (shortest.ttl_s, shortest.timeout_s) == (60, 1)
    plain = Invocation.of({}, b"x")
    assert (plain.ttl_s, plain.timeout_s) == (21_600, 900)


def test_clients_are_told_what_is_wrong_with_their_request(world: Make) -> None:
    with world() as here:
        with pytest.raises(ClientError, match=r"RequestTTLSeconds is 10; it must be 60 to 21600") as caught:
            here.invoke(RequestTTLSeconds=10)
        assert caught.value.response["Error"]["Code"] == "ValidationError"
        with pytest.raises(ClientError, match="not found"):
            here.client.invoke_endpoint_async(EndpointName="other", Body=b"{}")
        assert here.endpoint.backlog == 0
