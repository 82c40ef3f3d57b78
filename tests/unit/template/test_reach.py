"""What each role of template.yaml could do to another owner's things is in docs/security.md, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local.aws import template as template_module
from local.aws.permissions import NotUnderstood, Role, statements_of
from local.aws.roles import roles
from local.aws.server import ACCOUNT, REGION
from local.aws.template import OWN_BUCKETS, STACK, TOKEN_NAMES, TOKEN_SECRETS, arn_of, of_type, template
from tests import reach
from tests.unit.table.test_items import FILES, stored
from tests.unit.template.processed import parse, processed


def arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


WORLD = reach.World(
    table=arn_of("JobsTable"),
    buckets={name: arn_of(f"{name.title()}Bucket") for name in reach.OBJECTS},
    things={
        **{queue: [arn_of(queue)] for queue in of_type("AWS::SQS::Queue")},
        **{group: [arn_of(group)] for group in of_type("AWS::Logs::LogGroup")},
        **{lists: [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/theirs"] for lists, (name,) in OWN_BUCKETS.items()},
        "another bucket": ["arn:aws:s3:::theirs", "arn:aws:s3:::theirs/theirs"],
        "gpu queues": [arn("sqs", f"{STACK}-gpu-jobs"), arn("sqs", f"{STACK}-gpu-batches")],
        "releases' queues": [arn("sqs", f"{STACK}-release-next-jobs"), arn("sqs", f"{STACK}-release-next-batches")],
        "another queue": [arn("sqs", "theirs")],
        "dispatch": [arn("ssm", f"parameter/comfy-serverless/{STACK}/dispatch")],
        "live": [arn("ssm", f"parameter/comfy-serverless/{STACK}/live")],
        "releases": [arn("ssm", f"parameter/comfy-serverless/{STACK}/releases/next")],
        "another parameter": [arn("ssm", f"parameter/comfy-serverless/{STACK}/theirs"), arn("ssm", "parameter/theirs")],
        "tokens": [*(arn("ssm", f"parameter{name}") for name in TOKEN_NAMES.values()), *TOKEN_SECRETS.values()],
        "another secret": [arn("secretsmanager", "secret:theirs-AbCdEf")],
        "endpoint": [arn("sagemaker", f"endpoint/{STACK}-gpu-01234567")],
        "another endpoint": [arn("sagemaker", "endpoint/theirs")],
        "manifests": [
            arn("states", f"stateMachine:{STACK}-manifests"),
            arn("states", f"execution:{STACK}-manifests:1"),
            arn("states", f"execution:{STACK}-manifests/1"),
        ],
        "another machine": [arn("states", "stateMachine:theirs"), arn("states", "execution:theirs:1")],
        "IngestFunction": [arn_of("IngestFunction")],
        "another function": [arn("lambda", "function:theirs")],
    },
)


@pytest.mark.parametrize("role", sorted(roles()))
def test_a_role_reaches_what_the_docs_say_and_nothing_else(role: str) -> None:
    assert reach.unasked(roles()[role], WORLD) == []
    found = reach.reach(roles()[role], WORLD)
    found["writes"] -= {f"{role.removesuffix('Role')}LogGroup"}  # its own
    assert found == reach.meant(role)


def test_the_docs_speak_of_every_role() -> None:
    assert reach.roles_in_the_table() >= set(roles())


def test_every_kind_of_item_is_asked_for() -> None:
    written = {str(stored(path.stem.removeprefix("item_"))["pk"]) for path in FILES}
    assert {pk if pk in reach.ALONE else f"{pk.partition('#')[0]}#" for pk in written} == set(reach.ITEMS)
    source = "".join(path.read_text(encoding="utf-8") for path in Path("lambda/comfy_serverless").rglob("*.py"))
    begun = set(re.findall(r'return f"(\w+#)\{', source)) | set(re.findall(r'pk=f"(\w+#)\{', source))
    assert begun - {"range#", "key#", "output#", "bad#"} <= set(reach.ITEMS), "those are sort keys"


def test_only_webhooks_and_the_api_come_near_the_secrets_of_webhooks() -> None:
    near = {name for name, role in roles().items() if "webhook#" in set().union(*reach.reach(role, WORLD).values())}
    assert near == {"WebhookRole", "ApiRole"}


@pytest.mark.parametrize(
    ("action", "resource", "where"),
    [
        ("dynamodb:UpdateItem", WORLD.table, ["webhook#*"]),
        ("dynamodb:GetItem", WORLD.table, ["keys"]),
        ("dynamodb:DeleteItem", WORLD.table, ["batch#*"]),
        ("dynamodb:Scan", WORLD.table, None),
        ("s3:DeleteObject", f"{WORLD.buckets['output']}/*", None),
        ("s3:PutObject", f"{WORLD.buckets['assets']}/blobs/*", None),
        ("s3:GetObject", "arn:aws:s3:::somewhere-else/*", None),
        ("ssm:GetParameter", arn("ssm", "parameter/*"), None),
        ("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:*"), None),
        ("sqs:PurgeQueue", arn_of("WebhookQueue"), None),
        ("dynamodb:RestoreTableToPointInTime", WORLD.table, None),
    ],
)
def test_a_right_too_many_is_seen(action: str, resource: str, where: list[str] | None) -> None:
    statement: dict[str, object] = {"Sid": "TooMuch", "Effect": "Allow", "Action": action, "Resource": resource}
    if where:
        statement["Condition"] = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": where}}
    worker = roles()["GenerateRole"]
    richer = Role(worker.name, (*worker.statements, *statements_of([{"Statement": [statement]}])))
    is_seen = reach.reach(richer, WORLD) != reach.reach(worker, WORLD) or reach.unasked(richer, WORLD)
    assert is_seen


# The other way round: what the policies of resources let in, and what makes rights beside the roles' own policies.


@pytest.mark.parametrize("name", ["template.yaml", "repositories.yaml"])
def test_no_policy_of_a_resource_lets_anybody_in_but_services_that_act_for_this_account(name: str) -> None:
    resources = (processed() if name == "template.yaml" else parse(name))["Resources"]
    assert reach.outsiders(resources) == []


def test_the_input_bucket_alone_is_let_into_a_queue_and_nobody_into_a_bucket() -> None:
    policies = {**of_type("AWS::SQS::QueuePolicy"), **of_type("AWS::S3::BucketPolicy")}
    allowed = {
        (name, statement["Sid"])
        for name, policy in policies.items()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] != "Deny"
    }
    assert allowed == {("DropQueuePolicy", "TheInputBucketMaySend")}


def test_sam_makes_one_role_beside_ours() -> None:
    made = {name for name, entry in processed()["Resources"].items() if entry["Type"] == "AWS::IAM::Role"}
    assert made - set(roles()) == {"CodeDeployServiceRole"}


_BOUND = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
_SNS = {"Service": "sns.amazonaws.com"}


@pytest.mark.parametrize(
    ("kind", "statement", "is_outsider"),
    [
        ("AWS::S3::BucketPolicy", {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}, True),
        ("AWS::S3::BucketPolicy", {"Effect": "Deny", "Principal": "*", "Action": "s3:*"}, False),
        ("AWS::SQS::QueuePolicy", {"Effect": "Allow", "Principal": _SNS, "Action": "sqs:SendMessage"}, True),
        (
            "AWS::SQS::QueuePolicy",
            {"Effect": "Allow", "Principal": _SNS, "Action": "sqs:SendMessage", "Condition": _BOUND},
            False,
        ),
        ("AWS::SQS::QueuePolicy", {"Effect": "Allow", "Principal": _SNS, "Action": "sqs:*", "Condition": _BOUND}, True),
        ("AWS::SQS::QueuePolicy", {"Effect": "Allow", "NotPrincipal": _SNS, "Action": "sqs:SendMessage"}, True),
        ("AWS::IAM::Role", {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}, True),
        ("AWS::KMS::Key", {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*"}, True),
    ],
)
def test_an_outsider_is_seen(kind: str, statement: dict[str, object], *, is_outsider: bool) -> None:
    found = reach.outsiders({"X": {"Type": kind, "Properties": {"PolicyDocument": {"Statement": [statement]}}}})
    assert bool(found) is is_outsider


def test_a_permission_that_is_bound_to_nothing_is_seen() -> None:
    permission = {"Action": "lambda:InvokeFunction", "FunctionName": "f", "Principal": "s3.amazonaws.com"}
    assert reach.outsiders({"X": {"Type": "AWS::Lambda::Permission", "Properties": permission}})
    bound = {**permission, "SourceArn": "arn:aws:s3:::b"}
    assert not reach.outsiders({"X": {"Type": "AWS::Lambda::Permission", "Properties": bound}})


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("AWS::IAM::ManagedPolicy", {"Roles": [{"Ref": "GenerateRole"}]}),
        ("AWS::IAM::RolePolicy", {"RoleName": {"Ref": "GenerateRole"}}),
        ("AWS::IAM::Policy", {"Roles": [{"Ref": "GenerateRole"}], "Users": ["ana"]}),
    ],
)
def test_rights_that_come_another_way_are_not_overlooked(
    kind: str, properties: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = {**template()["Resources"], "More": {"Type": kind, "Properties": properties}}
    monkeypatch.setattr(template_module, "template", lambda: {**template(), "Resources": resources})
    with pytest.raises(NotUnderstood):
        roles.__wrapped__()
