"""What SQS handlers give back comes again soon, and ever later: each handler that template.yaml feeds from a queue."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from moto.core.utils import unix_time_millis

from comfy_serverless.aws import sqs as module
from comfy_serverless.handlers import again, wiring, wiring_ingest, wiring_worker
from comfy_serverless.settings import Settings
from local.aws.stack import QUEUES
from local.aws.template import of_type, properties_of
from tests.unit.event_samples import s3_event
from tests.unit.jobs_table import NAME, REGION, aws, create_table
from tests.unit.wired import wired

ROOT = Path(__file__).parents[3]
DROPS, ASSETS, RESULTS = "drops", "assets", "results"
DROP = "jobs/fox.json"
ACCOUNT = "123456789012"
FUNCTIONS = of_type("AWS::Serverless::Function")
#: Every queue that the template feeds a function from, and the function.
FEEDS = [
    (event["Properties"]["Queue"]["Fn::GetAtt"][0], name)
    for name, function in FUNCTIONS.items()
    for event in function.get("Events", {}).values()
    if event["Type"] == "SQS"
]
_JOB = {"job": "j-1", "request": f"s3://{ASSETS}/requests/j-1.json"}
#: A message of each queue, which cannot be dealt with while the table is away.
BODIES: dict[str, Any] = {
    "JobQueue": _JOB,
    "BatchQueue": _JOB,
    "DropQueue": s3_event(DROP, bucket=DROPS),
    "ManifestQueue": {"batch": "b-1"},
    "WebhookQueue": {"job": "j-1"},
}
MAX_VISIBILITY_S = 12 * 3600
#: What messages must outlast: an outage of a service of AWS in a region, in seconds.
OUTAGE_S = 4 * 3600


class Context:
    """Lambda's context, as far as handlers ask it."""

    left_s = 600
    aws_request_id = "r-1"

    def get_remaining_time_in_millis(self) -> int:
        return self.left_s * 1000


class World:
    """Queues and a table that can be away, as a deployed function finds them."""

    def __init__(self, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table, _ = create_table(session)
        self.s3, self.sqs = session.client("s3"), session.client("sqs")
        for bucket in (DROPS, ASSETS, RESULTS):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        graph = {"1": {"class_type": "EmptyImage", "inputs": {}}}
        self.s3.put_object(Bucket=DROPS, Key=DROP, Body=json.dumps({"workflow": graph}).encode())
        self.urls = {
            queue: self.sqs.create_queue(
                QueueName=queue, Attributes={"VisibilityTimeout": str(properties_of(queue)["VisibilityTimeout"])}
            )["QueueUrl"]
            for queue, _ in FEEDS
        }
        self.is_away = False
        self.pauses: list[int] = []
        self.later_s = 0.0
        monkeypatch.setattr("moto.sqs.models.unix_time_millis", lambda: unix_time_millis() + self.later_s * 1000)
        # No engine is started for a job that is not begun.
        monkeypatch.setattr(
            wiring_worker, "worker", lambda: SimpleNamespace(ahead=SimpleNamespace(look=lambda _: None))
        )
        monkeypatch.setattr(wiring_worker, "node_list", lambda: None)

    def settings(self) -> Settings:
        return Settings(
            jobs_table=NAME,
            output_bucket=RESULTS,
            assets_bucket=ASSETS,
            job_queue_url=self.urls["JobQueue"],
            batch_queue_url=self.urls["BatchQueue"],
            manifest_queue_url=self.urls["ManifestQueue"],
        )

    def watch(self) -> None:
        """Have the clients of functions fail while the table is away, and count what they hide messages for."""
        for dynamodb in (wiring.table()._client, wiring_ingest.ingest().jobs._table._client):
            dynamodb.meta.events.register("before-call.dynamodb", self._fail)
        wiring.sqs().meta.events.register(
            "provide-client-params.sqs.ChangeMessageVisibility",
            lambda params, **_: self.pauses.append(params["VisibilityTimeout"]),
        )

    def _fail(self, **_: Any) -> None:
        if self.is_away:
            raise EndpointConnectionError(endpoint_url="https://dynamodb")

    def take(self, queue: str, *, received: int | None = None) -> dict[str, Any] | None:
        """The event that Lambda makes of the queue's next message."""
        answer = self.sqs.receive_message(QueueUrl=self.urls[queue], AttributeNames=["All"])
        for message in answer.get("Messages", []):
            count = received or int(message["Attributes"]["ApproximateReceiveCount"])
            record = {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": {"ApproximateReceiveCount": str(count)},
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
            }
            return {"Records": [record]}
        return None

    def send(self, queue: str) -> None:
        self.sqs.send_message(QueueUrl=self.urls[queue], MessageBody=json.dumps(BODIES[queue]))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with aws() as session:
        world = World(session, monkeypatch)
        with wired(monkeypatch, world.settings()):
            world.watch()
            yield world


def invoke(function: str, event: dict[str, Any]) -> list[str]:
    """Invoke the handler that the template names; returns which messages it gives back."""
    command = FUNCTIONS[function].get("ImageConfig", {}).get("Command", ["comfy_serverless.handlers.generate.handler"])
    handler = importlib.import_module(command[0].removesuffix(".handler")).handler
    return [failure["itemIdentifier"] for failure in handler(event, Context())["batchItemFailures"]]


def test_there_is_a_message_of_every_queue_that_feeds_a_function() -> None:
    assert {queue for queue, _ in FEEDS} == BODIES.keys() == set(QUEUES)


@pytest.mark.parametrize(("queue", "function"), FEEDS)
def test_what_a_handler_gives_back_comes_again_within_a_minute(world: World, queue: str, function: str) -> None:
    world.send(queue)
    event = world.take(queue)
    assert event is not None
    world.is_away = True
    assert invoke(function, event) == [event["Records"][0]["messageId"]]
    world.later_s = 60
    assert world.take(queue) is not None, f"{function} leaves it to the visibility timeout of {queue}"


@pytest.mark.parametrize(("queue", "function"), FEEDS)
def test_pauses_grow_and_all_deliveries_together_outlast_an_outage(world: World, queue: str, function: str) -> None:
    world.send(queue)
    event = world.take(queue)
    assert event is not None
    world.is_away = True
    deliveries = properties_of(queue)["RedrivePolicy"]["maxReceiveCount"]
    pauses = []
    for received in range(1, deliveries):
        event["Records"][0]["attributes"]["ApproximateReceiveCount"] = str(received)
        assert invoke(function, event)
        pauses.append(world.pauses[-1])
    assert all(0 < pause <= MAX_VISIBILITY_S for pause in pauses), "SQS refuses more"
    assert all(after > 0.8 * before for before, after in itertools.pairwise(pauses))  # each is spread
    assert OUTAGE_S < sum(pauses) < properties_of(queue)["MessageRetentionPeriod"]


def test_pauses_before_jobs_outlast_an_outage_wherever_a_queue_of_jobs_is() -> None:
    """On GPUs, too, whose queues allow as many deliveries (tests/infra) and whose handlers have the same pauses."""
    deliveries = properties_of("JobQueue")["RedrivePolicy"]["maxReceiveCount"]
    pauses = [module.pause_s(received, again.JOBS_AGAIN_AFTER_S) for received in range(1, deliveries)]
    assert sum(pauses) > OUTAGE_S


def test_whatever_a_handler_gives_back_it_puts_off() -> None:
    """Also one that only a GPU stack has: a partial response is made in one place, and goes through the other."""
    giving = {}
    for path in (ROOT / "lambda" / "comfy_serverless").rglob("*.py"):
        names = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Name | ast.Attribute)
        }
        if names & {"take_each", "come_again"} and path.name not in {"sqs.py", "events.py"}:
            giving[path.name] = "put_off" in names
    assert giving == dict.fromkeys(["forward.py", "generate.py", "ingest.py", "webhooks.py"], True)


@pytest.mark.parametrize(("queue", "function"), FEEDS)
def test_a_role_may_put_off_what_its_function_gives_back(queue: str, function: str) -> None:
    role = properties_of(FUNCTIONS[function]["Role"]["Fn::GetAtt"][0])
    statements = [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]
    assert any(
        "sqs:ChangeMessageVisibility" in one["Action"] and {"Fn::GetAtt": [queue, "Arn"]} in _list(one["Resource"])
        for one in statements
        if one["Effect"] == "Allow"
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_a_drop_that_meets_a_table_that_is_away_for_one_call_is_a_job_within_a_minute(world: World) -> None:
    world.send("DropQueue")
    first = world.take("DropQueue")
    assert first is not None
    world.is_away = True
    assert invoke("IngestFunction", first)
    world.is_away = False
    world.later_s = 35
    second = world.take("DropQueue")
    assert second is not None
    assert second["Records"][0]["attributes"]["ApproximateReceiveCount"] == "2"
    assert invoke("IngestFunction", second) == []
    jobs = world.sqs.receive_message(QueueUrl=world.urls["JobQueue"])["Messages"]
    assert len(jobs) == 1


def test_a_drop_that_lambda_had_given_up_is_a_job_when_its_record_is_moved_back(world: World) -> None:
    record = {
        "version": "1.0",
        "requestContext": {"requestId": "r-1", "functionArn": "arn:aws:lambda:::function:generate"},
        "requestPayload": BODIES["DropQueue"],
    }
    world.sqs.send_message(QueueUrl=world.urls["DropQueue"], MessageBody=json.dumps(record))
    event = world.take("DropQueue")
    assert event is not None
    assert invoke("IngestFunction", event) == []
    assert len(world.sqs.receive_message(QueueUrl=world.urls["JobQueue"])["Messages"]) == 1


def test_a_drop_whose_function_dies_comes_again_when_that_can_no_longer_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_drops: object, _dropped: object) -> None:
        raise SystemExit("out of memory")

    monkeypatch.setattr("comfy_serverless.batches.drops.Drops.drop", die)
    world.send("DropQueue")
    event = world.take("DropQueue")
    assert event is not None
    with pytest.raises(SystemExit):
        invoke("IngestFunction", event)
    world.later_s = Context.left_s
    assert world.take("DropQueue") is None, "its function may still be at work"
    world.later_s = Context.left_s + again.AFTER_THE_END_S + 1
    assert world.take("DropQueue") is not None


@pytest.mark.parametrize(("queue", "function"), FEEDS)
def test_what_is_done_is_not_put_off(world: World, queue: str, function: str) -> None:
    world.send(queue)
    event = world.take(queue)
    assert event is not None
    assert invoke(function, event) == []
    held = [Context.left_s + again.AFTER_THE_END_S] if function == "IngestFunction" else []
    assert world.pauses == held


def test_a_message_that_cannot_be_put_off_is_given_back_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.send("DropQueue")
    event = world.take("DropQueue")
    assert event is not None
    world.sqs.delete_message(QueueUrl=world.urls["DropQueue"], ReceiptHandle=event["Records"][0]["receiptHandle"])
    world.sqs.delete_queue(QueueUrl=world.urls["DropQueue"])
    world.is_away = True
    assert invoke("IngestFunction", event) == [event["Records"][0]["messageId"]]


def test_a_message_without_a_count_has_come_once() -> None:
    messages: list[dict[str, Any]] = [{}, {"attributes": None}, {"attributes": {}}]
    assert [module.receive_count(message) for message in messages] == [1, 1, 1]
    assert module.receive_count({"attributes": {"ApproximateReceiveCount": "4"}}) == 4


def test_pauses_are_spread_by_a_tenth_and_the_last_one_stays() -> None:
    assert {module.pause_s(1) for _ in range(200)} >= {28, 29, 30, 31, 32}
    for received in (0, 1, 8, 99):
        pause = module.AGAIN_AFTER_S[min(max(received, 1), 8) - 1]
        assert abs(module.pause_s(received) - pause) <= 0.1 * pause


def test_a_queue_is_found_by_its_arn_wherever_its_region_is() -> None:
    with aws() as session:
        for region, host in (("eu-central-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")):
            client: Any = session.client("sqs", region_name=region)
            url = module.queue_url(client, f"arn:aws:sqs:{region}:{ACCOUNT}:jobs")
            assert url == f"https://sqs.{region}.{host}/{ACCOUNT}/jobs"
