"""The local S3 says in its notifications what S3 says: which writing it was, and which version."""

from __future__ import annotations

import json
from typing import Any, Final

import boto3
from moto import mock_aws

from comfy_serverless.handlers.envelopes import contents_of
from local.aws.numbered_drops import numbered_drops

REGION: Final = "eu-central-1"


def written_twice(*, is_versioned: bool) -> list[Any]:
    """The events of two writings of the same content, at two queues each."""
    with mock_aws(), numbered_drops():
        s3, sqs = boto3.client("s3", REGION), boto3.client("sqs", REGION)
        s3.create_bucket(Bucket="drops", CreateBucketConfiguration={"LocationConstraint": REGION})
        if is_versioned:
            s3.put_bucket_versioning(Bucket="drops", VersioningConfiguration={"Status": "Enabled"})
        urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("one", "other")]
        arns = [sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"] for url in urls]
        told: Any = [{"QueueArn": arn["QueueArn"], "Events": ["s3:ObjectCreated:*"]} for arn in arns]
        s3.put_bucket_notification_configuration(
            Bucket="drops", NotificationConfiguration={"QueueConfigurations": told}
        )
        for _ in range(2):
            s3.put_object(Bucket="drops", Key="jobs/a.json", Body=b"{}")
        messages = [
            message for url in urls for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        ]
        return [drop for message in messages for drop in contents_of(json.loads(message["Body"]))]


def test_each_writing_has_a_number_which_all_that_hear_of_it_are_told() -> None:
    drops = written_twice(is_versioned=False)
    assert (len(drops), len({drop.default_id for drop in drops})) == (4, 2)
    assert {drop.pin.version_id for drop in drops} == {""}


def test_each_writing_of_a_bucket_with_versions_has_its_version() -> None:
    drops = written_twice(is_versioned=True)
    assert (len(drops), len({drop.pin.version_id for drop in drops})) == (4, 2)
    assert all(drop.version == drop.pin.version_id != "" for drop in drops)
