"""Which stack is meant by a name, and what it has left."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tools.retained import Kept, NoStack, find

BUCKET, TABLE = "AWS::S3::Bucket", "AWS::DynamoDB::Table"


class CloudFormation:
    """CloudFormation's lists, in pages of one."""

    def __init__(self, *stacks: tuple[str, str, list[tuple[str, str, str]]]) -> None:
        self.stacks = {f"arn:{number}": stack for number, stack in enumerate(stacks)}

    def get_paginator(self, name: str) -> Any:
        lists = {
            "list_stacks": self._summaries,
            "list_stack_resources": self._resources,
            "describe_stack_events": self._events,
        }
        return type("Pages", (), {"paginate": staticmethod(lists[name])})

    def _summaries(self) -> list[dict[str, Any]]:
        return [
            {
                "StackSummaries": [
                    {
                        "StackName": name,
                        "StackStatus": status,
                        "StackId": stack_id,
                        "CreationTime": datetime(2026, 1, 1 + int(stack_id[-1]), tzinfo=UTC),
                    }
                ]
            }
            for stack_id, (name, status, _) in self.stacks.items()
        ]

    def _resources(self, **of: str) -> list[dict[str, Any]]:
        return [{"StackResourceSummaries": [entry]} for entry in self._entries(of["StackName"])]

    def _events(self, **of: str) -> list[dict[str, Any]]:
        return [{"StackEvents": [entry]} for entry in self._entries(of["StackName"])]

    def _entries(self, stack_id: str) -> list[dict[str, str]]:
        return [
            {
                "LogicalResourceId": "OutputBucket" if kind == BUCKET else "JobsTable",
                "ResourceType": kind,
                "PhysicalResourceId": name,
                "ResourceStatus": status,
            }
            for kind, name, status in self.stacks[stack_id][2]
        ]


def found(cloud: CloudFormation) -> tuple[str | None, list[str]]:
    """The status of the stack that is meant, and the names of what it holds or has left."""
    stack = find(cloud, "comfy")  # type: ignore[arg-type]
    return stack.status, [one.name for one in stack.kept]


SKIPPED = [(BUCKET, "old-bucket", "DELETE_SKIPPED"), (TABLE, "old-table", "DELETE_SKIPPED")]


def test_a_stack_that_is_there_comes_before_those_that_were() -> None:
    cloud = CloudFormation(
        ("comfy", "CREATE_COMPLETE", [(BUCKET, "bucket", "CREATE_COMPLETE")]),
        ("comfy", "DELETE_COMPLETE", SKIPPED),
    )
    assert found(cloud) == ("CREATE_COMPLETE", ["bucket"])


def test_of_those_that_were_the_last_one_that_has_left_something_is_meant() -> None:
    cloud = CloudFormation(
        ("comfy", "DELETE_COMPLETE", [(BUCKET, "older-bucket", "DELETE_SKIPPED")]),
        ("comfy", "DELETE_COMPLETE", SKIPPED),
        ("comfy", "DELETE_COMPLETE", [(BUCKET, "old-bucket", "CREATE_FAILED")]),  # an attempt that failed
        ("other", "CREATE_COMPLETE", [(BUCKET, "other-bucket", "CREATE_COMPLETE")]),
    )
    assert found(cloud) == (None, ["old-table", "old-bucket"])


def test_what_could_not_be_made_is_not_held() -> None:
    cloud = CloudFormation(("comfy", "ROLLBACK_COMPLETE", [(BUCKET, "bucket", "CREATE_FAILED")]))
    assert found(cloud) == ("ROLLBACK_COMPLETE", [])


def test_what_is_made_by_cloudformation_is_known_by_its_name_in_the_template() -> None:
    cloud = CloudFormation(("comfy", "DELETE_COMPLETE", SKIPPED))
    assert find(cloud, "comfy").kept == (  # type: ignore[arg-type]
        Kept("JobsTable", TABLE, "old-table"),
        Kept("OutputBucket", BUCKET, "old-bucket"),
    )


def test_a_stack_that_never_was_is_told() -> None:
    with pytest.raises(NoStack, match="there is no stack 'comfy'"):
        find(CloudFormation(("other", "CREATE_COMPLETE", [])), "comfy")  # type: ignore[arg-type]
