"""Everything behind the API's routes: the table's stores, S3, the queues."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.jobs.declarations import DeclarationsReader
from comfy_serverless.jobs.links import Links
from comfy_serverless.jobs.node_list import NodeListReader
from comfy_serverless.settings import Settings
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.table.assets import AssetStore
from comfy_serverless.table.care import Care
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.presigned_uploads import UploadStore
from comfy_serverless.table.usage import UsageStore
from comfy_serverless.table.workers import Workers
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.store import WorkflowStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.api.event_links import EventLinks


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything behind the routes.

    Attributes:
        assets_bucket: where uploads and the requests of jobs are kept.
        output_bucket: where workers put the outputs of jobs.
        workflows: the named workflows, to be written and listed.
        named: the same, to be run.
        orders: the queue of orders about batches; without one the caretaker's next look is waited for.
        beside: does what need not be waited for one after the other.
        event_links: makes links to live events, where a function streams them; None where `/events` answers itself.
    """

    settings: Settings
    s3: S3Client
    table: Table
    jobs: JobStore
    assets: AssetStore
    uploads: UploadStore
    keys: ApiKeyStore
    usage: UsageStore
    node_list: NodeListReader
    declarations: DeclarationsReader
    workflows: WorkflowStore
    named: Finder
    workers: Workers
    batches: BatchStore
    orders: JobQueue | None
    care: Care
    assets_bucket: str
    output_bucket: str
    beside: Executor
    event_links: EventLinks | None = None

    @property
    def links(self) -> Links:
        """Signs links to files, which work for as long as LINK_EXPIRY_S says."""
        return Links(self.s3, self.settings.link_expiry_s)


def services(router: APIGatewayHttpRouter) -> Services:
    """The services for the request in hand."""
    behind: Services = router.context["services"]
    return behind
