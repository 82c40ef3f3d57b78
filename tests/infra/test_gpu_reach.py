"""What each role of the GPU stacks could do to another owner's things is in docs/security.md, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from local.aws.permissions import Role, statements_of
from tests import reach
from tests.infra.permissions import plain
from tests.infra.stacks import STACKS, Synthesized, every_stack, of_type

pytestmark = pytest.mark.timeout(600)

PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "eu-central-1", "AWS::AccountId": "123456789012"}
#: The SAM stack's, by the parameters that name them.
OF_SAM = {
    "JobsTableArn": "arn:aws:dynamodb:eu-central-1:123456789012:table/jobs",
    "WebhookQueueArn": "arn:aws:sqs:eu-central-1:123456789012:webhooks",
    "InputBucket": "input",
    "OutputBucket": "output",
    "AssetsBucket": "assets",
}
SERVICES = {
    "AWS::SQS::Queue": "sqs",
    "AWS::SNS::Topic": "sns",
    "AWS::KMS::Key": "kms",
    "AWS::Logs::LogGroup": "logs",
    "AWS::Lambda::Function": "lambda",
}
WORKERS = {("sagemaker", "ExecutionRole"), ("sagemaker", "ForwardRole"), ("lambda_gpu", "Role")}
#: They are of AWS's own services.
OTHERS = {"Operator", "FlowRole"}


def arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{PSEUDO['AWS::Region']}:{PSEUDO['AWS::AccountId']}:{name}"


def resolve(value: Any, template: dict[str, Any]) -> Any:
    """The same with what CloudFormation would put in."""
    match value:
        case list():
            return [resolve(one, template) for one in value]
        case {"Ref": name} if name in PSEUDO:
            return PSEUDO[name]
        case {"Ref": name} if name in OF_SAM:
            return OF_SAM[name]
        case {"Ref": name} | {"Fn::GetAtt": [name, "Arn"]}:
            return arn(SERVICES[template["Resources"][name]["Type"]], plain(name))
        case {"Fn::Join": ["", parts]}:
            return "".join(resolve(part, template) for part in parts)
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([^}]+)\}", lambda found: PSEUDO[found[1]], text)
        case dict():
            return {name: resolve(one, template) for name, one in value.items()}
    return value


def role_of(template: dict[str, Any], name: str) -> Role:
    documents = [
        resolve(policy["PolicyDocument"], template)
        for policy in of_type(template, "AWS::IAM::Policy").values()
        if any(plain(attached["Ref"]) == name for attached in policy["Roles"])
    ]
    return Role(name, statements_of(documents))


ENDPOINT = "comfy-serverless-gpu-01234567"
WORLD = reach.World(
    table=OF_SAM["JobsTableArn"],
    buckets={name: f"arn:aws:s3:::{name}" for name in reach.OBJECTS},
    things={
        "WebhookQueue": [OF_SAM["WebhookQueueArn"]],
        "gpu queues": [arn("sqs", "Jobs"), arn("sqs", "Batches")],
        "dead letters": [arn("sqs", f"{name}DeadLetters") for name in ("Job", "Batch", "Outcome")],
        "another queue": [arn("sqs", "theirs")],
        "topics": [arn("sns", "SuccessTopic"), arn("sns", "FailureTopic")],
        "another topic": [arn("sns", "theirs")],
        "topic key": [arn("kms", "TopicKey")],
        "another key": [arn("kms", "theirs")],
        "own log": [arn("logs", "ForwardLog"), arn("logs", "Log"), arn("logs", "FlowLog")],
        "logs of endpoints": [arn("logs", f"log-group:/aws/sagemaker/Endpoints/{ENDPOINT}:1")],
        "another log": [arn("logs", "log-group:/aws/lambda/theirs:1")],
        "endpoint": [arn("sagemaker", f"endpoint/{ENDPOINT}")],
        "another endpoint": [arn("sagemaker", "endpoint/theirs")],
        "images": [arn("ecr", "repository/comfy-serverless/gpu")],
        "another repository": [arn("ecr", "repository/theirs")],
        "another parameter": [arn("ssm", "parameter/theirs")],
        "another function": [arn("lambda", "function:theirs")],
    },
)


def reached(role: Role) -> dict[str, set[str]]:
    """What it can do, but to its own log."""
    assert reach.unasked(role, WORLD) == []
    found = reach.reach(role, WORLD)
    found["writes"] -= {"own log"}
    return found


@pytest.mark.parametrize(("stack", "role"), sorted(WORKERS))
def test_a_role_reaches_what_the_docs_say_and_nothing_else(stack: str, role: str, synthesized: Synthesized) -> None:
    assert reached(role_of(getattr(synthesized, stack), role)) == reach.meant(role)


def test_the_docs_speak_of_every_role_that_reaches_something_of_an_owner(synthesized: Synthesized) -> None:
    roles = {
        (stack, plain(name))
        for stack in ("sagemaker", "lambda_gpu")
        for name in of_type(getattr(synthesized, stack), "AWS::IAM::Role")
    }
    assert {role for role in roles if role[1] not in OTHERS} == WORKERS
    for stack, name in roles - WORKERS:
        assert not any(reached(role_of(getattr(synthesized, stack), name)).values()), name


def test_no_worker_comes_near_keys_or_the_secrets_of_webhooks(synthesized: Synthesized) -> None:
    for stack, name in WORKERS:
        found = reached(role_of(getattr(synthesized, stack), name))
        assert not {"keys", "webhook#"} & set().union(*found.values()), name


@pytest.mark.parametrize("stack", STACKS)
def test_no_policy_of_a_resource_lets_anybody_in_but_services_that_act_for_this_account(stack: str) -> None:
    assert reach.outsiders(every_stack()[stack]["Resources"]) == []


@pytest.mark.parametrize("stack", STACKS)
def test_rights_come_from_no_other_kind_of_resource(stack: str) -> None:
    kinds = {entry["Type"] for entry in every_stack()[stack]["Resources"].values()}
    assert {kind for kind in kinds if kind.startswith("AWS::IAM::")} == {"AWS::IAM::Role", "AWS::IAM::Policy"}
    for policy in of_type(every_stack()[stack], "AWS::IAM::Policy").values():
        assert policy.keys() == {"PolicyDocument", "PolicyName", "Roles"}
