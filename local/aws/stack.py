"""The resources of template.yaml on this machine: its table, queues and buckets, in a local AWS.

What they are is read from the template, so that nothing is different here; template.py has their names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from local.aws.queue_poller import QueuePoller
from local.aws.roles import role_of
from local.aws.server import LocalAws, credentials_of
from local.aws.template import OWN_BUCKETS, ROOT, TABLE, name_of, properties_of, resolve

BUCKETS = ("InputBucket", "OutputBucket", "AssetsBucket")
QUEUES = ("JobQueue", "BatchQueue", "WebhookQueue", "DropQueue", "ManifestQueue")


@dataclass(frozen=True, slots=True)
class LocalStack:
    """The stack's resources, made in a local AWS.

    Attributes:
        queues: their addresses, by the template's name: "JobQueue".
    """

    aws: LocalAws
    queues: dict[str, str]

    @classmethod
    def create(cls, aws: LocalAws) -> LocalStack:
        """Make everything that functions need."""
        for name in (*map(name_of, BUCKETS), *chain.from_iterable(OWN_BUCKETS.values())):
            aws.bucket(name)
        create_table(aws)
        queues = {name: create_queue(aws, name) for name in QUEUES}
        notify_of_drops(aws)
        return cls(aws, queues)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of all functions together, and what sends AWS libraries here, as the administrator."""
        return {
            **self.aws.environment,
            "JOBS_TABLE": TABLE,
            "ASSETS_BUCKET": name_of("AssetsBucket"),
            "OUTPUT_BUCKET": name_of("OutputBucket"),
            "ALLOWED_INPUT_BUCKETS": ",".join((*map(name_of, BUCKETS), *OWN_BUCKETS["InputBuckets"])),
            "ALLOWED_OUTPUT_BUCKETS": ",".join((name_of("OutputBucket"), *OWN_BUCKETS["OutputBuckets"])),
            "JOB_QUEUE_URL": self.queues["JobQueue"],
            "BATCH_QUEUE_URL": self.queues["BatchQueue"],
            "MANIFEST_QUEUE_URL": self.queues["ManifestQueue"],
            "WEBHOOK_QUEUE_URL": self.queues["WebhookQueue"],
            "WORKFLOWS_DIR": str(ROOT / "workflows"),
            "POWERTOOLS_SERVICE_NAME": "generate",  # of an endpoint, which is no function of the template
        }

    def environment_of(self, function: str) -> dict[str, str]:
        """The same for one function of the template, with its name in the log and the credentials of its role."""
        name = properties_of(function)["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
        return {**self.environment, "POWERTOOLS_SERVICE_NAME": name, **credentials_of(role_of(function))}

    @property
    def outputs(self) -> dict[str, str]:
        """What the template's outputs of the same names are here."""
        return {
            "JobsTableName": TABLE,
            **{f"{bucket}Name": name_of(bucket) for bucket in BUCKETS},
            "JobQueueUrl": self.queues["JobQueue"],
            "BatchQueueUrl": self.queues["BatchQueue"],
            "ManifestQueueUrl": self.queues["ManifestQueue"],
        }

    def feed(
        self,
        queue: str,
        function: str,
        invoke: Callable[[Any], Any],
        *,
        name: str,
        batch_size: int = 1,
    ) -> QueuePoller:
        """Start to feed a function from a queue; Lambda takes messages in the name of the function's role."""
        sqs = self.aws.sqs(role=role_of(function))
        poller = QueuePoller(sqs, self.queues[queue], invoke, name=name, batch_size=batch_size)
        poller.start()
        return poller


def create_table(aws: LocalAws) -> str:
    """The jobs table, as the template has it."""
    properties = properties_of("JobsTable")
    names = ("BillingMode", "KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes")
    arguments: Any = {name: properties[name] for name in names}
    aws.dynamodb().create_table(TableName=TABLE, **arguments)
    return TABLE


def notify_of_drops(aws: LocalAws) -> None:
    """S3 sends events of the input bucket to the queues that the template names."""
    configurations: list[Any] = []
    for entry in properties_of("InputBucket")["NotificationConfiguration"]["QueueConfigurations"]:
        rules = [{"Name": rule["Name"], "Value": rule["Value"]} for rule in entry["Filter"]["S3Key"]["Rules"]]
        configurations.append(
            {
                "QueueArn": resolve(entry["Queue"]),
                "Events": [entry["Event"]],
                "Filter": {"Key": {"FilterRules": rules}},
            }
        )
    aws.client().put_bucket_notification_configuration(
        Bucket=name_of("InputBucket"), NotificationConfiguration={"QueueConfigurations": configurations}
    )


def allow_origins(aws: LocalAws, *origins: str) -> None:
    """Let web pages upload and fetch, as the template does if the parameter CorsOrigins names them."""
    for name in BUCKETS:
        if (configuration := properties_of(name).get("CorsConfiguration")) is None:
            continue
        cors: Any = [
            {
                "AllowedOrigins": resolve(rule["AllowedOrigins"]["Fn::If"][1], CorsOrigins=list(origins)),
                "AllowedMethods": rule["AllowedMethods"],
                "AllowedHeaders": rule["AllowedHeaders"],
                "ExposeHeaders": rule["ExposedHeaders"],
                "MaxAgeSeconds": rule["MaxAge"],
            }
            for rule in configuration["CorsRules"]
        ]
        aws.client().put_bucket_cors(Bucket=name_of(name), CORSConfiguration={"CORSRules": cors})


def create_queue(aws: LocalAws, name: str, *, called: str = "") -> str:
    """A queue of the template, or another like it, with its dead-letter queue; returns its address."""
    sqs = aws.sqs()
    properties = properties_of(name)
    redrive = properties["RedrivePolicy"]
    sqs.create_queue(QueueName=name_of(redrive["deadLetterTargetArn"]["Fn::GetAtt"][0]))
    attributes: Any = {
        "VisibilityTimeout": str(properties["VisibilityTimeout"]),
        "MessageRetentionPeriod": str(properties["MessageRetentionPeriod"]),
        "RedrivePolicy": json.dumps(resolve(redrive)),
    }
    return sqs.create_queue(QueueName=called or name_of(name), Attributes=attributes)["QueueUrl"]
