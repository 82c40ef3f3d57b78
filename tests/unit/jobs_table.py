"""The jobs table in this process: moto's DynamoDB and SQS, and a client that counts what it is asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import boto3
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from comfy_serverless.aws.dynamodb import Table
from local.aws.quick_moto import quick_moto

NAME = "jobs"
REGION: Final = "eu-central-1"


@contextmanager
def aws() -> Iterator[boto3.Session]:
    """AWS without AWS, from `with` to the end of the block."""
    answer, turn = BotocoreStubber.__call__, threading.RLock()

    def answer_in_turn(*arguments: Any, **request: Any) -> Any:
        # Moto's requests are not isolated from each other: a failed transaction takes back what others wrote.
        with turn:
            return answer(*arguments, **request)

    with mock_aws(), quick_moto(), patch.object(BotocoreStubber, "__call__", answer_in_turn):
        yield boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=REGION)


def create_table(session: boto3.Session) -> tuple[Table, Counter[str]]:
    """The table, and a count of the calls made to it, by operation."""
    client: Any = session.client("dynamodb")
    client.create_table(
        TableName=NAME,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=_keys("pk", "sk"),
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": kind}
            for name, kind in {
                "pk": "S",
                "sk": "S",
                "owner": "S",
                "open_owner": "S",
                "created_id": "S",
                "lease": "S",
                "lease_until": "N",
            }.items()
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by_owner",
                "KeySchema": _keys("owner", "created_id"),
                "Projection": {
                    "ProjectionType": "INCLUDE",
                    "NonKeyAttributes": [
                        "id",
                        "status",
                        "updated_at",
                        "labels",
                        "created_at",
                        "completed_at",
                        "started_at",
                    ],
                },
            },
            {
                "IndexName": "open_by_owner",
                "KeySchema": _keys("open_owner", "created_id"),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
            {
                "IndexName": "leases",
                "KeySchema": _keys("lease", "lease_until"),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
    )
    calls: Counter[str] = Counter()
    client.meta.events.register("before-call.dynamodb", lambda model, **_: calls.update([model.name]))
    return Table(client, NAME), calls


def _keys(*names: str) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=True)]
