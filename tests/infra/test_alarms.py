"""Every alarm, in every detail: one with a wrong metric or a wrong comparison is as quiet as a good one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from tests.infra.permissions import plain
from tests.infra.stacks import Synthesized, of_type, synthesize

pytestmark = pytest.mark.timeout(600)
AGE = "ApproximateAgeOfOldestMessage"
QUEUE, LAMBDA, SAGEMAKER = "AWS/SQS", "AWS/Lambda", "AWS/SageMaker"
ENDPOINT = {"EndpointName": "comfy-serverless-gpu-ec9e34ad"}
VARIANT = {**ENDPOINT, "VariantName": "worker"}
FORWARD = {"FunctionName": "Forward"}


class Alarm(NamedTuple):
    """An alarm's metric, its periods, and its threshold."""

    namespace: str
    metric: str
    dimensions: Mapping[str, str]
    statistic: str
    period_s: int
    periods: int
    threshold: float
    operator: str = "GreaterThanOrEqualToThreshold"
    missing: str = "notBreaching"


def put_aside(queue: str) -> Alarm:
    return Alarm(QUEUE, "ApproximateNumberOfMessagesVisible", {"QueueName": queue}, "Maximum", 60, 1, 1)


SAGEMAKER_ALARMS = {
    "JobDeadLetters": put_aside("JobsDeadLetters"),
    "BatchDeadLetters": put_aside("BatchesDeadLetters"),
    "OldestJob": Alarm(QUEUE, "ApproximateAgeOfOldestMessage", {"QueueName": "Jobs"}, "Maximum", 300, 1, 7200),
    "OutcomeDeadLetters": put_aside("OutcomeDeadLetters"),
    "OldestBatchJob": Alarm(QUEUE, AGE, {"QueueName": "Batches"}, "Maximum", 300, 1, 604_800),
    "ForwardErrors": Alarm(LAMBDA, "Errors", FORWARD, "Sum", 300, 1, 3),
    "ForwardSilent": Alarm(LAMBDA, "Invocations", FORWARD, "Sum", 300, 2, 1, "LessThanThreshold", "breaching"),
    "NoCapacity": Alarm(SAGEMAKER, "HasBacklogWithoutCapacity", ENDPOINT, "Minimum", 60, 30, 1),
    "OldestInvocation": Alarm(SAGEMAKER, "ApproximateAgeOfOldestRequest", ENDPOINT, "Maximum", 60, 5, 7200),
    "Expired": Alarm(SAGEMAKER, "ExpiredRequests", VARIANT, "Sum", 60, 1, 1),
    "NotTold": Alarm(SAGEMAKER, "NotificationFailures", VARIANT, "Sum", 60, 1, 1),
    "FailedInvocations": Alarm(SAGEMAKER, "InvocationFailures", VARIANT, "Sum", 900, 1, 10),
    # It scales, and notifies nothing.
    "HasBacklogWithoutCapacity": Alarm(
        SAGEMAKER, "HasBacklogWithoutCapacity", ENDPOINT, "Average", 60, 1, 1, missing="missing"
    ),
}
LAMBDA_ALARMS = {
    "JobDeadLetters": put_aside("JobsDeadLetters"),
    "BatchDeadLetters": put_aside("BatchesDeadLetters"),
    # A job may run for an hour and a half, during which its age grows. Batches may wait for days.
    "OldestJob": Alarm(QUEUE, AGE, {"QueueName": "Jobs"}, "Maximum", 300, 1, 7200),
    "OldestBatchJob": Alarm(QUEUE, AGE, {"QueueName": "Batches"}, "Maximum", 300, 1, 604_800),
    "WorkerErrors": Alarm(LAMBDA, "Errors", {"FunctionName": "Generate"}, "Sum", 300, 1, 1),
    "Throttles": Alarm(LAMBDA, "Throttles", {"FunctionName": "Generate"}, "Sum", 300, 6, 1),
    "Recursion": Alarm(LAMBDA, "RecursiveInvocationsDropped", {"FunctionName": "Generate"}, "Sum", 300, 1, 1),
}


def alarms(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        plain(name).removesuffix("Alarm"): properties
        for name, properties in of_type(template, "AWS::CloudWatch::Alarm").items()
    }


def seen(alarm: dict[str, Any]) -> Alarm:
    return Alarm(
        alarm["Namespace"],
        alarm["MetricName"],
        {one["Name"]: whose(one["Value"]) for one in alarm["Dimensions"]},
        alarm["Statistic"],
        alarm["Period"],
        alarm["EvaluationPeriods"],
        alarm["Threshold"],
        alarm["ComparisonOperator"],
        alarm["TreatMissingData"],
    )


def whose(value: Any) -> str:
    match value:
        case {"Ref": name} | {"Fn::GetAtt": [name, "QueueName"]}:
            return plain(name)
        case _:
            return str(value)


@pytest.mark.parametrize(("stack", "expected"), [("sagemaker", SAGEMAKER_ALARMS), ("lambda_gpu", LAMBDA_ALARMS)])
def test_these_alarms_ring_at_this(stack: str, expected: dict[str, Alarm], synthesized: Synthesized) -> None:
    assert {name: seen(alarm) for name, alarm in alarms(getattr(synthesized, stack)).items()} == expected


def test_all_tell_the_topic_that_was_named_but_the_one_that_scales() -> None:
    topic = "arn:aws:sns:eu-central-1:111122223333:alarms"
    made = synthesize(alarm_topic_arn=topic)
    found = {**alarms(made.sagemaker), **alarms(made.lambda_gpu)}
    assert found.pop("HasBacklogWithoutCapacity")["AlarmActions"] == [{"Ref": "FirstInstance"}]
    assert {name: alarm["AlarmActions"] for name, alarm in found.items()} == {name: [topic] for name in found}


def test_without_a_topic_they_tell_nobody(synthesized: Synthesized) -> None:
    quiet = {**alarms(synthesized.sagemaker), **alarms(synthesized.lambda_gpu)}
    assert {name for name, alarm in quiet.items() if "AlarmActions" in alarm} == {"HasBacklogWithoutCapacity"}
