"""Every role, to the statement: a missing permission fails only in an account, and one too many never fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.permissions import Permission, may, of_role, of_statements, plain
from tests.infra.stacks import SAM, Synthesized, as_list, of_type, synthesize

pytestmark = pytest.mark.timeout(600)


def keys(*beginnings: str) -> dict[str, dict[str, list[str]]]:
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(beginnings)}}


JOBS, BATCHES = keys("job#*"), keys("batch#*")
INPUT, OUTPUT, ASSETS = (f"s3:::<{name}Bucket>" for name in ("Input", "Output", "Assets"))
LOG_STREAMS = ("logs:CreateLogStream", "logs:PutLogEvents")
ENDPOINTS = "sagemaker:endpoint/comfy-serverless-gpu-????????"
WORKER = (
    may(("dynamodb:PutItem", "dynamodb:UpdateItem"), "JobsTable", where=JOBS)
    | may("dynamodb:BatchWriteItem", "JobsTable", where=keys("job#*", "asset#*"))
    | may("dynamodb:UpdateItem", "JobsTable", where=keys("usage#*"))
    | may("dynamodb:GetItem", "JobsTable", where=BATCHES)
    | may(("dynamodb:BatchGetItem", "dynamodb:Query"), "JobsTable", where=keys("workflows#*"))
    | may("s3:GetObject", f"{ASSETS}/workflows/*")
    | may("sqs:SendMessage", "WebhookQueue")
    | may("s3:GetObject", f"{INPUT}/*", f"{ASSETS}/blobs/*", f"{ASSETS}/requests/*")
    | may("s3:GetObjectVersion", f"{INPUT}/*")
    | may("s3:PutObject", f"{ASSETS}/engine/*")
    | may(("s3:GetObject", "s3:PutObject"), f"{ASSETS}/pins/*")
    | may(("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"), f"{OUTPUT}/*")
    | may("s3:ListBucket", INPUT, OUTPUT, ASSETS)
)
EXECUTION = (
    WORKER
    | may("sqs:SendMessage", "Jobs", "Batches")
    | may(
        ("logs:CreateLogGroup", "logs:DescribeLogStreams", *LOG_STREAMS),
        "logs:log-group:/aws/sagemaker/Endpoints/comfy-serverless-gpu-????????:*",
    )
    | may(
        "cloudwatch:PutMetricData",
        "*",
        where={"StringEquals": {"cloudwatch:namespace": ["AWS/SageMaker", "/aws/sagemaker/Endpoints"]}},
    )
    | may("sns:Publish", "SuccessTopic", "FailureTopic")
    | may(("kms:GenerateDataKey", "kms:Decrypt"), "TopicKey")
    | may(
        ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"),
        "ecr:repository/comfy-serverless/gpu",
    )
    | may("ecr:GetAuthorizationToken", "*")
)
TAKE_JOBS = may(
    (
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
    ),
    "Jobs",
    "Batches",
)
FORWARD = (
    may(LOG_STREAMS, "ForwardLog")
    | TAKE_JOBS
    | may("sqs:SendMessage", "Jobs", "Batches")
    | may(("sagemaker:InvokeEndpointAsync", "sagemaker:DescribeEndpoint"), ENDPOINTS)
    | may(("dynamodb:GetItem", "dynamodb:UpdateItem"), "JobsTable", where=keys("gate#*"))
    | may(("dynamodb:BatchGetItem", "dynamodb:UpdateItem"), "JobsTable", where=JOBS)
    | may("dynamodb:GetItem", "JobsTable", where=BATCHES)
)
GENERATE = WORKER | may(LOG_STREAMS, "Log") | may("sqs:SendMessage", "Jobs", "Batches") | TAKE_JOBS
#: By stack and role: the service, how AWS documents that it names the account, AWS's own policies, and permissions.
ROLES: dict[tuple[str, str], tuple[str, str, list[str], set[Permission]]] = {
    ("sagemaker", "ExecutionRole"): ("sagemaker.amazonaws.com", "StringEquals", [], EXECUTION),
    ("sagemaker", "ForwardRole"): ("lambda.amazonaws.com", "StringEqualsIfExists", [], FORWARD),
    ("lambda_gpu", "Role"): ("lambda.amazonaws.com", "StringEqualsIfExists", [], GENERATE),
    ("lambda_gpu", "Operator"): (
        "lambda.amazonaws.com",
        "StringEqualsIfExists",
        [":iam::aws:policy/AWSLambdaManagedEC2ResourceOperator"],
        set(),
    ),
    ("lambda_gpu", "FlowRole"): (
        "vpc-flow-logs.amazonaws.com",
        "StringEquals",
        [],
        may(("logs:DescribeLogStreams", *LOG_STREAMS), "FlowLog"),
    ),
}


def test_there_are_no_other_roles(synthesized: Synthesized) -> None:
    found = {
        (stack, plain(name))
        for stack in ("sagemaker", "lambda_gpu")
        for name in of_type(getattr(synthesized, stack), "AWS::IAM::Role")
    }
    assert found == set(ROLES)


@pytest.mark.parametrize(("stack", "role"), ROLES)
def test_a_role_may_do_this_and_nothing_else(stack: str, role: str, synthesized: Synthesized) -> None:
    template = getattr(synthesized, stack)
    service, operator, managed, allowed = ROLES[stack, role]
    assert of_role(template, role) == allowed
    (properties,) = (
        properties for name, properties in of_type(template, "AWS::IAM::Role").items() if plain(name) == role
    )
    assert "Policies" not in properties
    assert [arn["Fn::Join"][1][-1] for arn in properties.get("ManagedPolicyArns", [])] == managed
    assert properties["AssumeRolePolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole",
            "Condition": {operator: {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
        }
    ]


def test_a_folder_of_models_is_read_and_nothing_beside_it() -> None:
    template = synthesize(models="s3://my-models/flux/").sagemaker
    assert of_role(template, "ExecutionRole") == (
        EXECUTION
        | may("s3:GetObject", "s3:::my-models/flux/*")
        | may("s3:ListBucket", "s3:::my-models", where={"StringLike": {"s3:prefix": ["flux/*"]}})
    )


def test_a_token_is_read_where_it_is_kept_and_no_other() -> None:
    secret = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:civitai-AbCdEf"
    stacks = synthesize(hugging_face_token_parameter="/comfy/hf-token", civitai_token_parameter=secret)
    tokens = may("ssm:GetParameter", "ssm:parameter/comfy/hf-token") | may("secretsmanager:GetSecretValue", secret)
    assert of_role(stacks.sagemaker, "ExecutionRole") == EXECUTION | tokens
    assert of_role(stacks.lambda_gpu, "Role") == GENERATE | tokens


def test_an_arn_of_an_endpoint_is_lower_case_whatever_the_stack_is_called() -> None:
    template = synthesize(stack="Pictures").sagemaker
    (endpoint,) = {one.resource for one in of_role(template, "ForwardRole") if one.action.startswith("sagemaker:")}
    assert endpoint == "sagemaker:endpoint/pictures-gpu-????????"


def test_a_worker_may_do_on_a_gpu_what_it_may_do_without_one() -> None:
    policies = SAM["Resources"]["GenerateRole"]["Properties"]["Policies"]
    sam = of_statements(statement for policy in policies for statement in policy["PolicyDocument"]["Statement"])
    own = {"GenerateLogGroup", "JobQueue", "BatchQueue", "JobDeadLetterQueue"}
    assert {one for one in sam if one.resource not in own} == WORKER


def test_nobody_but_topics_and_the_clock_starts_a_function(synthesized: Synthesized) -> None:
    permissions = of_type(synthesized.sagemaker, "AWS::Lambda::Permission").values()
    assert {(one["Principal"], named(one["FunctionName"]), named(one["SourceArn"])) for one in permissions} == {
        ("sns.amazonaws.com", "OutcomeFunction", "SuccessTopic"),
        ("sns.amazonaws.com", "OutcomeFunction", "FailureTopic"),
        ("events.amazonaws.com", "Forward", "EachMinute"),
    }
    assert len(permissions) == 3
    assert not of_type(synthesized.lambda_gpu, "AWS::Lambda::Permission")


def test_every_queue_refuses_what_is_not_encrypted_and_only_topics_send_by_a_policy(synthesized: Synthesized) -> None:
    for template in (synthesized.sagemaker, synthesized.lambda_gpu):
        policies = of_type(template, "AWS::SQS::QueuePolicy").values()
        assert {named(queue) for policy in policies for queue in policy["Queues"]} == {
            plain(name) for name in of_type(template, "AWS::SQS::Queue")
        }
        for policy in policies:
            (queue,) = policy["Queues"]
            denied, *allowed = policy["PolicyDocument"]["Statement"]
            assert (denied["Effect"], denied["Action"]) == ("Deny", "sqs:*")
            assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            senders = {named(one["Condition"]["ArnEquals"]["aws:SourceArn"]) for one in allowed}
            assert senders == ({"SuccessTopic", "FailureTopic"} if named(queue) == "OutcomeDeadLetters" else set())
            assert all(one["Action"] == "sqs:SendMessage" for one in allowed)


def named(reference: dict[str, Any]) -> str:
    """The target of a reference."""
    (target,) = reference.values()
    return plain(str(as_list(target)[0]))
