"""The roles of template.yaml with their policies, and which function has which.

A role signs its requests to the local AWS with its own name as the access key. Every other key is the administrator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from local.aws.needs import Needs
from local.aws.permissions import NotUnderstood, Role, statements_of
from local.aws.server import ACCOUNT, REGION
from local.aws.template import name_of, of_type, resolve, types

#: What the names of all roles end in, so that the local AWS knows one without having read the template.
SUFFIX: Final = "Role"


@cache
def roles() -> Mapping[str, Role]:
    """Every role of the template, by its name there."""
    if unknown := {kind for kind in types() if kind.startswith("AWS::IAM::")} - {"AWS::IAM::Role", "AWS::IAM::Policy"}:
        raise NotUnderstood(f"{', '.join(sorted(unknown))}: who gets what by that is not known here")
    found = {}
    for name, properties in of_type("AWS::IAM::Role").items():
        if "ManagedPolicyArns" in properties or not name.endswith(SUFFIX):
            raise NotUnderstood(f"{name}: roles have policies of their own, and names that end in {SUFFIX}")
        own = [policy["PolicyDocument"] for policy in properties["Policies"]]
        documents = [resolve(document) for document in (*own, *_policies_for(name))]
        found[name] = Role(name, statements_of(documents))
    return found


def _policies_for(role: str) -> list[dict[str, Any]]:
    """The policies that are resources of their own. Their conditions hold here: buckets of one's own are listed."""
    policies = of_type("AWS::IAM::Policy").values()
    if any(policy.keys() & {"Users", "Groups"} for policy in policies):
        raise NotUnderstood("a policy is for roles")
    return [policy["PolicyDocument"] for policy in policies if {"Ref": role} in policy["Roles"]]


@cache
def needs() -> Needs:
    """What each request needs, with the keys of the template's tables."""
    hash_keys = {}
    for resource, properties in of_type("AWS::DynamoDB::Table").items():
        table = name_of(resource)
        hash_keys[table] = properties["KeySchema"][0]["AttributeName"]
        for index in properties["GlobalSecondaryIndexes"]:
            hash_keys[f"{table}/index/{index['IndexName']}"] = index["KeySchema"][0]["AttributeName"]
    return Needs(region=REGION, account=ACCOUNT, hash_keys=hash_keys)


def role_of(function: str) -> str:
    """The role of a function of the template."""
    role: str = of_type("AWS::Serverless::Function")[function]["Role"]["Fn::GetAtt"][0]
    return role


def functions_by_handler() -> dict[str, str]:
    """The functions whose image holds several handlers, by the one that is theirs."""
    return {
        properties["ImageConfig"]["Command"][0]: name
        for name, properties in of_type("AWS::Serverless::Function").items()
        if "ImageConfig" in properties
    }
