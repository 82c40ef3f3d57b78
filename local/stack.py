"""The resources of template.yaml on this machine: its table, queues and buckets, in a local AWS.

What they are is read from the template, so that nothing is different here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from samcli.yamlhelper import yaml_parse

from local.s3 import LocalS3

_BUCKET_NAMES = ("InputBucket", "OutputBucket", "AssetsBucket")
ROOT = Path(__file__).parent.parent
#: What names of the template are replaced by: `${BucketPrefix}-output-…` is `comfy-local-output`.
_BUCKETS = {
    "InputBucket": "comfy-local-input",
    "OutputBucket": "comfy-local-output",
    "AssetsBucket": "comfy-local-assets",
}
TABLE = "comfy-local-jobs"
QUEUES = ("JobQueue", "BatchQueue", "WebhookQueue", "DropQueue", "ManifestQueue")


@dataclass(frozen=True, slots=True)
class LocalStack:
    """The stack's resources, made in a local AWS.

    Attributes:
        queues: their addresses, by the template's name: "JobQueue".
    """

    aws: LocalS3
    queues: dict[str, str]

    @classmethod
    def create(cls, aws: LocalS3) -> LocalStack:
        """Make everything that functions need."""
        for bucket in _BUCKETS.values():
            aws.bucket(bucket)
        create_table(aws)
        queues = {name: create_queue(aws, name) for name in QUEUES}
        notify_of_drops(aws, queues)
        return cls(aws, queues)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of all functions together, and what sends AWS libraries here."""
        return {
            **self.aws.environment,
            "JOBS_TABLE": TABLE,
            "ASSETS_BUCKET": _BUCKETS["AssetsBucket"],
            "OUTPUT_BUCKET": _BUCKETS["OutputBucket"],
            "ALLOWED_INPUT_BUCKETS": ",".join(_BUCKETS.values()),
            "JOB_QUEUE_URL": self.queues["JobQueue"],
            "BATCH_QUEUE_URL": self.queues["BatchQueue"],
            "MANIFEST_QUEUE_URL": self.queues["ManifestQueue"],
            "WEBHOOK_QUEUE_URL": self.queues["WebhookQueue"],
            "WORKFLOWS_DIR": str(ROOT / "workflows"),
            "POWERTOOLS_METRICS_NAMESPACE": "ComfyServerless",
        }

    @property
    def outputs(self) -> dict[str, str]:
        """What the template's outputs of the same names are here."""
        return {
            "JobsTableName": TABLE,
            **{f"{name}Name": bucket for name, bucket in _BUCKETS.items()},
            "JobQueueUrl": self.queues["JobQueue"],
            "ManifestQueueUrl": self.queues["ManifestQueue"],
        }


@cache
def template() -> dict[str, Any]:
    """template.yaml."""
    parsed: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    return parsed


def properties_of(name: str) -> dict[str, Any]:
    """What the template says of a resource."""
    properties: dict[str, Any] = template()["Resources"][name]["Properties"]
    return properties


def create_table(aws: LocalS3) -> str:
    """The jobs table, as the template has it."""
    properties = properties_of("JobsTable")
    names = ("BillingMode", "KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes")
    arguments: Any = {name: properties[name] for name in names}
    aws.dynamodb().create_table(TableName=TABLE, **arguments)
    return TABLE


def notify_of_drops(aws: LocalS3, queues: dict[str, str]) -> None:
    """What is dropped into the input bucket is told to the queues that the template names."""
    configurations: list[Any] = []
    for entry in properties_of("InputBucket")["NotificationConfiguration"]["QueueConfigurations"]:
        rules = [{"Name": rule["Name"], "Value": rule["Value"]} for rule in entry["Filter"]["S3Key"]["Rules"]]
        configurations.append(
            {
                "QueueArn": arn_of(aws, queues[entry["Queue"]["Fn::GetAtt"][0]]),
                "Events": [entry["Event"]],
                "Filter": {"Key": {"FilterRules": rules}},
            }
        )
    aws.client().put_bucket_notification_configuration(
        Bucket=_BUCKETS["InputBucket"], NotificationConfiguration={"QueueConfigurations": configurations}
    )


def arn_of(aws: LocalS3, queue_url: str) -> str:
    """What other services call a queue."""
    attributes = aws.sqs().get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
    return attributes["QueueArn"]


def create_queue(aws: LocalS3, name: str) -> str:
    """A queue with its dead-letter queue; answers its address."""
    sqs = aws.sqs()
    properties = properties_of(name)
    redrive = properties["RedrivePolicy"]
    dead_url = sqs.create_queue(QueueName=f"comfy-local-{redrive['deadLetterTargetArn']['Fn::GetAtt'][0]}")["QueueUrl"]
    dead = arn_of(aws, dead_url)
    attributes: Any = {
        "VisibilityTimeout": str(properties["VisibilityTimeout"]),
        "MessageRetentionPeriod": str(properties["MessageRetentionPeriod"]),
        "RedrivePolicy": f'{{"deadLetterTargetArn": "{dead}", "maxReceiveCount": {redrive["maxReceiveCount"]}}}',
    }
    return sqs.create_queue(QueueName=f"comfy-local-{name}", Attributes=attributes)["QueueUrl"]
