"""Delete the stack, and say what stays, what that costs, and what can be done with it.

    make undeploy STACK=comfy-serverless                             # tells, asks, deletes the stack
    make undeploy STACK=comfy-serverless UNDEPLOY_ARGS=--tell        # tells only
    make undeploy STACK=… UNDEPLOY_ARGS="--delete-data NAME"         # and this bucket or table, for good

Buckets and table stay: nothing here deletes data that is not named in full. It can be called again when the stack has
gone, for 90 days.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from tools.retained import Found, Kept, NoStack, find

#: US dollars a month for a GB, in us-east-1. AWS's price pages decide.
S3_DOLLARS, TABLE_DOLLARS, BACKUP_DOLLARS = 0.023, 0.25, 0.20
#: How many pages of 1,000 objects are counted of a bucket.
_PAGES: Final = 100
_GB: Final = 1_000_000_000
_POLL_S, _TRIES = 10, 360


class Refused(Exception):
    """It was not done, or not to its end; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is in a bucket or a table.

    Attributes:
        is_all: false if there is more, which was not counted.
        is_backed_up: there is a point-in-time recovery of it, which is paid, too.
    """

    entries: int
    size_bytes: int
    is_all: bool = True
    is_backed_up: bool = False

    def dollars(self, kind: str) -> float:
        """What it costs a month."""
        if kind == "AWS::S3::Bucket":
            return self.size_bytes / _GB * S3_DOLLARS
        return self.size_bytes / _GB * (TABLE_DOLLARS + (BACKUP_DOLLARS if self.is_backed_up else 0))


@dataclass(frozen=True, slots=True)
class Account:
    """Clients of the account and region that the stack is in."""

    cloudformation: Any
    s3: Any
    dynamodb: Any
    ssm: Any

    @classmethod
    def of(cls, region: str | None) -> Account:
        """The clients for the caller's credentials."""
        session = boto3.Session(region_name=region)
        return cls(*(session.client(name) for name in ("cloudformation", "s3", "dynamodb", "ssm")))

    def has_gpus(self, stack: str) -> bool:
        """Whether a GPU stack without a name works for this one."""
        return self._has_parameter(f"/comfy-serverless/{stack}/dispatch")

    def releases(self, stack: str) -> list[str]:
        """The stacks of the releases that work for this one; of one that does not say its stack, its name."""
        path = f"/comfy-serverless/{stack}/releases/"
        pages = self.ssm.get_paginator("get_parameters_by_path").paginate(Path=path)
        found = {entry["Name"].removeprefix(path): entry["Value"] for page in pages for entry in page["Parameters"]}
        return [f"{_stack_in(text) or f'{stack}-…-{name}'} -c release={name}" for name, text in sorted(found.items())]

    def has_live(self, stack: str) -> bool:
        """Whether `comfy-serverless release` has written which release is live."""
        return self._has_parameter(_live(stack))

    def forget_live(self, stack: str) -> None:
        """Delete that: another stack of this name would send its jobs to releases that are gone."""
        self.ssm.delete_parameters(Names=[_live(stack)])

    def _has_parameter(self, name: str) -> bool:
        return bool(self.ssm.get_parameters(Names=[name])["Parameters"])

    def has(self, one: Kept) -> bool:
        """Whether it is still there."""
        try:
            if one.kind == "AWS::S3::Bucket":
                self.s3.head_bucket(Bucket=one.name)
            else:
                self.dynamodb.describe_table(TableName=one.name)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchBucket", "ResourceNotFoundException"):
                return False
            raise
        return True

    def size_of(self, one: Kept) -> Size | None:
        """How much is in it; None if it is gone."""
        return self._bucket(one.name) if one.kind == "AWS::S3::Bucket" else self._table(one.name)

    def delete(self, one: Kept) -> None:
        """Delete it with everything in it."""
        if one.kind == "AWS::DynamoDB::Table":
            self.dynamodb.delete_table(TableName=one.name)
            return
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=one.name):
            entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            objects = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
            if objects:
                done = self.s3.delete_objects(Bucket=one.name, Delete={"Objects": objects, "Quiet": True})
                if errors := done.get("Errors"):
                    raise Refused(f"{one.name}: {errors[0]['Key']} could not be deleted: {errors[0]['Message']}")
        self.s3.delete_bucket(Bucket=one.name)

    def _bucket(self, name: str) -> Size | None:
        pages = iter(self.s3.get_paginator("list_objects_v2").paginate(Bucket=name))
        entries, size_bytes = 0, 0
        try:
            for page in islice(pages, _PAGES):
                entries += page["KeyCount"]
                size_bytes += sum(entry["Size"] for entry in page.get("Contents", []))
        except self.s3.exceptions.NoSuchBucket:
            return None
        return Size(entries, size_bytes, is_all=next(pages, None) is None)

    def _table(self, name: str) -> Size | None:
        try:
            table = self.dynamodb.describe_table(TableName=name)["Table"]
        except self.dynamodb.exceptions.ResourceNotFoundException:
            return None
        backups = self.dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        is_backed_up = backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED"
        return Size(table["ItemCount"], table["TableSizeBytes"], is_backed_up=is_backed_up)


def told(stack: str, sizes: Sequence[tuple[Kept, Size]]) -> str:
    """What stays, what it costs, and what can be done with it."""
    lines = [f"When the stack {stack} is deleted, this stays:"]
    for one, size in sizes:
        what = "objects" if one.kind == "AWS::S3::Bucket" else "items"
        some = "" if size.is_all else "more than "
        backup = ", point-in-time recovery among it" if size.is_backed_up else ""
        lines.append(
            f"  {one.name:<60} {some}{size.entries:,} {what}, {size.size_bytes / _GB:,.2f} GB: "
            f"{some}${size.dollars(one.kind):,.2f} a month{backup}"
        )
    lines += [
        "Everything else goes: functions, API, alarms, logs, and the queues with the jobs that still wait in them.",
        "",
        "What can be done with it:",
        f"  adopt it    make adopt STACK={stack}, then make deploy with the same BucketPrefix: it goes on with it",
        '  leave it    make deploy SET="BucketPrefix=another-one": new buckets, a new table, new keys',
        "  delete it   " + " ".join(["make", "undeploy", f"STACK={stack}", _delete_arguments(sizes)]),
        f"The images stay in the stack {stack}-repositories: sam delete --stack-name {stack}-repositories",
    ]
    return "\n".join(lines)


def named(found: Found, names: Iterable[str]) -> list[Kept]:
    """Those of what stays that were named.

    Raises:
        Refused: one is not of this stack.
    """
    by_name = {one.name: one for one in found.kept}
    if unknown := sorted(set(names) - by_name.keys()):
        raise Refused(f"{', '.join(unknown)} is not of this stack, which has {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)]


def undeploy(
    account: Account, stack: str, *, delete_data: Sequence[str] = (), only_tell: bool, agreed: Callable[[str], bool]
) -> None:
    """Tell, ask, delete.

    Raises:
        NoStack: there is no such stack, nor was there.
        Refused: nothing was deleted, or CloudFormation has not deleted all of the stack.
    """
    found = find(account.cloudformation, stack)
    doomed = named(found, delete_data)
    sizes = [(one, size) for one in found.kept if (size := account.size_of(one)) is not None]
    print(told(stack, sizes))
    has_live = account.has_live(stack)
    if has_live:
        print(f"Which release is live ({_live(stack)}) is forgotten with the stack.")
    in_the_way = _in_the_way(account, stack)
    if only_tell:
        if in_the_way:
            print(f"It cannot be deleted yet: {in_the_way}")
        return
    if in_the_way:
        raise Refused(in_the_way)
    if doomed:
        print(f"\nDeleted for good, with all that is in it: {', '.join(one.name for one in doomed)}")
    if not agreed(stack):
        raise Refused("you have not agreed")
    if found.status is not None:
        account.cloudformation.delete_stack(StackName=found.stack_id)
        try:
            account.cloudformation.get_waiter("stack_delete_complete").wait(
                StackName=found.stack_id, WaiterConfig={"Delay": _POLL_S, "MaxAttempts": _TRIES}
            )
        except WaiterError as error:
            raise Refused(f"CloudFormation has not deleted all of it: its events say what ({error})") from error
        print(f"The stack {stack} is deleted.")
    if has_live:
        account.forget_live(stack)
    left = {one.name for one, _ in sizes}
    for one in doomed:
        if one.name in left:
            account.delete(one)
            print(f"{one.name} is deleted.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Undeploy; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="make undeploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stack", required=True)
    parser.add_argument("--region", default=os.environ.get("AWS_REGION"), help="AWS_REGION, or your profile's")
    parser.add_argument("--tell", action="store_true", help="say what would stay, and delete nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--delete-data", action="append", default=[], metavar="NAME", help="delete this bucket or table, too, for good"
    )
    options = parser.parse_args(arguments)
    try:
        undeploy(
            Account.of(options.region),
            options.stack,
            delete_data=options.delete_data,
            only_tell=options.tell,
            agreed=(lambda _: True) if options.yes else _ask,
        )
    except (NoStack, Refused, BotoCoreError, ClientError) as error:
        print(f"Not deleted: {error}", file=sys.stderr)
        return 1
    return 0


def _in_the_way(account: Account, stack: str) -> str:
    """What works for the stack, and must be deleted before it; "" if nothing does."""
    other = "" if stack == "comfy-serverless" else f" -c stack={stack}"
    if releases := account.releases(stack):
        commands = "; ".join(f'make cdk CDK_ARGS="destroy {one}{other}"' for one in releases)
        return f"releases work for it. Delete them first, once no job is in them: {commands}"
    if account.has_gpus(stack):
        gpus = " or ".join(f"{stack}-{kind}" for kind in ("sagemaker", "lambda-gpu"))
        return f'a GPU stack works for it. Delete that first: make cdk CDK_ARGS="destroy …{other}" with {gpus}'
    return ""


def _live(stack: str) -> str:
    return f"/comfy-serverless/{stack}/live"


def _stack_in(announced: str) -> str:
    try:
        return str(json.loads(announced).get("stack", ""))
    except (ValueError, AttributeError):
        return ""


def _ask(stack: str) -> bool:
    return input(f"\nDelete it? Type the stack's name ({stack}): ").strip() == stack


def _delete_arguments(sizes: Sequence[tuple[Kept, Size]]) -> str:
    names = " ".join(f"--delete-data {one.name}" for one, _ in sizes)
    return f'UNDEPLOY_ARGS="{names}"'


if __name__ == "__main__":
    sys.exit(main())
