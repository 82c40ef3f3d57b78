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
    for expression in (
        "SET pk = :one",
        "SET list[9].deep = :one",
        "SET",
        "SET a = :one, b = :one, a = :one REMOVE b",
        "SET list[1] = :one, list[1].deep = :one",
        "SET a = :one SET b = :one",
        "SET a = :unknown",
        "SET a = never + :one",
        "SET size = :one",
    ):
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
    values: dict[str, Any] = {
        ":one": {"N": "2"},
        ":text": {"S": "y"},
        ":more": {"L": [{"S": "z"}]},
        ":set": {"SS": ["y", "z"]},
    }
    for expression in (
        "SET list[0] = :text, S.S = :text, list = list_append(list, :more) REMOVE list[1], list[2] DELETE texts :set",
        "SET list = list_append(if_not_exists(list, :more), :more), a = :text, b = a, S.deep = :more",
        "REMOVE empty, S.N ADD tries :one, texts :set SET c = :one",
    ):
        try:
            yield client.update_item(
                TableName=NAME,
                Key=KEY,
                UpdateExpression=expression,
                ExpressionAttributeValues={name: value for name, value in values.items() if name in expression},
                ReturnValues="ALL_NEW",
            )["Attributes"]
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


def of_many() -> Iterator[Any]:
    """Operations on several items, what they leave behind when they fail, and what is not there."""
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name=REGION)
    create_table(session)
    client = session.client("dynamodb")

    def ask(operation: str, **parameters: Any) -> Any:
        try:
            answer = getattr(client, operation)(**parameters)
        except ClientError as error:
            answer = error.response
        status = answer.pop("ResponseMetadata")["HTTPStatusCode"]
        return operation, status, answer

    items = [
        {"pk": {"S": f"p{n % 3}"}, "sk": {"S": f"s{n}"}, "number": {"N": str(n)}, "#": {"S": "x"}} for n in range(9)
    ]
    keys = [{name: item[name] for name in ("pk", "sk")} for item in items]
    yield ask("batch_write_item", RequestItems={NAME: [{"PutRequest": {"Item": item}} for item in items]})
    yield ask("batch_write_item", RequestItems={NAME: [{"DeleteRequest": {"Key": keys[8]}}]})
    yield ask("batch_get_item", RequestItems={NAME: {"Keys": [keys[0], keys[5], keys[8]]}})
    yield ask("transact_get_items", TransactItems=[{"Get": {"TableName": NAME, "Key": key}} for key in keys[6:]])
    yield ask("put_item", TableName=NAME, Item=items[0], ReturnValues="ALL_OLD")
    yield ask("put_item", TableName=NAME, Item=items[0], ConditionExpression="attribute_not_exists(pk)")
    yield ask("put_item", TableName=NAME, Item={"pk": {"S": ""}, "sk": {"S": "x"}})
    yield ask("put_item", TableName=NAME, Item={"pk": {"S": "no sort key"}})
    yield ask("get_item", TableName=NAME, Key=keys[8])
    yield ask("get_item", TableName=NAME, Key={"pk": {"N": "1"}, "sk": {"S": "x"}})
    yield ask(
        "get_item", TableName=NAME, Key=keys[1], ProjectionExpression="#n, sk", ExpressionAttributeNames={"#n": "#"}
    )
    yield ask("get_item", TableName="another", Key=keys[0])
    yield ask("delete_item", TableName=NAME, Key=keys[7], ReturnValues="ALL_OLD")
    yield ask("delete_item", TableName=NAME, Key=keys[7], ConditionExpression="attribute_exists(pk)")
    condition: Any = {"ConditionExpression": "#n > :n", "ExpressionAttributeNames": {"#n": "number"}}
    values = {"ExpressionAttributeValues": {":n": {"N": "5"}}}
    for wanted in ("UPDATED_NEW", "UPDATED_OLD", "ALL_OLD", "NONE"):
        yield ask(
            "update_item",
            TableName=NAME,
            Key=keys[6],
            UpdateExpression="SET #n = #n + :n",
            ReturnValues=wanted,
            **condition,
            **values,
        )
    yield ask(
        "update_item",
        TableName=NAME,
        Key=keys[0],
        UpdateExpression="SET #n = :n",
        **{"ReturnValuesOnConditionCheckFailure": "ALL_OLD", **condition, **values},
    )
    by_key: Any = {
        "TableName": NAME,
        "KeyConditionExpression": "pk = :pk AND sk > :sk",
        "ExpressionAttributeValues": {":pk": {"S": "p0"}, ":sk": {"S": "s0"}},
    }
    yield ask("query", **by_key)
    yield ask("query", **by_key, Select="COUNT")
    yield ask("query", **by_key, ScanIndexForward=False, Limit=1)
    yield ask("query", **by_key, Limit=1, ExclusiveStartKey=keys[3])
    yield ask("query", **by_key, ProjectionExpression="sk", ReturnConsumedCapacity="TOTAL")
    yield ask("query", **{**by_key, "IndexName": "none such"})
    yield ask("scan", TableName=NAME, Limit=2)
    yield ask("scan", TableName=NAME, FilterExpression="#n > :n", ExpressionAttributeNames={"#n": "number"}, **values)
    transactions: list[list[Any]] = [
        [{"Put": {"TableName": NAME, "Item": items[8]}}, {"Delete": {"TableName": NAME, "Key": keys[0]}}],
        [
            {"Put": {"TableName": NAME, "Item": {**keys[1], "number": {"N": "99"}}}},
            {"Delete": {"TableName": NAME, "Key": keys[2]}},
            {"Put": {"TableName": NAME, "Item": {"pk": {"S": "new"}, "sk": {"S": "new"}}}},
            {"Update": {"TableName": NAME, "Key": keys[3], "UpdateExpression": "SET #n = :n", **condition, **values}},
        ],
        [{"Delete": {"TableName": NAME, "Key": keys[4]}}, {"Put": {"TableName": NAME, "Item": items[4]}}],
        [{"Put": {"TableName": "another", "Item": items[4]}}],
    ]
    for parts in transactions:
        yield ask("transact_write_items", TransactItems=parts)
        yield ask("scan", TableName=NAME)


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


@pytest.mark.parametrize("ask", [of_items, of_many, of_messages])
def test_it_answers_as_it_does_without(ask: Callable[[], Iterator[Any]]) -> None:
    answers = []
    for quick in (nullcontext(), quick_moto()):
        with mock_aws(), quick:
            answers.append(list(ask()))
    plain, quickly = answers
    assert len(plain) > 3
    assert quickly == plain
