"""How far each role reaches: asked of the policies as IAM evaluates them, compared with the table in docs/security.md.

Everything here is another owner's, or the stack's. A right that the table does not name fails a test, and so does one
that is named and not given. Nothing is left out: each action of a policy must be known here, and each statement must
apply to something that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from local.aws.permissions import LEADING_KEYS, NAMESPACE, RESOURCE_TAG, Access, Role

ROOT: Final = Path(__file__).parents[1]
#: What an action does to what it is asked of. An answer may hold the item as it was, or as it is (`ReturnValues`,
#: `ReturnValuesOnConditionCheckFailure`): to change an item is to read it. A put replaces an item, or an object.
EFFECTS: Final[Mapping[str, frozenset[str]]] = {
    action: frozenset(effects.split())
    for action, effects in {
        "dynamodb:GetItem": "reads",
        "dynamodb:BatchGetItem": "reads",
        "dynamodb:Query": "reads",
        "dynamodb:Scan": "reads",
        "dynamodb:ConditionCheckItem": "reads",
        "dynamodb:PartiQLSelect": "reads",
        "dynamodb:PutItem": "reads writes deletes",
        "dynamodb:UpdateItem": "reads writes",
        "dynamodb:PartiQLInsert": "writes",
        "dynamodb:PartiQLUpdate": "reads writes",
        "dynamodb:PartiQLDelete": "reads deletes",
        "dynamodb:DeleteItem": "reads deletes",
        "dynamodb:BatchWriteItem": "writes deletes",
        "s3:GetObject": "reads",
        "s3:GetObjectVersion": "reads",
        "s3:GetObjectTagging": "reads",
        "s3:PutObject": "writes",
        "s3:PutObjectAcl": "writes",
        "s3:PutObjectTagging": "writes",
        "s3:DeleteObjectTagging": "writes",
        "s3:AbortMultipartUpload": "writes",
        "s3:DeleteObject": "deletes",
        "s3:DeleteObjectVersion": "deletes",
        "s3:ListBucket": "lists",
        "s3:ListBucketVersions": "lists",
        "s3:GetBucketLocation": "lists",
        "sqs:ReceiveMessage": "takes",
        "sqs:DeleteMessage": "takes",
        "sqs:ChangeMessageVisibility": "takes",
        "sqs:PurgeQueue": "takes",
        "sqs:GetQueueAttributes": "counts",
        "sqs:GetQueueUrl": "counts",
        "sqs:SendMessage": "sends",
        "sns:Publish": "sends",
        "lambda:InvokeFunction": "sends",
        "states:StartExecution": "sends",
        "states:DescribeExecution": "counts",
        "states:StopExecution": "takes",
        "sagemaker:InvokeEndpointAsync": "sends",
        "sagemaker:DescribeEndpoint": "counts",
        "ssm:GetParameter": "reads",
        "ssm:GetParameters": "reads",
        "ssm:PutParameter": "writes",
        "secretsmanager:GetSecretValue": "reads",
        "cloudwatch:GetMetricStatistics": "counts",
        "cloudwatch:PutMetricData": "writes",
        "logs:CreateLogGroup": "writes",
        "logs:CreateLogStream": "writes",
        "logs:PutLogEvents": "writes",
        "logs:DescribeLogStreams": "counts",
        "logs:GetLogEvents": "reads",
        "logs:FilterLogEvents": "reads",
        "kms:Decrypt": "reads",
        "kms:GenerateDataKey": "writes",
        "ecr:BatchCheckLayerAvailability": "reads",
        "ecr:BatchGetImage": "reads",
        "ecr:GetDownloadUrlForLayer": "reads",
        "ecr:GetAuthorizationToken": "reads",
        "iam:PassRole": "writes",
        "sts:AssumeRole": "takes",
    }.items()
}
#: The columns of the table. `counts` are figures and names that say nothing of anybody: they are not in it.
COLUMNS: Final = ("reads", "writes", "deletes", "lists", "takes", "sends")
#: Those that are all under one key.
ALONE: Final = ("keys", "admins", "care")
#: The kinds of items, as their partition keys begin; a test compares them with what the stores write.
ITEMS: Final = (
    "job#",
    "asset#",
    "assets#",
    "blob#",
    "path#",
    "upload#",
    "idempotency#",
    "asset_idempotency#",
    "webhook#",
    "workflows#",
    "checkup#",
    "batch#",
    "batches#",
    "rate#",
    "live#",
    "usage#",
    "keys",
    "admins",
    "care",
    "gate#",
)
INDEXES: Final = ("by_owner", "open_by_owner", "leases")
#: Objects of another owner, or of the stack, by bucket.
OBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("jobs/theirs.json", "images/theirs.png", "batches/theirs.jsonl", "models/theirs.safetensors"),
    "output": ("owners/theirs/1/result.json", "jobs-id/result.json", "batches/theirs.report.json"),
    "assets": (
        "blobs/theirs/1/1.png",
        "requests/theirs/1.json",
        "uploads/theirs/1",
        "engine/theirs.json",
        "pins/theirs.json",
        "workflows/owners/theirs/poster/000001-0123456789abcdef.json",
        "else/1",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The ARNs of what there is.

    Attributes:
        table: the ARN of the jobs table.
        buckets: the ARNs of `input`, `output` and `assets`.
        things: the ARNs of everything else (queues, topics, logs), by what the table calls it.
    """

    table: str
    buckets: Mapping[str, str]
    things: Mapping[str, Iterable[str]] = field(default_factory=dict)

    def asked(self, action: str) -> Iterable[tuple[str, Access]]:
        """Everything that an action can be asked of, and what the table calls it."""
        service = action.partition(":")[0]
        if service == "dynamodb":
            for item in ITEMS:
                key = item if item in ALONE else f"{item}theirs"
                yield item, Access(action=action, resource=self.table, context={LEADING_KEYS: (key,)})
            for index in INDEXES:
                yield index, Access(action=action, resource=f"{self.table}/index/{index}")
        elif service == "s3":
            for bucket, keys in OBJECTS.items():
                yield bucket, Access(action=action, resource=self.buckets[bucket])
                for key in keys:
                    name = f"{bucket}/{key.partition('/')[0]}/"
                    yield name, Access(action=action, resource=f"{self.buckets[bucket]}/{key}")
        if action in WITHOUT_RESOURCES:
            yield WITHOUT_RESOURCES[action], Access(action=action, resource="*", context=_CONTEXT)
            return
        for name, arns in self.things.items():
            for arn in arns:
                if arn.split(":")[2] == service:
                    context = {} if name.startswith("another ") else _CONTEXT
                    yield name, Access(action=action, resource=arn, context=context)


#: Actions for which IAM has no resources.
WITHOUT_RESOURCES: Final[Mapping[str, str]] = {
    "cloudwatch:GetMetricStatistics": "figures",
    "cloudwatch:PutMetricData": "figures",
    "ecr:GetAuthorizationToken": "images",
}
#: Of what belongs to this stack.
_CONTEXT: Final = {f"{RESOURCE_TAG}comfy-serverless:stack": ("local",), NAMESPACE: ("AWS/SageMaker",)}


def reach(role: Role, world: World) -> dict[str, set[str]]:
    """What a role can do, by the columns of the table."""
    found: dict[str, set[str]] = {column: set() for column in COLUMNS}
    for action, effects in EFFECTS.items():
        for thing, access in world.asked(action):
            if role.allows(access):
                for effect in effects & found.keys():
                    found[effect].add(thing)
    return found


def unasked(role: Role, world: World) -> list[str]:
    """The rights of a role that `reach` cannot see: of unknown actions, or of resources that nothing is asked of."""
    return [
        f"{statement.sid}: {action} on {resource}"
        for statement in role.statements
        for action in statement.actions
        for resource in statement.resources
        if action not in EFFECTS
        or not any(
            replace(statement, actions=(action,), resources=(resource,)).applies_to(access)
            for _, access in world.asked(action)
        )
    ]


def outsiders(resources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Whoever else is let in by a policy of a resource: all but services of AWS that act for something of the account.

    A role's own policy says whose it is; that of a key must let the account itself in.
    """
    found = []
    for name, resource in resources.items():
        kind, properties = resource["Type"], resource.get("Properties", {})
        if kind == "AWS::Lambda::Permission":
            is_bound = bool(properties.keys() & {"SourceArn", "SourceAccount"})
            if not (is_bound and str(properties["Principal"]).endswith(".amazonaws.com")):
                found.append(f"{name}: {properties['Principal']}")
            continue
        for statement in _with_principals(properties):
            if statement["Effect"] == "Deny":
                continue
            principal, actions = statement.get("Principal"), str(statement.get("Action"))
            is_service = isinstance(principal, dict) and principal.keys() == {"Service"}
            keys = {key.lower() for keys in statement.get("Condition", {}).values() for key in keys}
            match kind:
                case "AWS::IAM::Role":
                    is_meant = is_service
                case "AWS::KMS::Key" if str(principal).count(":root") == 1 and "'AWS::AccountId'" in str(principal):
                    is_meant = True
                case _:
                    is_meant = is_service and "*" not in actions and bool(keys & {"aws:sourcearn", "aws:sourceaccount"})
            if not is_meant:
                found.append(f"{name}: {principal} {actions}")
    return found


def _with_principals(value: Any) -> Iterator[Mapping[str, Any]]:
    """The statements in a value that say to whom they apply."""
    match value:
        case {"Effect": _, "Principal": _} | {"Effect": _, "NotPrincipal": _}:
            yield value
        case dict():
            for entry in value.values():
                yield from _with_principals(entry)
        case list():
            for entry in value:
                yield from _with_principals(entry)


def meant(role: str) -> dict[str, set[str]]:
    """What the table in docs/security.md says of a role, by its columns. Raises KeyError if it says nothing."""
    return _table()[role]


def roles_in_the_table() -> set[str]:
    """The roles that docs/security.md speaks of."""
    return set(_table())


def _table() -> dict[str, dict[str, set[str]]]:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    lines = text.partition("## What each role reaches")[2].splitlines()
    first = lines.index("| role | " + " | ".join(COLUMNS) + " |")
    table = {}
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        role, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        (name,) = re.findall(r"`([^`]+)`", role)
        table[name] = {
            column: {one for said in re.findall(r"`([^`]+)`", cell) for one in _spelled_out(said)}
            for column, cell in zip(COLUMNS, cells, strict=True)
        }
    return table


def _spelled_out(said: str) -> set[str]:
    """What `input/*` stands for: everything that is asked for in that bucket."""
    bucket, _, rest = said.partition("/")
    return {f"{bucket}/{key.partition('/')[0]}/" for key in OBJECTS[bucket]} if rest == "*" else {said}
