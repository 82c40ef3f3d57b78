"""What the API's routes work with: the table's stores, S3, the queues. Made once for each process."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy_serverless.aws import s3 as s3_module
from comfy_serverless.aws.dynamodb import Table, create_client
from comfy_serverless.aws.sqs import WebhookQueue
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.jobs.node_list import NodeListReader
from comfy_serverless.settings import Settings
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.table.assets import AssetStore
from comfy_serverless.table.dispatch import Workers, workers_of
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything behind the routes.

    Attributes:
        assets_bucket: where uploads and the requests of jobs are kept.
        output_bucket: where workers put what jobs make.
    """

    settings: Settings
    s3: S3Client
    table: Table
    jobs: JobStore
    assets: AssetStore
    keys: ApiKeyStore
    node_list: NodeListReader
    workers: Workers
    webhook_queue: WebhookQueue
    assets_bucket: str
    output_bucket: str

    @classmethod
    def from_settings(cls, settings: Settings) -> Services:
        """Connect to everything the settings name.

        Raises:
            InvalidSetting: one of them is not there.
        """
        table = Table(create_client(), _required(settings.jobs_table, "JOBS_TABLE"))
        s3 = s3_module.create_client()
        assets_bucket = _required(settings.assets_bucket, "ASSETS_BUCKET")
        return cls(
            settings=settings,
            s3=s3,
            table=table,
            jobs=JobStore(table, lease_s=settings.lease_s, max_runs=settings.max_runs),
            assets=AssetStore(table, s3, bucket=assets_bucket),
            keys=ApiKeyStore(table),
            node_list=NodeListReader(s3, assets_bucket),
            workers=workers_of(settings),
            webhook_queue=WebhookQueue.at(settings.webhook_queue_url),
            assets_bucket=assets_bucket,
            output_bucket=_required(settings.output_bucket, "OUTPUT_BUCKET"),
        )


@functools.cache
def services() -> Services:
    """The services of this process."""
    return Services.from_settings(Settings.from_environment())


def _required(value: str | None, variable: str) -> str:
    if value is None:
        raise InvalidSetting(f"{variable} is not set, and the API needs it: template.yaml names all of its variables")
    return value
