"""What AWS wraps around things, each as its documentation shows it, and events that are nobody's business here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.unit.event_samples import s3_record
from tests.unit.fakes import IN

TOPIC = "arn:aws:sns:eu-central-1:123456789012:drops"


def notification(message: object, **fields: Any) -> dict[str, Any]:
    """A notification of SNS, as an endpoint of it gets one."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Subject": "Amazon S3 Notification",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-11-29T12:00:00.000Z",
        **fields,
    }


def from_sns(message: object) -> dict[str, Any]:
    """SNS invokes a function."""
    return {
        "Records": [
            {
                "EventVersion": "1.0",
                "EventSubscriptionArn": f"{TOPIC}:2bcfbf39",
                "EventSource": "aws:sns",
                "Sns": notification(message),
            }
        ]
    }


def died(payload: object) -> dict[str, Any]:
    """Lambda's record of an asynchronous invocation that it has given up."""
    return {
        "version": "1.0",
        "requestContext": {
            "requestId": "e4b46cbf-b738-4a4a-8880-a18cdf61200e",
            "functionArn": "arn:aws:lambda:eu-central-1:123456789012:function:generate:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": payload,
    }


def s3_notification(key: str, **item: Any) -> dict[str, Any]:
    """S3's own event; keys come form-encoded."""
    return {"Records": [s3_record(key.replace(" ", "+"), **{"sequencer": "0055AED6DCD90281E5", **item})]}


def object_created(key: str, **item: Any) -> dict[str, Any]:
    """EventBridge's event of an object; keys come as they are."""
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "time": "2026-11-29T12:00:00Z",
        "detail": {
            "version": "0",
            "bucket": {"name": IN},
            "object": {"key": key, "size": 5, "sequencer": "0055AED6DCD90281E5", **item},
            "reason": "PutObject",
        },
    }


def bus_event(kind: str, source: str) -> dict[str, Any]:
    return {"version": "0", "id": "1", "detail-type": kind, "source": source, "time": "t", "detail": {"key": "jobs/a"}}


#: The ways in which the news of an object comes to a function, or into the body of a message.
DROPPED: Mapping[str, Callable[..., Any]] = {
    "S3": s3_notification,
    "S3 in SNS": lambda key, **item: notification(s3_notification(key, **item)),
    "S3 in SNS in SNS": lambda key, **item: notification(notification(s3_notification(key, **item))),
    "S3 by SNS": lambda key, **item: from_sns(s3_notification(key, **item)),
    "EventBridge": object_created,
    "EventBridge in SNS": lambda key, **item: notification(object_created(key, **item)),
    "EventBridge by SNS": lambda key, **item: from_sns(object_created(key, **item)),
    "an invocation that died": lambda key, **item: died(s3_notification(key, **item)),
    "an invocation by EventBridge that died": lambda key, **item: died(object_created(key, **item)),
    "an invocation by SNS that died": lambda key, **item: died(from_sns(s3_notification(key, **item))),
    "S3 through Pipes": lambda key, **item: [s3_notification(key, **item)],
    "EventBridge through Pipes": lambda key, **item: [object_created(key, **item)],
    "S3 as a text in JSON": lambda key, **item: json.dumps(s3_notification(key, **item)),
}
#: Events that ask for nothing.
NOTHING: Mapping[str, Any] = {
    "the test of S3": {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": IN},
    "the test of S3 in SNS": notification({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": IN}),
    "the test of S3 by SNS": from_sns({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": IN}),
    "a removal": {"Records": [s3_record("jobs/a.json", name="ObjectRemoved:Delete")]},
    "a removal, by EventBridge": bus_event("Object Deleted", "aws.s3"),
    "a restoration": {"Records": [s3_record("jobs/a.json", name="ObjectRestore:Completed")]},
    "a folder": s3_notification("jobs/folder/"),
    "a folder, by EventBridge": object_created("jobs/folder/"),
    "what a Mac leaves": s3_notification("images/thumbnail/.DS_Store"),
}
#: Events of something else, and a word that must be in what is said of them.
STRANGE: Mapping[str, tuple[Any, str]] = {
    "Kinesis": ({"Records": [{"eventSource": "aws:kinesis", "kinesis": {"data": "eA=="}}]}, "aws:kinesis"),
    "DynamoDB": ({"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {"Keys": {}}}]}, "aws:dynamodb"),
    "SES": ({"Records": [{"eventSource": "aws:ses", "ses": {"mail": {}}}]}, "aws:ses"),
    "CloudFront": ({"Records": [{"cf": {"request": {}}}]}, "CloudFront"),
    "two at once": ({"Records": [s3_record("a.json"), {"eventSource": "aws:ses"}]}, "aws:s3, aws:ses"),
    "a queue through Pipes": ([{"messageId": "1", "eventSource": "aws:sqs", "body": "{}"}], "EventBridge Pipes"),
    "an own event through Pipes": ([bus_event("order placed", "shop")], "order placed"),
    "a large message": (
        ["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "large", "s3Key": "a-b-c"}],
        "s3://large/a-b-c",
    ),
    "records of nobody": ({"Records": [{"eventSource": "aws:codecommit"}, {"x": 1}]}, "aws:codecommit"),
    "Kafka": ({"eventSource": "aws:kafka", "records": {"t-0": []}}, "aws:kafka"),
    "RabbitMQ": ({"eventSource": "aws:rmq", "rmqMessagesByQueue": {}}, "aws:rmq"),
    "a schedule": (bus_event("Scheduled Event", "aws.events"), "Scheduled Event"),
    "an instance": (bus_event("EC2 Instance State-change Notification", "aws.ec2"), "aws.ec2"),
    "S3 by CloudTrail": (bus_event("AWS API Call via CloudTrail", "aws.s3"), "AWS API Call via CloudTrail"),
    "an own event": (bus_event("order placed", "shop"), "order placed"),
    "a log": ({"awslogs": {"data": "H4sI"}}, "CloudWatch Logs"),
    "an alarm": ({"alarmArn": "arn", "alarmData": {}, "source": "aws.cloudwatch"}, "alarm of CloudWatch"),
    "an alarm by SNS": (from_sns({"AlarmName": "a", "NewStateValue": "ALARM"}), "alarm of CloudWatch"),
    "a greeting by SNS": (from_sns("hello"), "'drops'"),
    "JSON by SNS": (from_sns({"orderId": 7}), "'drops'"),
    "a subscription": (notification("x", Type="SubscriptionConfirmation", SubscribeURL="https://sns"), "SubscribeURL"),
    "Firehose": ({"invocationId": "1", "deliveryStreamArn": "arn", "records": []}, "Firehose"),
    "S3 Batch Operations": ({"invocationSchemaVersion": "1.0", "tasks": []}, "S3 Batch Operations"),
    "a WebSocket": ({"requestContext": {"connectionId": "c", "eventType": "MESSAGE"}, "body": "{}"}, "WebSocket"),
    "VPC Lattice": ({"requestContext": {"serviceNetworkArn": "arn"}, "method": "POST", "body": "{}"}, "VPC Lattice"),
    "an authorizer": ({"type": "REQUEST", "methodArn": "arn", "httpMethod": None}, "authorizer"),
    "CloudFormation": ({"RequestType": "Create", "ResponseURL": "https://s3"}, "CloudFormation"),
    "a broken event of S3": (bus_event("Object Created", "aws.s3"), "without a bucket or a key"),
    "notifications in notifications": (
        notification(
            notification(notification(notification(notification(notification(notification(notification("x")))))))
        ),
        "an envelope in",
    ),
}
