"""The two templates fit together: each finds what it needs from the other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.stacks import SAM, Synthesized, of_type, one

pytestmark = pytest.mark.timeout(600)
NAME = "comfy-serverless"
#: The queues that each stack names: SAM's functions know them by these names.
QUEUES = {stack: {f"{NAME}-gpu-jobs", f"{NAME}-gpu-batches"} for stack in ("sagemaker", "lambda_gpu")}
SENDERS = ("ApiRole", "IngestRole", "CaretakerRole", "OutcomeRole")


@pytest.fixture(params=["sagemaker", "lambda_gpu"])
def template(request: pytest.FixtureRequest, synthesized: Synthesized) -> dict[str, Any]:
    found: dict[str, Any] = getattr(synthesized, request.param)
    return found


def statement(role: str, sid: str) -> dict[str, Any]:
    """A statement of a role of the SAM stack, by its name."""
    policies = SAM["Resources"][role]["Properties"]["Policies"]
    (found,) = (one for policy in policies for one in policy["PolicyDocument"]["Statement"] if one["Sid"] == sid)
    return dict(found)


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


@pytest.mark.parametrize("role", SENDERS)
def test_the_functions_of_the_sam_stack_see_that_there_are_gpus(role: str, template: dict[str, Any]) -> None:
    (parameter,) = of_type(template, "AWS::SSM::Parameter").values()
    known = [one["Fn::Sub"] for one in statement(role, "SeeWhetherThereAreGpus")["Resource"]]
    names = {arn.replace("${AWS::StackName}", NAME).rpartition(":parameter")[2] for arn in known}
    assert names == {parameter["Name"], f"/comfy-serverless/{NAME}/live"}


@pytest.mark.parametrize("role", SENDERS)
@pytest.mark.parametrize("stack", QUEUES)
def test_they_may_send_jobs_to_its_queues(stack: str, role: str, synthesized: Synthesized) -> None:
    queues = of_type(getattr(synthesized, stack), "AWS::SQS::Queue").values()
    assert {queue["QueueName"] for queue in queues if "QueueName" in queue} == QUEUES[stack]
    arns = [one["Fn::Sub"] for one in statement(role, "SendJobsToGpuQueues")["Resource"]]
    assert {arn.replace("${AWS::StackName}", NAME).rpartition(":")[2] for arn in arns} >= QUEUES[stack]


@pytest.mark.parametrize("role", SENDERS)
def test_they_may_send_jobs_to_the_endpoint_which_they_know_by_its_tag(role: str, synthesized: Synthesized) -> None:
    assert {"Key": "comfy-serverless:stack", "Value": NAME} in one(synthesized.sagemaker, "AWS::SageMaker::Endpoint")[
        "Tags"
    ]
    assert statement(role, "SendJobsToTheEndpoint")["Condition"] == {
        "StringEquals": {"aws:ResourceTag/comfy-serverless:stack": {"Ref": "AWS::StackName"}}
    }


def test_jobs_wait_four_days_and_those_of_batches_as_long_as_sqs_keeps_anything(template: dict[str, Any]) -> None:
    sam = SAM["Resources"]["JobQueue"]["Properties"]
    assert sam["MessageRetentionPeriod"] == 4 * 86_400
    for queue in of_type(template, "AWS::SQS::Queue").values():
        if "QueueName" in queue:
            days = 14 if queue["QueueName"].endswith("-batches") else 4
            assert queue["MessageRetentionPeriod"] == days * 86_400
            assert queue["RedrivePolicy"]["maxReceiveCount"] == sam["RedrivePolicy"]["maxReceiveCount"]
        else:
            assert queue["MessageRetentionPeriod"] == 14 * 86_400  # dead letters


def test_a_worker_counts_under_the_name_that_dashboard_and_alarms_ask_for(template: dict[str, Any]) -> None:
    models = of_type(template, "AWS::SageMaker::Model").values()
    environment = (
        next(iter(models))["PrimaryContainer"]["Environment"]
        if models
        else one(template, "AWS::Lambda::Function")["Environment"]["Variables"]
    )
    sam = SAM["Resources"]["GenerateFunction"]["Properties"]["Environment"]["Variables"]
    assert environment["POWERTOOLS_SERVICE_NAME"] == sam["POWERTOOLS_SERVICE_NAME"]
    namespace = SAM["Globals"]["Function"]["Environment"]["Variables"]["POWERTOOLS_METRICS_NAMESPACE"]["Fn::Sub"]
    assert environment["POWERTOOLS_METRICS_NAMESPACE"] == namespace.replace("${AWS::StackName}", NAME)
    tokens = {"HUGGING_FACE_TOKEN_PARAMETER", "CIVITAI_TOKEN_PARAMETER"}
    # A GPU's second has a price of its own (`USD_PER_SECOND`), and no memory that it is made of.
    of_lambda = {"USD_PER_GB_SECOND", "USD_PER_REQUEST", "WORKER_MEMORY_MB"}
    assert "USD_PER_SECOND" in environment
    assert set(sam) - set(environment) <= {"MODELS_MANIFEST", "INPUT_CACHE_BYTES", *tokens, *of_lambda}
