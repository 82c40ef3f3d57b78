"""Make a new stack begin with the buckets and the table that a deleted one has left.

    make adopt STACK=comfy-serverless     # then the `make deploy` that it names adds everything else

CloudFormation imports them into a stack of the same name (a change set of the type IMPORT). It changes nothing in them:
the deployment afterwards finds them in its stack, and goes on with their data, jobs and keys.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError, WaiterError
from samcli.yamlhelper import yaml_parse

from tools.retained import IDENTIFIERS, Kept, NoStack, find
from tools.undeploy import Account

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import ResourceToImportTypeDef

TEMPLATE: Final = Path(__file__).parent.parent / "template.yaml"
CHANGE_SET: Final = "adopt"
_POLL_S, _TRIES = 5, 120


class NotAdopted(Exception):
    """Nothing was adopted; the message says why, and what to do."""


def template_of(kept: Sequence[Kept], resources: Mapping[str, Any]) -> dict[str, Any]:
    """The template of a stack that has only these, as an import wants it.

    The table has all that template.yaml says of it: otherwise the deployment afterwards would add three indexes at
    once, which DynamoDB refuses. A bucket has its name; the rest is changed by that deployment.
    """
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "comfy-serverless: data of a stack that was deleted",
        "Resources": {
            one.logical_id: {
                "Type": one.kind,
                "DeletionPolicy": "RetainExceptOnCreate",
                "UpdateReplacePolicy": "Retain",
                "Properties": {"BucketName": one.name}
                if one.kind == "AWS::S3::Bucket"
                else resources[one.logical_id]["Properties"],
            }
            for one in kept
        },
    }


def to_import(kept: Sequence[Kept]) -> list[ResourceToImportTypeDef]:
    """What CloudFormation is told of each: its name in the template, and its own."""
    return [
        {
            "ResourceType": one.kind,
            "LogicalResourceId": one.logical_id,
            "ResourceIdentifier": {IDENTIFIERS[one.kind]: one.name},
        }
        for one in kept
    ]


def prefix_of(kept: Sequence[Kept]) -> str:
    """The BucketPrefix that the buckets were made with: another one would make other buckets."""
    bucket = next(one for one in kept if one.kind == "AWS::S3::Bucket")
    return bucket.name.rpartition(f"-{bucket.logical_id.removesuffix('Bucket').lower()}-")[0]


def adopt(account: Account, stack: str) -> list[Kept]:
    """Import what the deleted stack of this name has left, and nobody has deleted since, into a new one.

    Raises:
        NoStack: there was none.
        NotAdopted: there is one, or it has left nothing.
    """
    cloudformation = account.cloudformation
    found = find(cloudformation, stack)
    if found.status is not None:
        raise NotAdopted(f"the stack {stack} is there ({found.status}): if it has failed, delete it (make undeploy)")
    kept = [one for one in found.kept if account.has(one)]
    if not any(one.kind == "AWS::S3::Bucket" for one in kept):
        raise NotAdopted(f"the stack {stack} has left no buckets: deploy it (make deploy)")
    resources = yaml_parse(TEMPLATE.read_text(encoding="utf-8"))["Resources"]
    cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=CHANGE_SET,
        ChangeSetType="IMPORT",
        ResourcesToImport=to_import(kept),
        TemplateBody=json.dumps(template_of(kept, resources)),
    )
    try:
        cloudformation.get_waiter("change_set_create_complete").wait(
            StackName=stack, ChangeSetName=CHANGE_SET, WaiterConfig={"Delay": _POLL_S, "MaxAttempts": _TRIES}
        )
    except WaiterError as error:
        reason = cloudformation.describe_change_set(StackName=stack, ChangeSetName=CHANGE_SET).get("StatusReason")
        raise NotAdopted(f"CloudFormation does not import it: {reason or error}") from error
    cloudformation.execute_change_set(StackName=stack, ChangeSetName=CHANGE_SET)
    cloudformation.get_waiter("stack_import_complete").wait(
        StackName=stack, WaiterConfig={"Delay": _POLL_S, "MaxAttempts": _TRIES}
    )
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Adopt; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make adopt", description=__doc__, formatter_class=_Raw)
    parser.add_argument("--stack", required=True, help="name of the stack that was deleted, and of the new one")
    parser.add_argument(
        "--region", default=os.environ.get("AWS_REGION"), help="AWS_REGION, or your profile's, by default"
    )
    options = parser.parse_args(arguments)
    try:
        adopted = adopt(Account.of(options.region), options.stack)
    except (NoStack, NotAdopted, BotoCoreError, ClientError) as error:
        print(f"Not adopted: {error}", file=sys.stderr)
        return 1
    for one in adopted:
        print(f"  {one.logical_id:<14} {one.name}")
    print(f"They are in the stack {options.stack}. Now deploy it, with the BucketPrefix that it had:")
    print(f"  make deploy STACK={options.stack} SET=BucketPrefix={prefix_of(adopted)}")
    return 0


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


if __name__ == "__main__":
    sys.exit(main())
