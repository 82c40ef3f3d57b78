"""Functions on managed instances: what Lambda is asked for, and the queues in front of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.instances import RESERVED_VCPUS, Environment, vcpus
from infra.worker_image import lock_version
from tests.infra.permissions import plain
from tests.infra.stacks import Synthesized, of_type, one, synthesize

pytestmark = pytest.mark.timeout(600)


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
    assert function["PublishToLatestPublished"] is True  # a function that is not published cannot be invoked


def test_some_gpus_may_be_kept_warm() -> None:
    function = one(synthesize(min_environments=2).lambda_gpu, "AWS::Lambda::Function")
    assert function["FunctionScalingConfig"] == {"MinExecutionEnvironments": 2, "MaxExecutionEnvironments": 8}


def test_only_instances_that_were_named_are_started_and_never_too_few_for_a_gpu_each(template: dict[str, Any]) -> None:
    provider = one(template, "AWS::Lambda::CapacityProvider")
    assert provider["InstanceRequirements"] == {
        "Architectures": ["x86_64"],
        "AllowedInstanceTypes": ["g6.2xlarge", "g5.2xlarge", "g6.4xlarge", "g5.4xlarge"],
    }
    assert provider["CapacityProviderScalingConfig"] == {
        "MaxVCpuCount": 8 * 16,  # max_environments, each on the largest
        "ScalingMode": "Manual",
        "ScalingPolicies": [{"PredefinedMetricType": "LambdaCapacityProviderAverageGPUUtilization", "TargetValue": 60}],
    }
    other = synthesize(lambda_instance_types=["g6e.2xlarge"], max_environments=5, max_batch_environments=2).lambda_gpu
    provider = one(other, "AWS::Lambda::CapacityProvider")
    assert provider["InstanceRequirements"]["AllowedInstanceTypes"] == ["g6e.2xlarge"]
    assert provider["CapacityProviderScalingConfig"]["MaxVCpuCount"] == 5 * 8


def test_a_job_takes_of_an_instance_what_it_has_room_for(function: dict[str, Any]) -> None:
    """Otherwise it would take two instances, or a larger one, half of which is idle."""
    provider = function["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
    assert provider["ExecutionEnvironmentMemoryGiBPerVCpu"] == 4
    assert Environment(function["MemorySize"], 24).vcpus == 4 <= vcpus("g6.2xlarge") - RESERVED_VCPUS


@pytest.mark.parametrize(
    ("memory_mb", "accelerator_memory_gb", "instance_type", "said"),
    [
        (16_384, 24, "g6.xlarge", "4 vCPUs, 1 of them for Lambda; memory_mb 16384 comes with 4"),
        (12_288, 24, "g6.xlarge", None),
        (16_384, 24, "g6.2xlarge", None),
        (32_768, 24, "g5.2xlarge", "8 vCPUs, 1 of them for Lambda; memory_mb 32768 comes with 8"),
        (28_672, 48, "g6e.2xlarge", None),
        (8192, 48, "g6.4xlarge", "GPUs of g6.4xlarge have 24 GB; accelerator_memory_gb is 48"),
        (8192, 24, "g4dn.2xlarge", "GPUs of g4dn.2xlarge have 16 GB; accelerator_memory_gb is 24"),
        (16_384, 48, "g99.2xlarge", None),  # an unknown family: AWS decides
        (4096, 3, "g99.large", None),
    ],
)
def test_an_instance_without_room_for_a_job_is_named(
    memory_mb: int, accelerator_memory_gb: int, instance_type: str, said: str | None
) -> None:
    misfit = Environment(memory_mb, accelerator_memory_gb).misfit(instance_type)
    assert (misfit is None) if said is None else (said in str(misfit))


@pytest.mark.parametrize(
    ("instance_type", "count"), [("g6f.large", 2), ("g6.xlarge", 4), ("gr6.4xlarge", 16), ("g6.16xlarge", 64)]
)
def test_the_size_of_an_instance_is_in_its_name(instance_type: str, count: int) -> None:
    assert vcpus(instance_type) == count


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
    at_once = {plain(one["EventSourceArn"]["Fn::GetAtt"][0]): one["ScalingConfig"] for one in mappings}
    assert at_once == {"Jobs": {"MaximumConcurrency": 7}, "Batches": {"MaximumConcurrency": 3}}
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


def test_no_instance_is_started_before_it_finds_its_way_out(template: dict[str, Any]) -> None:
    """An instance first fetches the image: one that cannot do so has failed, and the provider does not recover."""
    (provider,) = (one for one in template["Resources"].values() if one["Type"] == "AWS::Lambda::CapacityProvider")
    ways_out = {
        name
        for name, route in of_type(template, "AWS::EC2::Route").items()
        if "NatGatewayId" in route and route["DestinationCidrBlock"] == "0.0.0.0/0"
    }
    associations = {name for name in of_type(template, "AWS::EC2::SubnetRouteTableAssociation") if "Workers" in name}
    assert len(ways_out) == len(associations) == 2
    assert ways_out | associations | set(of_type(template, "AWS::EC2::InternetGateway")) == set(provider["DependsOn"])


def test_the_vpc_is_in_the_zones_that_were_named(template: dict[str, Any]) -> None:
    default = [subnet["AvailabilityZone"] for subnet in of_type(template, "AWS::EC2::Subnet").values()]
    assert [zone["Fn::Select"][0] for zone in default] == [0, 1, 0, 1]  # the public subnets', then the workers'
    zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    named = synthesize(availability_zones=zones).lambda_gpu
    assert [subnet["AvailabilityZone"] for subnet in of_type(named, "AWS::EC2::Subnet").values()] == [*zones, *zones]
    assert len(one(named, "AWS::Lambda::CapacityProvider")["VpcConfig"]["SubnetIds"]) == 3
    assert len(of_type(named, "AWS::EC2::NatGateway")) == 1


def test_what_lambda_says_of_instances_is_kept_as_long_as_other_logs() -> None:
    template = synthesize(log_retention_days=7).lambda_gpu
    telemetry = one(template, "AWS::Lambda::CapacityProvider")["TelemetryConfig"]
    log = of_type(template, "AWS::Logs::LogGroup")[telemetry["LoggingConfig"]["LogGroup"]["Ref"]]
    assert log["RetentionInDays"] == 7
    assert {one["RetentionInDays"] for one in of_type(template, "AWS::Logs::LogGroup").values()} == {7}


def test_a_vpc_that_is_there_already_is_used_and_none_is_made() -> None:
    template = synthesize(vpc_id="vpc-0123456789abcdef0", subnet_ids=["subnet-1", "subnet-2"]).lambda_gpu
    assert not of_type(template, "AWS::EC2::VPC")
    assert one(template, "AWS::EC2::SecurityGroup")["VpcId"] == "vpc-0123456789abcdef0"
    assert one(template, "AWS::Lambda::CapacityProvider")["VpcConfig"]["SubnetIds"] == ["subnet-1", "subnet-2"]


def test_it_is_announced_when_both_queues_are_read(template: dict[str, Any]) -> None:
    parameter = next(entry for entry in template["Resources"].values() if entry["Type"] == "AWS::SSM::Parameter")
    assert set(of_type(template, "AWS::Lambda::EventSourceMapping")) <= set(parameter["DependsOn"])
    begin, _, middle, _, end = parameter["Properties"]["Value"]["Fn::Join"][1]
    (function,) = (one for one in of_type(template, "AWS::Lambda::Function").values() if "AcceleratorConfig" in one)
    assert json.loads(f"{begin}A{middle}B{end}") == {
        "backend": "queue",
        "job_queue_url": "A",
        "batch_queue_url": "B",
        "image": function["Environment"]["Variables"]["WORKER_IMAGE"],  # whose list of node classes counts
        "release_version": lock_version(),  # so does what was told of that build
    }
