"""Two templates, one service: what one gives, the other takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra.stacks import SAM, Synthesized, as_list, of_type, one, statements

pytestmark = pytest.mark.timeout(120)
NAME = "comfy-serverless"
#: What a worker may do with its queue or its endpoint differs from stack to stack, and so do its logs.
OWN = ("sqs:", "logs:", "sagemaker:", "cloudwatch:", "ecr:", "kms:", "sns:")


@pytest.fixture(params=["sagemaker", "lambda_gpu"])
def template(request: pytest.FixtureRequest, synthesized: Synthesized) -> dict[str, Any]:
    found: dict[str, Any] = getattr(synthesized, request.param)
    return found


def sam_policy(role: str) -> list[dict[str, Any]]:
    policies = SAM["Resources"][role]["Properties"]["Policies"]
    return [one for policy in policies for one in policy["PolicyDocument"]["Statement"]]


def allowed(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Each action, with the condition it is bound to."""
    return {
        (action, json.dumps(one.get("Condition"), sort_keys=True))
        for one in found
        if one["Effect"] == "Allow"
        for action in as_list(one["Action"])
        if not action.startswith(OWN)
    }


def test_every_parameter_that_is_read_is_one_that_the_sam_stack_writes(template: dict[str, Any]) -> None:
    read = {
        parameter["Default"]
        for parameter in template["Parameters"].values()
        if parameter["Type"] == "AWS::SSM::Parameter::Value<String>" and parameter["Default"].startswith("/comfy")
    }
    written = {
        entry["Properties"]["Name"]["Fn::Sub"].replace("${AWS::StackName}", NAME)
        for entry in SAM["Resources"].values()
        if entry["Type"] == "AWS::SSM::Parameter"
    }
    assert read
    assert read <= written


def test_a_worker_may_do_on_a_gpu_what_it_may_do_without_one(template: dict[str, Any]) -> None:
    role = "ExecutionRole" if "ExecutionRole" in json.dumps(template) else "Role"
    assert allowed(statements(template, role)) == allowed(sam_policy("GenerateRole"))


def test_the_functions_of_the_sam_stack_may_send_jobs_here(template: dict[str, Any]) -> None:
    (parameter,) = of_type(template, "AWS::SSM::Parameter").values()
    for role in ("ApiRole", "IngestRole", "CaretakerRole", "OutcomeRole"):
        by_sid = {statement["Sid"]: statement for statement in sam_policy(role)}
        known = by_sid["SeeWhetherThereAreGpus"]["Resource"]["Fn::Sub"].replace("${AWS::StackName}", NAME)
        assert known.endswith(f":parameter{parameter['Name']}")
        queues = [
            one["Fn::Sub"].replace("${AWS::StackName}", NAME) for one in by_sid["SendJobsToGpuQueues"]["Resource"]
        ]
        for queue in of_type(template, "AWS::SQS::Queue").values():
            assert "QueueName" not in queue or any(arn.endswith(f":{queue['QueueName']}") for arn in queues)
        if endpoints := of_type(template, "AWS::SageMaker::Endpoint"):
            (endpoint,) = endpoints.values()
            assert endpoint["Tags"] == [{"Key": "comfy-serverless:stack", "Value": NAME}]
            condition = by_sid["SendJobsToTheEndpoint"]["Condition"]
            assert condition == {"StringEquals": {"aws:ResourceTag/comfy-serverless:stack": {"Ref": "AWS::StackName"}}}


def test_jobs_wait_as_long_as_in_the_queues_of_the_sam_stack(template: dict[str, Any]) -> None:
    expected = SAM["Resources"]["JobQueue"]["Properties"]
    queues = [queue for queue in of_type(template, "AWS::SQS::Queue").values() if "QueueName" in queue]
    assert queues
    for queue in queues:
        assert queue["MessageRetentionPeriod"] == expected["MessageRetentionPeriod"]
        assert queue["RedrivePolicy"]["maxReceiveCount"] == expected["RedrivePolicy"]["maxReceiveCount"]


def test_a_worker_counts_under_the_name_that_dashboard_and_alarms_ask_for(template: dict[str, Any]) -> None:
    models = of_type(template, "AWS::SageMaker::Model").values()
    environment = (
        next(iter(models))["PrimaryContainer"]["Environment"]
        if models
        else one(template, "AWS::Lambda::Function")["Environment"]["Variables"]
    )
    sam = SAM["Resources"]["GenerateFunction"]["Properties"]["Environment"]["Variables"]
    assert environment["POWERTOOLS_SERVICE_NAME"] == sam["POWERTOOLS_SERVICE_NAME"]
    assert set(sam) - set(environment) <= {"JOB_QUEUE_URL", "BATCH_QUEUE_URL", "MODELS_MANIFEST"}
