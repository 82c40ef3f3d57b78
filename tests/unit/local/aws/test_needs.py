"""What requests need to be allowed, read from what botocore really sends."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from botocore.awsrequest import AWSPreparedRequest

from local.aws import needs_s3
from local.aws.enforcement import denial_of, request_of, signer_of
from local.aws.needs import NotClassified, Request
from local.aws.needs_s3 import needs_of_s3
from local.aws.permissions import LEADING_KEYS
from local.aws.roles import needs
from local.aws.server import local_client
from local.aws.template import TABLE, arn_of, name_of

JOBS = arn_of("JobsTable")
URL = f"http://127.0.0.1:1/123456789012/{name_of('JobQueue')}"
QUEUE = arn_of("JobQueue")
KEY = {"pk": {"S": "job#1"}, "sk": {"S": "job"}}
OTHER = {"pk": {"S": "batch#2"}, "sk": {"S": "x"}}
CHANGE = {"UpdateExpression": "SET a = :a", "ExpressionAttributeValues": {":a": {"S": "x"}}}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
AWS = "arn:aws:{}:eu-central-1:123456789012:{}".format


def environment_of(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> dict[str, Any]:
    """As a WSGI server gives it."""
    parts = urlsplit(url)
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote_to_bytes(parts.path).decode("latin-1"),
        "QUERY_STRING": parts.query,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }


SENT: list[AWSPreparedRequest] = []


@cache
def client(service: Any) -> Any:
    """A client that sends nothing."""

    def keep(request: AWSPreparedRequest, **_: Any) -> None:
        SENT.append(request)
        raise InterruptedError

    made: Any = local_client(service, "http://127.0.0.1:1", role="SomeRole")
    made.meta.events.register("before-send", keep)
    return made


def sent(service: str, operation: str, **arguments: Any) -> dict[str, Any]:
    """What botocore would send."""
    SENT.clear()
    with pytest.raises(InterruptedError):
        getattr(client(service), operation)(**arguments)
    (request,) = SENT
    body: Any = request.body or b""
    content = body.read() if hasattr(body, "read") else body.encode() if isinstance(body, str) else body
    headers = {name: value if isinstance(value, str) else value.decode() for name, value in request.headers.items()}
    return environment_of(str(request.method), request.url, headers, content)


def request_in(environment: dict[str, Any]) -> Request:
    role, service = signer_of(environment)
    assert role == "SomeRole"
    return request_of(environment, service)


def needed(request: Request) -> list[tuple[str, str, tuple[str, ...]]]:
    found = needs_of_s3(request) if request.service == "s3" else needs().of(request)
    return [(access.action, access.resource, tuple(access.context.get(LEADING_KEYS, ()))) for access in found]


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("get_item", {"Key": KEY}, [("GetItem", "", "job#1")]),
        ("put_item", {"Item": {**KEY, "status": {"S": "keys"}}}, [("PutItem", "", "job#1")]),
        ("update_item", {"Key": KEY, **CHANGE}, [("UpdateItem", "", "job#1")]),
        ("delete_item", {"Key": KEY}, [("DeleteItem", "", "job#1")]),
        (
            "query",
            {
                "KeyConditionExpression": "#pk = :pk AND begins_with(sk, :sk)",
                "FilterExpression": "#x = :sk",
                "ExpressionAttributeNames": {"#pk": "pk", "#x": "x"},
                "ExpressionAttributeValues": {":pk": {"S": "job#1"}, ":sk": {"S": "output#"}},
            },
            [("Query", "", "job#1")],
        ),
        (
            "query",
            {
                "IndexName": "by_owner",
                "KeyConditionExpression": "created_id = :id AND (#owner=:o)",
                "ExpressionAttributeNames": {"#owner": "owner"},
                "ExpressionAttributeValues": {":o": {"S": "me"}, ":id": {"S": "keys"}},
            },
            [("Query", "/index/by_owner", "me")],
        ),
        (
            "query",
            {
                "IndexName": "leases",
                "KeyConditionExpression": "lease = :l AND lease_until < :t",
                "ExpressionAttributeValues": {":l": {"S": "open"}, ":t": {"N": "1"}},
            },
            [("Query", "/index/leases", "open")],
        ),
        ("scan", {}, [("Scan", "")]),
        ("scan", {"IndexName": "leases"}, [("Scan", "/index/leases")]),
    ],
)
def test_requests_to_a_table(operation: str, arguments: Any, expected: list[tuple[str, ...]]) -> None:
    assert needed(request_in(sent("dynamodb", operation, TableName=TABLE, **arguments))) == [
        (f"dynamodb:{action}", f"{JOBS}{index}", tuple(keys)) for action, index, *keys in expected
    ]


def test_a_transaction_needs_what_each_of_its_parts_does() -> None:
    condition = {"ConditionExpression": "attribute_exists(pk)"}
    writes = [
        {"Put": {"TableName": TABLE, "Item": KEY}},
        {"Update": {"TableName": TABLE, "Key": OTHER, **CHANGE}},
        {"Delete": {"TableName": TABLE, "Key": KEY}},
        {"ConditionCheck": {"TableName": TABLE, "Key": OTHER, **condition}},
    ]
    assert needed(request_in(sent("dynamodb", "transact_write_items", TransactItems=writes))) == [
        ("dynamodb:PutItem", JOBS, ("job#1",)),
        ("dynamodb:UpdateItem", JOBS, ("batch#2",)),
        ("dynamodb:DeleteItem", JOBS, ("job#1",)),
        ("dynamodb:ConditionCheckItem", JOBS, ("batch#2",)),
    ]


def test_a_batch_is_one_action_on_all_of_its_items() -> None:
    writes = [{"PutRequest": {"Item": KEY}}, {"DeleteRequest": {"Key": OTHER}}, {"PutRequest": {"Item": KEY}}]
    assert needed(request_in(sent("dynamodb", "batch_write_item", RequestItems={TABLE: writes}))) == [
        ("dynamodb:BatchWriteItem", JOBS, ("job#1", "batch#2"))
    ]
    assert needed(request_in(sent("dynamodb", "batch_get_item", RequestItems={TABLE: {"Keys": [KEY, OTHER]}}))) == [
        ("dynamodb:BatchGetItem", JOBS, ("job#1", "batch#2"))
    ]


ENTRY = {"Id": "1", "MessageBody": "x"}
METRICS = {"Namespace": "n", "MetricName": "m", "StartTime": NOW, "EndTime": NOW, "Period": 60, "Statistics": ["Sum"]}
MACHINE, EXECUTION = AWS("states", "stateMachine:local-manifests"), AWS("states", "execution:local-manifests:1")


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "action", "resource"),
    [
        ("sqs", "send_message", {"QueueUrl": URL, "MessageBody": "x"}, "sqs:SendMessage", QUEUE),
        ("sqs", "send_message_batch", {"QueueUrl": URL, "Entries": [ENTRY]}, "sqs:SendMessage", QUEUE),
        ("sqs", "delete_message_batch", {"QueueUrl": URL, "Entries": []}, "sqs:DeleteMessage", QUEUE),
        ("sqs", "receive_message", {"QueueUrl": URL}, "sqs:ReceiveMessage", QUEUE),
        ("sqs", "get_queue_attributes", {"QueueUrl": URL}, "sqs:GetQueueAttributes", QUEUE),
        ("sqs", "get_queue_url", {"QueueName": name_of("JobQueue")}, "sqs:GetQueueUrl", QUEUE),
        ("ssm", "get_parameter", {"Name": "/a/b"}, "ssm:GetParameter", AWS("ssm", "parameter/a/b")),
        ("cloudwatch", "get_metric_statistics", METRICS, "cloudwatch:GetMetricStatistics", "*"),
        ("stepfunctions", "start_execution", {"stateMachineArn": MACHINE}, "states:StartExecution", MACHINE),
        ("stepfunctions", "describe_execution", {"executionArn": EXECUTION}, "states:DescribeExecution", EXECUTION),
        ("stepfunctions", "stop_execution", {"executionArn": EXECUTION}, "states:StopExecution", EXECUTION),
    ],
)
def test_requests_to_other_services(service: str, operation: str, arguments: Any, action: str, resource: str) -> None:
    assert needed(request_in(sent(service, operation, **arguments))) == [(action, resource, ())]


PART = {"UploadId": "u", "PartNumber": 1}
SOURCE = {"Bucket": "from", "Key": "a b+ü"}
TWO = {"Objects": [{"Key": "a"}, {"Key": "b/ü&"}]}


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("get_object", {"Key": "a b+ü/ß%"}, ["GetObject to/a b+ü/ß%"]),
        ("get_object", {"Key": "a", "Range": "bytes=0-1"}, ["GetObject to/a"]),
        ("get_object", {"Key": "a", "VersionId": "v"}, ["GetObjectVersion to/a"]),
        ("head_object", {"Key": "a"}, ["GetObject to/a"]),
        ("put_object", {"Key": "a", "Body": b"x", "Metadata": {"x": "y"}}, ["PutObject to/a"]),
        ("put_object", {"Key": "a", "Tagging": "x=y"}, ["PutObject to/a", "PutObjectTagging to/a"]),
        ("put_object", {"Key": "a", "ACL": "private"}, ["PutObject to/a", "PutObjectAcl to/a"]),
        (
            "copy_object",
            {"Key": "a", "CopySource": SOURCE, "TaggingDirective": "REPLACE"},
            ["PutObject to/a", "GetObject from/a b+ü"],
        ),
        (
            "copy_object",
            {"Key": "a", "CopySource": SOURCE},
            ["PutObject to/a", "GetObject from/a b+ü", "GetObjectTagging from/a b+ü", "PutObjectTagging to/a"],
        ),
        (
            "copy_object",
            {"Key": "a", "CopySource": {**SOURCE, "VersionId": "v"}, "TaggingDirective": "REPLACE"},
            ["PutObject to/a", "GetObjectVersion from/a b+ü"],
        ),
        ("create_multipart_upload", {"Key": "a"}, ["PutObject to/a"]),
        ("upload_part", {"Key": "a", **PART, "Body": b"x"}, ["PutObject to/a"]),
        ("upload_part_copy", {"Key": "a", **PART, "CopySource": SOURCE}, ["PutObject to/a", "GetObject from/a b+ü"]),
        ("complete_multipart_upload", {"Key": "a", "UploadId": "u", "MultipartUpload": {}}, ["PutObject to/a"]),
        ("abort_multipart_upload", {"Key": "a", "UploadId": "u"}, ["AbortMultipartUpload to/a"]),
        ("list_parts", {"Key": "a", "UploadId": "u"}, ["ListMultipartUploadParts to/a"]),
        ("delete_object", {"Key": "a"}, ["DeleteObject to/a"]),
        ("delete_object", {"Key": "a", "VersionId": "v"}, ["DeleteObjectVersion to/a"]),
        ("delete_objects", {"Delete": TWO}, ["DeleteObject to/a", "DeleteObject to/b/ü&"]),
        ("get_object_tagging", {"Key": "a"}, ["GetObjectTagging to/a"]),
        ("put_object_tagging", {"Key": "a", "Tagging": {"TagSet": []}}, ["PutObjectTagging to/a"]),
        ("get_object_acl", {"Key": "a"}, ["GetObjectAcl to/a"]),
        ("head_bucket", {}, ["ListBucket to"]),
        ("list_objects", {"Prefix": "x/", "Delimiter": "/"}, ["ListBucket to"]),
        ("list_objects_v2", {"Prefix": "x/", "MaxKeys": 1}, ["ListBucket to"]),
        ("list_multipart_uploads", {}, ["ListBucketMultipartUploads to"]),
    ],
)
def test_requests_to_s3(operation: str, arguments: Any, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs_s3, "has_tags", lambda *_: True)
    assert needed(request_in(sent("s3", operation, Bucket="to", **arguments))) == [
        (f"s3:{action}", f"arn:aws:s3:::{where}", ()) for action, where in (entry.split(" ", 1) for entry in expected)
    ]


@pytest.mark.parametrize("operation", ["get_object", "put_object"])
def test_a_link_is_of_the_role_that_signed_it(operation: str) -> None:
    parameters = {"Bucket": "to", "Key": "a b"}
    url = client("s3").generate_presigned_url(operation, Params=parameters)
    request = request_in(environment_of("GET" if operation == "get_object" else "PUT", url, {}))
    action = "s3:GetObject" if operation == "get_object" else "s3:PutObject"
    assert needed(request) == [(action, "arn:aws:s3:::to/a b", ())]


def test_a_browser_that_asks_before_it_sends_needs_no_rights() -> None:
    url = client("s3").generate_presigned_url("put_object", Params={"Bucket": "to", "Key": "a"})
    assert needed(request_in(environment_of("OPTIONS", url, {}))) == []


def test_a_link_of_the_older_kind_too() -> None:
    url = "http://127.0.0.1:1/to/a?AWSAccessKeyId=SomeRole&Signature=x&Expires=1"
    assert needed(request_in(environment_of("GET", url, {}))) == [("s3:GetObject", "arn:aws:s3:::to/a", ())]


@pytest.mark.parametrize(
    ("service", "operation", "arguments"),
    [
        ("dynamodb", "execute_statement", {"Statement": "SELECT * FROM x"}),
        ("dynamodb", "list_tables", {}),
        ("dynamodb", "get_item", {"TableName": "another", "Key": KEY}),
        ("dynamodb", "query", {"TableName": TABLE}),
        ("sqs", "list_queues", {}),
        ("ssm", "describe_parameters", {}),
        ("stepfunctions", "list_state_machines", {}),
        ("cloudwatch", "delete_alarms", {"AlarmNames": ["x"]}),
        ("s3", "list_buckets", {}),
        ("s3", "get_bucket_policy", {"Bucket": "to"}),
        ("s3", "restore_object", {"Bucket": "to", "Key": "a"}),
        ("s3", "delete_objects", {"Bucket": "to", "Delete": {"Objects": [{"Key": "a", "VersionId": "v"}]}}),
        ("sns", "list_topics", {}),
    ],
)
def test_what_is_not_known_is_denied_and_told(service: str, operation: str, arguments: Any) -> None:
    request = request_in(sent(service, operation, **arguments))
    with pytest.raises(NotClassified):
        needed(request)
    denial = denial_of("GenerateRole", request)
    assert denial is not None
    assert "does not know what the request needs" in denial


def test_a_body_that_was_read_is_put_back() -> None:
    environment = sent("dynamodb", "get_item", TableName=TABLE, Key=KEY)
    body = request_in(environment).body
    assert body
    assert environment["wsgi.input"].read() == body


def test_the_body_of_an_object_is_left_alone() -> None:
    environment = sent("s3", "put_object", Bucket="to", Key="a", Body=b"content")
    assert request_in(environment).body == b""
    assert b"content" in environment["wsgi.input"].read()
