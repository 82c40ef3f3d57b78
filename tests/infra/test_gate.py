"""What stands before the endpoint: two fair queues, and a function that lets through what the endpoint can run."""

from __future__ import annotations

from typing import Any

import pytest

from infra.autoscaling import BACKLOG
from tests.infra.permissions import plain
from tests.infra.stacks import Synthesized, of_type, one, synthesize

pytestmark = pytest.mark.timeout(600)
ENDPOINT = "comfy-serverless-gpu-ec9e34ad"
QUEUES = ("comfy-serverless-gpu-jobs", "comfy-serverless-gpu-batches")


@pytest.fixture(scope="session")
def template(synthesized: Synthesized) -> dict[str, Any]:
    return synthesized.sagemaker


def function_of(template: dict[str, Any]) -> dict[str, Any]:
    return one(template, "AWS::Lambda::Function")


def test_both_queues_start_it_with_one_job_at_a_time_and_no_message_comes_back_meanwhile(
    template: dict[str, Any],
) -> None:
    function = function_of(template)
    mappings = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    queues = {
        template["Resources"][mapping["EventSourceArn"]["Fn::GetAtt"][0]]["Properties"]["QueueName"]: mapping
        for mapping in mappings
    }
    assert set(queues) == set(QUEUES)
    for name, mapping in queues.items():
        assert plain(mapping["FunctionName"]["Ref"]) == "Forward"
        assert mapping["BatchSize"] == 1, "each message that is taken waits, and no owner may have many of those"
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": 2}
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        queue = one(template, "AWS::SQS::Queue", QueueName=name)
        assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
        assert "FifoQueue" not in queue, "fair queues are standard ones"


def test_it_takes_nothing_of_the_ten_executions_that_a_new_account_has(template: dict[str, Any]) -> None:
    function = function_of(template)
    assert "ReservedConcurrentExecutions" not in function
    assert function["Architectures"] == ["x86_64"]
    assert function["ImageConfig"]["Command"] == ["comfy_serverless.handlers.forward.handler"]


def test_a_job_that_goes_back_to_its_queue_is_not_taken_for_a_loop(template: dict[str, Any]) -> None:
    """Lambda would end it after some 16 rounds, which are four hours without an instance."""
    assert function_of(template)["RecursiveLoop"] == "Allow"


def test_its_queues_and_those_of_the_container_are_the_ones_that_are_announced(template: dict[str, Any]) -> None:
    model = one(template, "AWS::SageMaker::Model")["PrimaryContainer"]["Environment"]
    own = function_of(template)["Environment"]["Variables"]
    for variable, name in zip(("JOB_QUEUE_URL", "BATCH_QUEUE_URL"), QUEUES, strict=True):
        assert own[variable] == model[variable]
        assert template["Resources"][own[variable]["Ref"]]["Properties"]["QueueName"] == name
    assert "ENDPOINT_NAME" not in model, "what a container sends again passes the gate as well"


@pytest.mark.parametrize(("backlog", "in_flight", "waiting"), [(4, 3, 2), (1, 1, 2), (9, 3, 7), (2, 16, 2)])
def test_the_endpoints_own_backlog_is_enough_to_scale_out(backlog: int, in_flight: int, waiting: int) -> None:
    """If CloudWatch knows nothing of the queues, scaling is slower, but does not stand still."""
    template = synthesize(backlog_per_instance=backlog, in_flight=in_flight).sagemaker
    per_instance = int(function_of(template)["Environment"]["Variables"]["WAITING_PER_INSTANCE"])
    assert per_instance == waiting
    assert in_flight + per_instance > backlog


def test_scaling_follows_what_waits_in_the_endpoint_and_before_it(template: dict[str, Any]) -> None:
    tracking = one(template, "AWS::ApplicationAutoScaling::ScalingPolicy", PolicyType="TargetTrackingScaling")
    specification = tracking["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert set(specification) == {"Metrics"}
    measured, computed = specification["Metrics"][:4], specification["Metrics"][4:]
    seen = {}
    for metric in measured:
        assert metric["ReturnData"] is False
        assert metric["MetricStat"]["Stat"] == "Average"
        of = metric["MetricStat"]["Metric"]
        (dimension,) = of["Dimensions"]
        seen[metric["Id"]] = (of["MetricName"], of["Namespace"], dimension["Name"], named(dimension["Value"]))
    waiting = "ApproximateNumberOfMessagesVisible"
    assert seen == {
        "size": ("ApproximateBacklogSize", "AWS/SageMaker", "EndpointName", ENDPOINT),
        "per": ("ApproximateBacklogSizePerInstance", "AWS/SageMaker", "EndpointName", ENDPOINT),
        "jobs": (waiting, "AWS/SQS", "QueueName", "Jobs"),
        "batches": (waiting, "AWS/SQS", "QueueName", "Batches"),
    }
    assert [(one["Expression"], one["ReturnData"]) for one in computed] == [
        (BACKLOG["backlog"], False),
        (BACKLOG["each"], True),
    ], "exactly one returns data"


@pytest.mark.parametrize(
    ("instances", "inside", "jobs", "batches", "each"),
    [
        (0, 0, None, None, 0),  # nothing waits, and SQS has no figures of queues that nobody uses
        (0, 3, None, None, 3),  # no instance: all are those of one
        (0, 3, 40, 2, 45),
        (1, 5, 0, 0, 5),
        (4, 20, 0, 0, 5),
        (4, 20, 30, 50, 25),
        (2, 0, 3, 0, 3),  # taken from the queue a moment later
    ],
)
def test_the_backlog_of_each_instance_counts_all_jobs(
    instances: int, inside: int, jobs: int | None, batches: int | None, each: float
) -> None:
    def fill(value: float | None, instead: float) -> float:
        return instead if value is None else value

    per = inside / instances if instances else None
    values: dict[str, Any] = {"size": inside, "per": per, "jobs": jobs, "batches": batches}
    values["backlog"] = eval(BACKLOG["backlog"], {"FILL": fill}, values)
    condition, then, otherwise = BACKLOG["each"].removeprefix("IF(").removesuffix(")").rsplit(", ", 2)
    holds = eval(condition.replace(" AND ", " and "), {"FILL": fill}, values)
    assert eval(then if holds else otherwise, {}, values) == each


def named(value: Any) -> str:
    """An endpoint's name as it is, a queue's by its construct."""
    return plain(value["Fn::GetAtt"][0]) if isinstance(value, dict) else str(value)
