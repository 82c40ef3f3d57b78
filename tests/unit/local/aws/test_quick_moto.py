"""Quick or not, moto gives the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from local.aws.quick_moto import quick_moto
from tests.unit.jobs_table import NAME, REGION, create_table

ITEM: dict[str, Any] = {
    "pk": {"S": "a"},
    "sk": {"S": "b"},
    "text": {"S": "a fox \U0001f98a"},
    "empty": {"S": ""},
    "number": {"N": "12.50"},
    "yes": {"BOOL": True},
    "no": {"BOOL": False},
    "nothing": {"NULL": True},
    "bytes": {"B": b"\x00\xff"},
    "texts": {"SS": ["x", "y"]},
    "list": {"L": [{"S": "x"}, {"M": {"deep": {"N": "1"}, "empty": {"L": []}}}, {"BOOL": False}]},
    "S": {"M": {"S": {"S": "named like a type"}, "N": {"N": "2"}}},
}
KEY: dict[str, Any] = {name: ITEM[name] for name in ("pk", "sk")}


def of_items() -> Iterator[Any]:
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name=REGION)
    create_table(session)
    client = session.client("dynamodb")
    client.put_item(TableName=NAME, Item=ITEM)
    yield client.get_item(TableName=NAME, Key=KEY)["Item"]
    for _ in range(3):
        yield client.update_item(
            TableName=NAME,
            Key=KEY,
            UpdateExpression="SET #n = #n + :one, label = if_not_exists(label, :text) REMOVE texts ADD tries :one",
            ExpressionAttributeNames={"#n": "number"},
            ExpressionAttributeValues={":one": {"N": "1"}, ":text": {"S": "x"}},
            ReturnValues="ALL_NEW",
        )["Attributes"]
    for expression in ("SET pk = :one", "SET list[9].deep = :one", "SET"):
        try:
            client.update_item(
                TableName=NAME,
                Key=KEY,
                UpdateExpression=expression,
                ExpressionAttributeValues={":one": {"S": "1"}},
                ConditionExpression="attribute_exists(pk)",
            )
        except ClientError as error:
            yield error.response["Error"]
    yield client.query(
        TableName=NAME, KeyConditionExpression="pk = :pk", ExpressionAttributeValues={":pk": {"S": "a"}}
    )["Items"]
    for place, number in enumerate([3, 10, 2]):
        item = {"pk": {"S": f"p{9 - place}"}, "sk": {"S": "s"}, "owner": {"S": "me"}, "created_id": {"S": str(number)}}
        lease = {"lease": {"S": "all"}, "lease_until": {"N": str(number)}}
        client.put_item(TableName=NAME, Item={**item, **lease})
    for index, name, value in (("by_owner", "owner", "me"), ("leases", "lease", "all")):
        yield client.query(
            TableName=NAME,
            IndexName=index,
            KeyConditionExpression="#name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": {"S": value}},
        )["Items"]
    try:
        client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": NAME, "Item": {**KEY, "number": {"N": "0"}}}},
                {"ConditionCheck": {"TableName": NAME, "Key": KEY, "ConditionExpression": "attribute_exists(never)"}},
            ]
        )
    except ClientError as error:
        yield error.response["Error"]
    yield client.scan(TableName=NAME)["Items"]
    yield client.describe_table(TableName=NAME)["Table"]["KeySchema"]


def of_messages() -> Iterator[Any]:
    client = boto3.client("sqs", aws_access_key_id="a", aws_secret_access_key="b", region_name=REGION)
    url = client.create_queue(QueueName="some", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=60)
    client.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": f"now {n}"} for n in range(3)])
    for _ in range(2):
        answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=2, AttributeNames=["All"])
        yield [(message["Body"], message["Attributes"]["ApproximateReceiveCount"]) for message in answer["Messages"]]
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
    yield client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    for message in answer["Messages"]:
        client.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    yield client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]


@pytest.mark.parametrize("ask", [of_items, of_messages])
def test_it_answers_as_it_does_without(ask: Callable[[], Iterator[Any]]) -> None:
    answers = []
    for quick in (nullcontext(), quick_moto()):
        with mock_aws(), quick:
            answers.append(list(ask()))
    plain, quickly = answers
    assert len(plain) > 3
    assert quickly == plain
