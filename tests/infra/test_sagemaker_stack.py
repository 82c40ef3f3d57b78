"""The endpoint: what SageMaker is asked for, and what it notifies."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.worker_image import lock_version
from tests.infra.permissions import plain
from tests.infra.stacks import Synthesized, of_type, one, synthesize

pytestmark = pytest.mark.timeout(600)
#: The suffix changes with the instance types.
ENDPOINT = "comfy-serverless-gpu-ec9e34ad"


@pytest.fixture(scope="session")
def template(synthesized: Synthesized) -> dict[str, Any]:
    return synthesized.sagemaker


def test_the_endpoint_is_asynchronous_and_several_jobs_are_in_a_container(template: dict[str, Any]) -> None:
    config = one(template, "AWS::SageMaker::EndpointConfig")["AsyncInferenceConfig"]
    container = one(template, "AWS::SageMaker::Model")["PrimaryContainer"]["Environment"]
    assert config["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 3}
    assert container["IN_FLIGHT"] == "3"  # if it differed, jobs would wait in the container or be refused
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
    assert variant["VariantInstanceProvisionTimeoutInSeconds"] == 1800  # for all types together, says SageMaker's API


def test_the_driver_fits_the_torch_that_is_built_in(template: dict[str, Any], synthesized: Synthesized) -> None:
    (variant,) = one(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"  # CUDA 13
    assets = json.loads((synthesized.folder / "comfy-serverless-sagemaker.assets.json").read_text())["dockerImages"]
    worker = next(asset["source"] for asset in assets.values() if asset["source"]["dockerBuildTarget"] == "worker")
    assert worker["dockerBuildArgs"] == {
        "TORCH": "cuda",
        "TORCH_INDEX_URL": "",
        "COMFYUI_REF": "",
        "COMFYUI_ARGS": "",
    }
    assert worker["platform"] == "linux/amd64"
    assert worker.get("dockerFile", "Dockerfile") == "Dockerfile"
    sent = synthesized.folder / worker["directory"]
    assert {"comfy-build.lock", "comfy-build.yaml", "archives"} <= {path.name for path in (sent / "comfyui").iterdir()}
    lock = (Path(__file__).parents[2] / "requirements" / "torch-cuda.txt").read_text(encoding="utf-8")
    assert re.search(r"^cuda-toolkit==13\.", lock, re.MULTILINE)


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


def test_both_policies_scale_it_and_the_second_starts_the_first_instance(template: dict[str, Any]) -> None:
    target = one(template, "AWS::ApplicationAutoScaling::ScalableTarget")
    assert {name: value for name, value in target.items() if name != "Tags"} == {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{ENDPOINT}/variant/worker",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "MinCapacity": 0,
        "MaxCapacity": 4,
    }
    tracking = one(template, "AWS::ApplicationAutoScaling::ScalingPolicy", PolicyType="TargetTrackingScaling")
    assert tracking["ScalingTargetId"] == {"Ref": "Instances"}
    assert tracking["TargetTrackingScalingPolicyConfiguration"] == {
        "TargetValue": 4,
        "ScaleInCooldown": 300,
        "ScaleOutCooldown": 60,
        "CustomizedMetricSpecification": tracking["TargetTrackingScalingPolicyConfiguration"][
            "CustomizedMetricSpecification"
        ],  # test_gate.py has it
    }
    stepping = one(template, "AWS::ApplicationAutoScaling::ScalingPolicy", PolicyType="StepScaling")
    assert stepping["ScalingTargetId"] == {"Ref": "Instances"}
    assert stepping["StepScalingPolicyConfiguration"] == {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": 600,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    }
    # test_alarms.py has the alarm that starts the first instance.


def test_the_settings_of_scaling_are_the_ones_that_count() -> None:
    template = synthesize(max_instances=9, backlog_per_instance=2, scale_in_cooldown_s=900).sagemaker
    assert one(template, "AWS::ApplicationAutoScaling::ScalableTarget")["MaxCapacity"] == 9
    tracking = one(template, "AWS::ApplicationAutoScaling::ScalingPolicy", PolicyType="TargetTrackingScaling")
    policy = tracking["TargetTrackingScalingPolicyConfiguration"]
    assert (policy["TargetValue"], policy["ScaleInCooldown"]) == (2, 900)


def test_another_version_of_the_endpoint_keeps_the_instances_there_are(template: dict[str, Any]) -> None:
    assert one(template, "AWS::SageMaker::Endpoint")["RetainAllVariantProperties"] is True
    (variant,) = one(template, "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InitialInstanceCount"] == 1


def test_other_instances_are_another_endpoint_and_everything_follows_it(template: dict[str, Any]) -> None:
    """SageMaker refuses to change the types of an endpoint that scales; a new endpoint replaces it."""
    other = synthesize(instance_types=["ml.g6e.xlarge"]).sagemaker
    name = one(other, "AWS::SageMaker::Endpoint")["EndpointName"]
    assert name != ENDPOINT
    assert re.fullmatch(r"comfy-serverless-gpu-[0-9a-f]{8}", name)  # the policies of roles have eight `?`
    assert ENDPOINT not in json.dumps(other)
    assert json.dumps(template).count(ENDPOINT) == json.dumps(other).count(name) > 10
    # Settings that can be changed in an endpoint are changed in place.
    unchanged = synthesize(max_instances=2, in_flight=1, models="s3://my-models/flux/", startup_timeout_s=60).sagemaker
    assert one(unchanged, "AWS::SageMaker::Endpoint")["EndpointName"] == ENDPOINT


def test_nothing_is_started_before_it_is_known_that_names_are_free(template: dict[str, Any]) -> None:
    before = {plain(name) for name in template["Resources"]["Endpoint"]["DependsOn"]}
    assert before >= {"Jobs", "Batches", "OutcomeFunctionSuccessTopic", "OutcomeFunctionFailureTopic", "EndpointLog"}
    assert set(of_type(template, "AWS::SNS::Subscription")) <= set(template["Resources"]["Endpoint"]["DependsOn"])


def test_a_start_of_it_that_comes_to_nothing_is_not_tried_again(template: dict[str, Any]) -> None:
    """It keeps the function warm, and the next start is a minute away."""
    rule = one(template, "AWS::Events::Rule")
    assert rule["ScheduleExpression"] == "rate(1 minute)"
    assert [target["RetryPolicy"] for target in rule["Targets"]] == [{"MaximumRetryAttempts": 0}]
    invocation = one(template, "AWS::Lambda::EventInvokeConfig")
    assert (invocation["MaximumRetryAttempts"], invocation["MaximumEventAgeInSeconds"]) == (0, 60)
    assert plain(invocation["FunctionName"]["Ref"]) == "Forward"


def test_it_sends_to_an_endpoint_that_is_there(template: dict[str, Any]) -> None:
    (function,) = (entry for entry in template["Resources"].values() if entry["Type"] == "AWS::Lambda::Function")
    assert function["Properties"]["Environment"]["Variables"]["ENDPOINT_NAME"] == ENDPOINT
    assert "Endpoint" in function["DependsOn"]


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


def test_a_stack_is_announced_when_its_endpoint_is_there_and_not_before(template: dict[str, Any]) -> None:
    parameter = next(entry for entry in template["Resources"].values() if entry["Type"] == "AWS::SSM::Parameter")
    assert parameter["DependsOn"] == ["Endpoint"]
    assert parameter["Properties"]["Name"] == "/comfy-serverless/comfy-serverless/dispatch"
    parts = parameter["Properties"]["Value"]["Fn::Join"][1]
    named = [part if isinstance(part, str) else template["Resources"][part["Ref"]]["Properties"] for part in parts]
    assert json.loads("".join(part if isinstance(part, str) else part["QueueName"] for part in named)) == {
        "backend": "sagemaker",
        "endpoint_name": ENDPOINT,
        "job_queue_url": "comfy-serverless-gpu-jobs",
        "batch_queue_url": "comfy-serverless-gpu-batches",
        # Whose list of node classes counts.
        "image": one(template, "AWS::SageMaker::Model")["PrimaryContainer"]["Environment"]["WORKER_IMAGE"],
        "release_version": lock_version(),  # so does what was told of that build
    }
