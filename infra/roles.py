"""Roles that only one service may assume, and only for this account."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

#: Services that name the account they act for when they assume a role, according to their documentation. Lambda seems
#: to name it too, but does not document it: the condition must not lock Lambda out of its own function.
_NAME_THE_ACCOUNT = ("sagemaker.amazonaws.com", "vpc-flow-logs.amazonaws.com")


def role_for(
    scope: Construct,
    construct_id: str,
    service: str,
    *,
    description: str | None = None,
    managed_policies: list[iam.IManagedPolicy] | None = None,
) -> iam.Role:
    """A role for this service, unless the service acts for another account (a "confused deputy")."""
    operator = "StringEquals" if service in _NAME_THE_ACCOUNT else "StringEqualsIfExists"
    account = Stack.of(scope).account
    return iam.Role(
        scope,
        construct_id,
        assumed_by=iam.ServicePrincipal(service, conditions={operator: {"aws:SourceAccount": account}}),
        description=description,
        managed_policies=managed_policies,
    )
