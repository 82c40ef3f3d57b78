"""Functions on managed instances: what Lambda is asked for, and the queues before them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra.stacks import Synthesized, of_type, one, synthesize

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="session")
def template(synthesized: Synthesized) -> dict[str, Any]:
    return synthesized.lambda_gpu


@pytest.fixture(scope="session")
def function(template: dict[str, Any]) -> dict[str, Any]:
    return one(template, "AWS::Lambda::Function")


def test_the_function_has_a_gpu_which_cdk_has_no_property_for(function: dict[str, Any]) -> None:
    assert function["AcceleratorConfig"] == {"AcceleratorMemorySize": 24}
    assert function["PackageType"] == "Image"
    assert function["Architectures"] == ["x86_64"]


def test_one_job_has_the_gpu_and_there_may_be_no_instance_at_all(function: dict[str, Any]) -> None:
    provider = function["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
    assert provider["PerExecutionEnvironmentMaxConcurrency"] == 1
    assert function["FunctionScalingConfig"] == {"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 8}


def test_jobs_may_take_as_long_as_lambda_allows_there(function: dict[str, Any]) -> None:
    assert function["Timeout"] == 5400
    assert function["MemorySize"] == 16384
    assert function["EphemeralStorage"] == {"Size": 32768}


@pytest.mark.parametrize("name", ["jobs", "batches"])
def test_a_queue_hides_a_message_for_six_timeouts_and_puts_it_aside_after_five_tries(
    name: str, template: dict[str, Any], function: dict[str, Any]
) -> None:
    queue = one(template, "AWS::SQS::Queue", QueueName=f"comfy-serverless-gpu-{name}")
    assert queue["VisibilityTimeout"] == 6 * function["Timeout"] <= 43_200
    assert str(queue["RedrivePolicy"]["maxReceiveCount"]) == function["Environment"]["Variables"]["MAX_RECEIVES"]
    dead_letters, _ = queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"]
    assert of_type(template, "AWS::SQS::Queue")[dead_letters]["MessageRetentionPeriod"] == 14 * 86_400


def test_a_batch_leaves_gpus_for_those_who_wait_and_no_more_are_asked_for_than_there_are() -> None:
    template = synthesize(max_environments=10, max_batch_environments=3).lambda_gpu
    mappings = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    at_once = {
        one["EventSourceArn"]["Fn::GetAtt"][0].removesuffix(one["EventSourceArn"]["Fn::GetAtt"][0][-8:]): one
        for one in mappings
    }
    assert {name: one["ScalingConfig"]["MaximumConcurrency"] for name, one in at_once.items()} == {
        "Jobs": 7,
        "Batches": 3,
    }
    assert all(one["BatchSize"] == 1 for one in mappings)
    assert all(one["FunctionResponseTypes"] == ["ReportBatchItemFailures"] for one in mappings)


def test_the_driver_of_the_instance_is_found(function: dict[str, Any]) -> None:
    assert function["Environment"]["Variables"]["LD_LIBRARY_PATH"].endswith("/usr/lib/nvidia")


def test_nothing_can_call_a_worker(template: dict[str, Any]) -> None:
    group = one(template, "AWS::EC2::SecurityGroup")
    assert "SecurityGroupIngress" not in group
    assert not of_type(template, "AWS::EC2::SecurityGroupIngress")
    subnets = one(template, "AWS::Lambda::CapacityProvider")["VpcConfig"]["SubnetIds"]
    assert all(subnet["Ref"].startswith("NetworkWorkersSubnet") for subnet in subnets)


def test_pictures_do_not_go_through_the_nat_gateway(template: dict[str, Any]) -> None:
    services = [
        "".join(part for part in one["ServiceName"]["Fn::Join"][1] if isinstance(part, str))
        for one in of_type(template, "AWS::EC2::VPCEndpoint").values()
    ]
    assert sorted(service.rsplit(".", 1)[-1] for service in services) == ["dynamodb", "s3"]


def test_a_vpc_that_is_there_already_is_used_and_none_is_made() -> None:
    template = synthesize(vpc_id="vpc-0123456789abcdef0", subnet_ids=["subnet-1", "subnet-2"]).lambda_gpu
    assert not of_type(template, "AWS::EC2::VPC")
    assert one(template, "AWS::EC2::SecurityGroup")["VpcId"] == "vpc-0123456789abcdef0"
    assert one(template, "AWS::Lambda::CapacityProvider")["VpcConfig"]["SubnetIds"] == ["subnet-1", "subnet-2"]


def test_it_is_announced_when_both_queues_are_read(template: dict[str, Any]) -> None:
    parameter = next(entry for entry in template["Resources"].values() if entry["Type"] == "AWS::SSM::Parameter")
    assert set(of_type(template, "AWS::Lambda::EventSourceMapping")) <= set(parameter["DependsOn"])
    begin, _, middle, _, end = parameter["Properties"]["Value"]["Fn::Join"][1]
    assert json.loads(f"{begin}A{middle}B{end}") == {
        "backend": "queue",
        "job_queue_url": "A",
        "batch_queue_url": "B",
    }
