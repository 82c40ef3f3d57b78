"""Where jobs are sent: to a queue, to an endpoint, or to whichever a GPU stack has announced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.session import get_session
from botocore.stub import Stubber

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.handlers import wiring
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table import dispatch as module
from comfy_serverless.table.dispatch import Endpoint, Gated, Queues, Switch
from tests.unit.jobs_table import REGION, aws

PARAMETER = "/comfy-serverless/stack/dispatch"
REQUEST = "s3://assets/requests/team/1.json"


def job(job_id: str, **fields: Any) -> JobMessage:
    return JobMessage(job_id=job_id, address=S3Address.parse(REQUEST), **fields)


class World:
    """Two queues, a parameter, and a switch that looks each time."""

    def __init__(self, session: Any) -> None:
        self.sqs, self.ssm = session.client("sqs"), session.client("ssm")
        self.own = self.sqs.create_queue(QueueName="own")["QueueUrl"]
        self.gpu = self.sqs.create_queue(QueueName="gpu")["QueueUrl"]
        self.own_batches = self.sqs.create_queue(QueueName="own-batches")["QueueUrl"]
        self.gpu_batches = self.sqs.create_queue(QueueName="gpu-batches")["QueueUrl"]
        self.switch = Switch(Queues.at(self.own, self.own_batches, sqs=self.sqs), PARAMETER, self.ssm, wiring.endpoint)

    def announce(self, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.ssm.put_parameter(Name=PARAMETER, Value=text, Type="String", Overwrite=True)

    def waiting(self, url: str) -> list[Any]:
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "TARGET_KNOWN_S", 0.0)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.setenv(name, REGION)
    with aws() as session:
        yield World(session)


def test_without_a_gpu_stack_jobs_go_to_our_own_queue(world: World) -> None:
    world.switch.send(job("job-1", extra_data={"api_key_comfy_org": "k"}))
    expected = {"job": "job-1", "request": REQUEST, "extra_data": {"api_key_comfy_org": "k"}}
    assert world.waiting(world.own) == [expected]


def test_a_gpu_stack_that_comes_and_goes_is_seen(world: World) -> None:
    world.switch.send(job("job-1"))
    world.announce({"backend": "queue", "job_queue_url": world.gpu, "batch_queue_url": world.gpu_batches})
    world.switch.send(job("job-2"))
    assert world.switch.depth() == 1
    world.ssm.delete_parameter(Name=PARAMETER)
    world.switch.send(job("job-3"))
    assert [message["job"] for message in world.waiting(world.gpu)] == ["job-2"]
    assert sorted(message["job"] for message in world.waiting(world.own)) == ["job-1", "job-3"]


def test_jobs_go_at_once_where_they_are_run_now_although_that_was_not_known_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TARGET_KNOWN_S", 60.0)
    world.announce({"backend": "queue", "job_queue_url": world.gpu, "batch_queue_url": world.gpu_batches})
    assert world.switch.depth() == 0
    for url in (world.gpu, world.gpu_batches):
        world.sqs.delete_queue(QueueUrl=url)
    world.ssm.delete_parameter(Name=PARAMETER)
    world.switch.send(job("job-1"))
    assert [message["job"] for message in world.waiting(world.own)] == ["job-1"]
    world.sqs.delete_queue(QueueUrl=world.own_batches)
    with pytest.raises(ClientError, match="does not exist"):
        world.switch.send_many([job("job-2")])


def test_the_build_of_a_release_is_what_it_announces_and_it_need_not_be_live(world: World) -> None:
    urls = {"job_queue_url": world.gpu, "batch_queue_url": world.gpu_batches}
    told = {"backend": "queue", **urls, "image": "gpu", "release_version": "1111"}
    folder = PARAMETER.rpartition("/")[0]
    world.ssm.put_parameter(Name=f"{folder}/releases/next", Value=json.dumps(told), Type="String")
    assert world.switch.build_of("next") == ("gpu", "1111")
    assert world.switch.build_of("default") == ("", "")
    live = {"release": "gone", **told, "image": "old", "before": []}
    world.ssm.put_parameter(Name=f"{folder}/live", Value=json.dumps(live), Type="String")
    assert world.switch.build_of("gone") == ("old", "1111")
    for name in ("none", "../live", "", "Next"):
        assert world.switch.build_of(name) is None


def test_an_endpoint_is_a_target_and_all_jobs_wait_in_queues_before_it(world: World) -> None:
    urls = {"job_queue_url": world.gpu, "batch_queue_url": world.gpu_batches}
    world.announce({"backend": "sagemaker", "endpoint_name": "stack-gpu", **urls})
    target = world.switch.target()
    assert isinstance(target, Gated)
    assert target.endpoint.name == "stack-gpu"
    world.switch.send(job("job-1"))
    world.switch.send(job("job-2"), is_batch=True)
    world.switch.send_many([job("job-3")])
    waiting = [[message["job"] for message in world.waiting(url)] for url in (world.gpu, world.gpu_batches)]
    assert [sorted(jobs) for jobs in waiting] == [["job-1"], ["job-2", "job-3"]]


def test_an_endpoint_of_the_release_before_gets_jobs_of_callers_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(Endpoint, "send", lambda _endpoint, message, **_: sent.append(message.job_id))
    world.announce({"backend": "sagemaker", "endpoint_name": "stack-gpu", "batch_queue_url": world.gpu_batches})
    world.switch.send(job("job-1"))
    world.switch.send(job("job-2"), is_batch=True)
    assert sent == ["job-1"]
    assert [message["job"] for message in world.waiting(world.gpu_batches)] == ["job-2"]


def test_jobs_of_batches_wait_in_a_queue_of_their_own(world: World) -> None:
    world.switch.send(job("job-1"))
    world.switch.send(job("job-2"), is_batch=True)
    world.announce({"backend": "queue", "job_queue_url": world.gpu, "batch_queue_url": world.gpu_batches})
    world.switch.send(job("job-3"), is_batch=True)
    assert (world.switch.depth(), world.switch.depth(is_batch=True)) == (0, 1)
    queues = (world.own, world.own_batches, world.gpu_batches)
    assert [message["job"] for url in queues for message in world.waiting(url)] == ["job-1", "job-2", "job-3"]


def test_what_is_known_stays_while_the_parameter_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_fields: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://ssm")

    with monkeypatch.context() as patch:
        patch.setattr(world.ssm, "get_parameters", away)
        with pytest.raises(EndpointConnectionError):
            world.switch.send(job("job-0"))
    world.announce({"backend": "queue", "job_queue_url": world.gpu, "batch_queue_url": world.gpu_batches})
    world.switch.send(job("job-1"))
    monkeypatch.setattr(world.ssm, "get_parameters", away)
    world.switch.send(job("job-2"))
    assert sorted(message["job"] for message in world.waiting(world.gpu)) == ["job-1", "job-2"]


@pytest.mark.parametrize("value", ["", "{", '{"backend": "ecs"}', '{"backend": "sagemaker"}', "[]", '{"backend": 1}'])
def test_a_parameter_that_says_nothing_known_is_named_and_no_job_goes_astray(world: World, value: str) -> None:
    world.announce(value or " ")
    with pytest.raises(InvalidSetting, match="DISPATCH_PARAMETER"):
        world.switch.send(job("job-1"))
    assert (world.waiting(world.own), world.waiting(world.gpu)) == ([], [])


def test_an_invocation_is_the_jobs_own_and_its_answer_lies_where_we_say() -> None:
    runtime = get_session().create_client(
        "sagemaker-runtime", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x"
    )
    with Stubber(runtime) as stub:
        stub.add_response(
            "invoke_endpoint_async",
            {"InferenceId": "job-1"},
            {
                "EndpointName": "stack-gpu",
                "ContentType": "application/json",
                "Accept": "application/json",
                "Body": json.dumps({"job": "job-1", "request": REQUEST}).encode(),
                "InferenceId": "job-1",
                "RequestTTLSeconds": 21_600,
                "InvocationTimeoutSeconds": 3600,
                "S3OutputPathExtension": "job-1",
                "Filename": "answer.json",
            },
        )
        Endpoint(runtime, None, "stack-gpu").send(job("job-1"), delay_s=5)  # type: ignore[arg-type]
        stub.assert_no_pending_responses()


def test_the_depth_of_an_endpoint_is_its_newest_backlog(world: World) -> None:
    metrics: Any = get_session().create_client("cloudwatch", region_name=REGION)
    endpoint = Endpoint(None, metrics, "stack-gpu")  # type: ignore[arg-type]
    assert endpoint.depth() == 0
    metrics.put_metric_data(
        Namespace="AWS/SageMaker",
        MetricData=[
            {
                "MetricName": "ApproximateBacklogSize",
                "Dimensions": [{"Name": "EndpointName", "Value": "stack-gpu"}],
                "Value": 7,
            }
        ],
    )
    assert endpoint.depth() == 7
    # A job that waits in the endpoint is not lost because its queue is empty.
    sqs: Any = get_session().create_client("sqs", region_name=REGION)
    gated = Gated(endpoint, JobQueue(sqs, world.gpu_batches), JobQueue(sqs, world.gpu))
    assert (gated.depth(is_batch=True), gated.depth()) == (7, 7)
    for number in range(2):
        gated.send(job(f"job-{number}"))
    assert (Gated(endpoint, gated.batches, JobQueue(sqs, world.gpu)).depth(), gated.depth(is_batch=True)) == (9, 7)
    assert Gated(endpoint, gated.batches, None).depth() == 7
