"""Policies as IAM evaluates them, and those of template.yaml among them."""

from __future__ import annotations

from typing import Any

import pytest

from local.aws.permissions import LEADING_KEYS, Access, NotUnderstood, Role, statements_of
from local.aws.roles import functions_by_handler, role_of, roles
from local.aws.template import NotResolved, arn_of, name_of, resolve

OBJECT = "arn:aws:s3:::results/job/result.json"
TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/jobs"


def allow(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Sid": "Some", "Effect": "Allow", "Action": action, "Resource": resource, **more}


def role(*statements: dict[str, Any]) -> Role:
    return Role("SomeRole", statements_of([{"Version": "2012-10-17", "Statement": list(statements)}]))


def access(action: str, resource: str = OBJECT, **context: tuple[str, ...]) -> Access:
    return Access(action=action, resource=resource, context=context)


def item(*keys: str, action: str = "dynamodb:PutItem") -> Access:
    return Access(action=action, resource=TABLE, context={LEADING_KEYS: keys} if keys else {})


@pytest.mark.parametrize(
    ("actions", "resources", "is_allowed"),
    [
        ("s3:GetObject", OBJECT, True),
        ("s3:getobject", OBJECT, True),
        (["s3:PutObject", "s3:GetObject"], ["arn:aws:s3:::other/*", OBJECT], True),
        ("s3:Get*", "arn:aws:s3:::results/*", True),
        ("s3:*", "*", True),
        ("s3:Get??ject", "arn:aws:s3:::results/job/*.json", True),
        ("s3:Get?ject", "*", False),
        ("s3:GetObject", "arn:aws:s3:::results", False),
        ("s3:GetObject", "arn:aws:s3:::results/", False),
        ("s3:GetObject", "arn:aws:s3:::RESULTS/*", False),
        ("s3:GetObject", "arn:aws:s3:::results/job.result.json", False),
        ("s3:GetObjec", "*", False),
        ("s3:GetObjectVersion", "*", False),
    ],
)
def test_actions_are_matched_without_case_and_resources_with_it(
    actions: Any, resources: Any, *, is_allowed: bool
) -> None:
    assert role(allow(actions, resources)).allows(access("s3:GetObject")) is is_allowed


def test_a_pattern_is_no_regular_expression() -> None:
    some = role(allow("s3:GetObject", "arn:aws:s3:::a.b/[x]+"))
    assert some.allows(access("s3:GetObject", "arn:aws:s3:::a.b/[x]+"))
    assert not some.allows(access("s3:GetObject", "arn:aws:s3:::aob/x"))


def test_everything_is_denied_that_nothing_allows() -> None:
    denial = role().denial(access("s3:GetObject"))
    assert denial == (
        f"User: SomeRole is not authorized to perform: s3:GetObject on resource: {OBJECT} "
        "because no identity-based policy allows the s3:GetObject action"
    )


def test_a_deny_wins_over_every_allow() -> None:
    deny = {**allow("s3:*"), "Effect": "Deny", "Sid": "Never"}
    for statements in ([deny, allow("*")], [allow("*"), deny]):
        denial = role(*statements).denial(access("s3:GetObject"))
        assert denial is not None
        assert "explicit deny" in denial
        assert "Never" in denial


ALL_LIKE = {"ForAllValues:StringLike": {LEADING_KEYS: ["job#*", "asset#*"]}}
ANY_EQUAL = {"ForAnyValue:StringEquals": {LEADING_KEYS: ["keys"]}}
TAGGED = {"StringEquals": {"aws:ResourceTag/stack": "ours"}}


@pytest.mark.parametrize(
    ("condition", "asked", "is_allowed"),
    [
        (ALL_LIKE, item("job#1"), True),
        (ALL_LIKE, item("job#1", "asset#2"), True),
        (ALL_LIKE, item("job#1", "keys"), False),
        (ALL_LIKE, item("JOB#1"), False),
        # As IAM has it: "for all values" of none is true. A scan would be allowed.
        (ALL_LIKE, item(), True),
        (ANY_EQUAL, item("keys"), True),
        (ANY_EQUAL, item("job#1", "keys"), True),
        (ANY_EQUAL, item("keys#1"), False),
        (ANY_EQUAL, item(), False),
        (TAGGED, Access(action="dynamodb:PutItem", resource=TABLE, context={"aws:ResourceTag/stack": ("ours",)}), True),
        (TAGGED, Access(action="dynamodb:PutItem", resource=TABLE, context={"aws:ResourceTag/stack": ("o",)}), False),
        (TAGGED, item("job#1"), False),
        ({**ALL_LIKE, **ANY_EQUAL}, item("job#1"), False),
    ],
)
def test_a_condition_must_be_met(condition: Any, asked: Access, *, is_allowed: bool) -> None:
    assert role(allow("dynamodb:PutItem", TABLE, Condition=condition)).allows(asked) is is_allowed


@pytest.mark.parametrize(
    "statement",
    [
        allow("s3:GetObject", Condition={"IpAddress": {LEADING_KEYS: "10.0.0.0/8"}}),
        allow("s3:GetObject", Condition={"StringEqualsIfExists": {LEADING_KEYS: ["x"]}}),
        allow("s3:GetObject", Condition={"ForSomeValues:StringLike": {LEADING_KEYS: ["x"]}}),
        allow("s3:GetObject", Condition={"StringLike": {LEADING_KEYS: ["x"]}}),
        allow("s3:GetObject", Condition={"StringLike": {"s3:prefix": ["x"]}}),
        allow("s3:GetObject", "arn:aws:s3:::bucket/${aws:username}/*"),
        allow("s3:GetObject", {"Ref": "Bucket"}),
        allow("s3:GetObject", NotResource="x"),
        allow("s3:GetObject", Principal="*"),
        {**allow("s3:GetObject"), "Effect": "Perhaps"},
    ],
)
def test_what_is_not_understood_is_never_ignored(statement: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood):
        role(statement)


# The template's own.


def test_the_names_of_the_template_are_those_of_this_machine() -> None:
    assert resolve(
        {"Fn::Sub": "arn:${AWS::Partition}:s3:::${BucketPrefix}-input-${AWS::AccountId}-${AWS::Region}/*"}
    ) == (f"arn:aws:s3:::{name_of('InputBucket')}/*")
    assert resolve([{"Fn::GetAtt": ["JobQueue", "Arn"]}, {"Ref": "AWS::StackName"}]) == [arn_of("JobQueue"), "local"]
    assert resolve({"Fn::Sub": "${JobsTable.Arn}/index/*"}) == f"{arn_of('JobsTable')}/index/*"
    assert resolve({"a": [1, True, "x"]}) == {"a": [1, True, "x"]}


@pytest.mark.parametrize(
    "value",
    [
        {"Ref": "JobQueue"},
        {"Ref": "Nothing"},
        {"Fn::GetAtt": ["JobQueue", "QueueName"]},
        {"Fn::Sub": "${JobQueue.QueueName}"},
        {"Fn::Sub": ["${x}", {"x": "y"}]},
        {"Fn::If": ["HasAlarmTopic", 1, 2]},
        {"Fn::GetAtt": ["HttpApi", "Arn"]},
    ],
)
def test_what_has_no_value_here_is_not_guessed(value: Any) -> None:
    with pytest.raises(NotResolved):
        resolve(value)


def test_every_function_has_a_role_that_is_understood() -> None:
    functions = [*functions_by_handler().values(), "GenerateFunction"]
    assert {role_of(function) for function in functions} | {"ManifestMachineRole"} == roles().keys()


@pytest.mark.parametrize(
    ("name", "key", "is_allowed"),
    [
        ("GenerateRole", "job#1", True),
        ("GenerateRole", "keys", False),
        ("GenerateRole", "batch#1", False),
        ("ApiRole", "job#1", True),
        ("ApiRole", "keys", True),  # for admins (`api.keys`); never one of an admin
        ("ApiRole", "admins", False),
        ("AuthorizerRole", "keys", False),
        ("IngestRole", "batch#1", True),
        ("IngestRole", "asset#1", False),
        ("WebhookRole", "job#1", False),
    ],
)
def test_who_may_write_which_items(name: str, key: str, *, is_allowed: bool) -> None:
    asked = Access(action="dynamodb:PutItem", resource=arn_of("JobsTable"), context={LEADING_KEYS: (key,)})
    assert roles()[name].allows(asked) is is_allowed


@pytest.mark.parametrize(("tags", "is_allowed"), [({"stack": "local"}, True), ({"stack": "other"}, False), ({}, False)])
def test_jobs_are_sent_to_an_endpoint_of_the_stack_only(tags: dict[str, str], *, is_allowed: bool) -> None:
    endpoint = "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/some"
    context = {f"aws:ResourceTag/comfy-serverless:{name}": (value,) for name, value in tags.items()}
    asked = Access(action="sagemaker:InvokeEndpointAsync", resource=endpoint, context=context)
    assert roles()["ApiRole"].allows(asked) is is_allowed
