"""The endpoint: what SageMaker is asked for, and who hears of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra.stacks import Synthesized, of_type, one, statements, synthesize

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="session")
def template(synthesized: Synthesized) -> dict[str, Any]:
    return synthesized.sagemaker


def test_the_endpoint_is_asynchronous_and_several_jobs_are_in_a_container(template: dict[str, Any]) -> None:
    config = one(template, "AWS::SageMaker::EndpointConfig")["AsyncInferenceConfig"]
    container = one(template, "AWS::SageMaker::Model")["PrimaryContainer"]["Environment"]
    assert config["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 3}
    assert container["IN_FLIGHT"] == "3"  # more would wait in the container, less would be turned away
    output = config["OutputConfig"]
    assert output["S3OutputPath"]["Fn::Join"][1] == ["s3://", {"Ref": "OutputBucket"}, "/endpoint/output"]
    assert output["S3FailurePath"]["Fn::Join"][1] == ["s3://", {"Ref": "OutputBucket"}, "/endpoint/failure"]


def test_an_instance_that_is_not_to_be_had_is_replaced_by_the_next_type(template: dict[str, Any]) -> None:
    (variant,) = one(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InstancePools"] == [
        {"InstanceType": "ml.g6.xlarge", "Priority": 1},
        {"InstanceType": "ml.g5.xlarge", "Priority": 2},
        {"InstanceType": "ml.g6.2xlarge", "Priority": 3},
    ]
    assert "InstanceType" not in variant
    assert 300 <= variant["VariantInstanceProvisionTimeoutInSeconds"] <= 3600


def test_the_driver_fits_the_torch_that_is_built_in(template: dict[str, Any], synthesized: Synthesized) -> None:
    (variant,) = one(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"  # CUDA 13
    assets = json.loads((synthesized.folder / "comfy-serverless-sagemaker.assets.json").read_text())["dockerImages"]
    worker = next(asset["source"] for asset in assets.values() if asset["source"]["dockerBuildTarget"] == "worker")
    assert worker["dockerBuildArgs"] == {
        "TORCH_INDEX_URL": "https://download.pytorch.org/whl/cu130",
        "COMFYUI_ARGS": "",
    }
    assert worker["platform"] == "linux/amd64"


def test_a_slow_start_and_large_models_have_time(template: dict[str, Any]) -> None:
    (variant,) = one(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 1200
    assert variant["ModelDataDownloadTimeoutInSeconds"] == 1800


def test_models_are_read_as_they_lie_in_s3_and_only_with_a_folder_of_models() -> None:
    assert "ModelDataSource" not in one(synthesize().sagemaker, "AWS::SageMaker::Model")["PrimaryContainer"]
    template = synthesize(models="s3://my-models/flux/").sagemaker
    assert one(template, "AWS::SageMaker::Model")["PrimaryContainer"]["ModelDataSource"] == {
        "S3DataSource": {"S3Uri": "s3://my-models/flux/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    }
    read = next(one for one in statements(template, "ExecutionRole") if one.get("Sid") == "ReadModels")
    assert read["Resource"]["Fn::Join"][1][-1] == ":s3:::my-models/flux/*"


def test_both_policies_scale_it_and_the_second_starts_the_first_instance(template: dict[str, Any]) -> None:
    target = one(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 4)
    assert target["ResourceId"] == "endpoint/comfy-serverless-gpu/variant/worker"
    assert target["ScalableDimension"] == "sagemaker:variant:DesiredInstanceCount"
    tracking = one(template, "AWS::ApplicationAutoScaling::ScalingPolicy", PolicyType="TargetTrackingScaling")
    backlog = tracking["TargetTrackingScalingPolicyConfiguration"]
    assert backlog["TargetValue"] == 4
    assert backlog["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert backlog["ScaleInCooldown"] == 300
    alarm = one(template, "AWS::CloudWatch::Alarm", MetricName="HasBacklogWithoutCapacity", Statistic="Average")
    (policy,) = alarm["AlarmActions"]
    first = template["Resources"][policy["Ref"]]["Properties"]["StepScalingPolicyConfiguration"]
    assert first["StepAdjustments"] == [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]
    for resource in (backlog["CustomizedMetricSpecification"], alarm):
        assert resource["Dimensions"] == [{"Name": "EndpointName", "Value": "comfy-serverless-gpu"}]


def test_a_batch_lets_through_what_makes_the_endpoint_scale_out_as_far_as_it_may() -> None:
    template = synthesize(max_instances=7, backlog_per_instance=5, in_flight=2).sagemaker
    function = one(template, "AWS::Lambda::Function")
    waiting = int(function["Environment"]["Variables"]["MAX_WAITING_BATCH_JOBS"])
    assert waiting > 7 * 5


def test_what_lets_batches_through_is_never_there_twice(template: dict[str, Any]) -> None:
    function = one(template, "AWS::Lambda::Function")
    assert function["ReservedConcurrentExecutions"] == 1
    assert function["ImageConfig"]["Command"] == ["comfy_serverless.handlers.forward.handler"]
    assert one(template, "AWS::Events::Rule")["ScheduleExpression"] == "rate(1 minute)"
    queue = one(template, "AWS::SQS::Queue", QueueName="comfy-serverless-gpu-batches")
    assert queue["VisibilityTimeout"] >= 2 * function["Timeout"]


def test_successes_and_failures_are_told_encrypted_to_the_function_of_the_sam_stack(template: dict[str, Any]) -> None:
    topics = of_type(template, "AWS::SNS::Topic")
    assert len(topics) == 2
    assert all("KmsMasterKeyId" in topic for topic in topics.values())
    subscriptions = of_type(template, "AWS::SNS::Subscription").values()
    assert {one["TopicArn"]["Ref"] for one in subscriptions} == set(topics)
    assert all(one["Endpoint"] == {"Ref": "OutcomeFunctionArn"} for one in subscriptions)
    assert all("deadLetterTargetArn" in one["RedrivePolicy"] for one in subscriptions)
    allowed = [
        one for one in of_type(template, "AWS::Lambda::Permission").values() if one["Principal"] == "sns.amazonaws.com"
    ]
    assert {one["SourceArn"]["Ref"] for one in allowed} == set(topics)
    notified = one(template, "AWS::SageMaker::EndpointConfig")["AsyncInferenceConfig"]["OutputConfig"]
    assert {topic["Ref"] for topic in notified["NotificationConfig"].values()} == set(topics)
    by_action = {str(one["Action"]): one for one in statements(template, "ExecutionRole")}
    assert {resource["Ref"] for resource in by_action["sns:Publish"]["Resource"]} == set(topics)
    assert "['kms:Decrypt', 'kms:GenerateDataKey']" in by_action


def test_a_stack_is_announced_when_its_endpoint_is_there_and_not_before(template: dict[str, Any]) -> None:
    parameter = next(entry for entry in template["Resources"].values() if entry["Type"] == "AWS::SSM::Parameter")
    assert parameter["DependsOn"] == ["Endpoint"]
    assert parameter["Properties"]["Name"] == "/comfy-serverless/comfy-serverless/dispatch"
    text, queue, end = parameter["Properties"]["Value"]["Fn::Join"][1]
    assert json.loads(f"{text}URL{end}") == {
        "backend": "sagemaker",
        "endpoint_name": "comfy-serverless-gpu",
        "batch_queue_url": "URL",
    }
    assert template["Resources"][queue["Ref"]]["Properties"]["QueueName"] == "comfy-serverless-gpu-batches"


def test_alarms_tell_the_topic_that_was_named() -> None:
    topic = "arn:aws:sns:eu-central-1:111122223333:alarms"
    template = synthesize(alarm_topic_arn=topic).sagemaker
    told = [alarm for alarm in of_type(template, "AWS::CloudWatch::Alarm").values() if alarm["AlarmActions"] == [topic]]
    assert {alarm["MetricName"] for alarm in told} == {
        "ApproximateNumberOfMessagesVisible",
        "HasBacklogWithoutCapacity",
        "ApproximateAgeOfOldestRequest",
        "ExpiredRequests",
        "NotificationFailures",
    }
