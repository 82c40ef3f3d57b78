"""What holds data in a stack, and stays when the stack is deleted: its buckets and its table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient

#: The types that template.yaml retains, and what CloudFormation knows one by.
IDENTIFIERS: Final = {"AWS::S3::Bucket": "BucketName", "AWS::DynamoDB::Table": "TableName"}
_NOT_THERE: Final = ("CREATE_FAILED", "DELETE_COMPLETE")


class NoStack(LookupError):
    """There is no such stack, nor has there been one lately."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A resource that stays.

    Attributes:
        logical_id: its name in template.yaml, "JobsTable".
        name: its own name, "comfy-serverless-JobsTable-1ABC".
    """

    logical_id: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Found:
    """A stack, as it is or was.

    Attributes:
        stack_id: its ARN, by which CloudFormation knows it for 90 days after it was deleted.
        status: None if it was deleted.
    """

    stack_id: str
    status: str | None
    kept: tuple[Kept, ...]


def find(cloudformation: CloudFormationClient, stack: str) -> Found:
    """Find a stack by its name; if there is none, the one deleted last that has left something.

    Raises:
        NoStack: there is none, and none was deleted in the last 90 days.
    """
    summaries = [
        summary
        for page in cloudformation.get_paginator("list_stacks").paginate()
        for summary in page["StackSummaries"]
        if summary["StackName"] == stack
    ]
    if not summaries:
        raise NoStack(
            f"there is no stack {stack!r} in this account and region, and none was deleted in the last 90 days"
        )
    there = [one for one in summaries if one["StackStatus"] != "DELETE_COMPLETE"]
    if there:
        return Found(there[0]["StackId"], there[0]["StackStatus"], _holding(cloudformation, there[0]["StackId"]))
    newest_first = sorted(summaries, key=lambda one: one["CreationTime"], reverse=True)
    # One that could not be made has left nothing, and the one before it may have.
    found = [Found(one["StackId"], None, _left(cloudformation, one["StackId"])) for one in newest_first]
    return next((one for one in found if one.kept), found[0])


def _holding(cloudformation: CloudFormationClient, stack_id: str) -> tuple[Kept, ...]:
    """What holds data in a stack that is there."""
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack_id)
    return _sorted(
        Kept(entry["LogicalResourceId"], entry["ResourceType"], entry["PhysicalResourceId"])
        for page in pages
        for entry in page["StackResourceSummaries"]
        if entry["ResourceType"] in IDENTIFIERS and entry["ResourceStatus"] not in _NOT_THERE
    )


def _left(cloudformation: CloudFormationClient, stack_id: str) -> tuple[Kept, ...]:
    """What a deleted stack has left: CloudFormation says of each that it has skipped it."""
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id)
    return _sorted(
        Kept(event["LogicalResourceId"], event["ResourceType"], event["PhysicalResourceId"])
        for page in pages
        for event in page["StackEvents"]
        if event["ResourceType"] in IDENTIFIERS and event["ResourceStatus"] == "DELETE_SKIPPED"
    )


def _sorted(kept: Iterable[Kept]) -> tuple[Kept, ...]:
    return tuple(sorted(set(kept), key=lambda one: (one.kind, one.name)))
