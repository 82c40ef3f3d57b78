"""What each function works with: made once for a process, from its environment, and nowhere else.

Here are the clients, the stores, and what functions without a file of their own take: `wiring_api` has those behind
HTTP, `wiring_ingest` the one that takes drops, `wiring_worker` those that run jobs.

What a function takes from these names all missing settings at once. Imports stand inside the functions, so that a
process loads only what it uses: `generate` starts without anything that only jobs of the API need (see `warm`).
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from comfy_serverless.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

    from comfy_serverless.aws.dynamodb import Table
    from comfy_serverless.aws.sqs import JobQueue, WebhookQueue
    from comfy_serverless.batches.store import BatchStore
    from comfy_serverless.jobs.declarations import DeclarationsReader
    from comfy_serverless.jobs.line_ids import Question
    from comfy_serverless.jobs.named import NamedWorkflows
    from comfy_serverless.jobs.node_list import NodeListReader
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.table.assets import AssetStore
    from comfy_serverless.table.care import Care
    from comfy_serverless.table.dispatch import Endpoint
    from comfy_serverless.table.gate import Gate
    from comfy_serverless.table.jobs import JobStore
    from comfy_serverless.table.settlement import Settlement
    from comfy_serverless.table.workers import Workers
    from comfy_serverless.webhooks.calls import WebhookCaller
    from comfy_serverless.workflows.finding import Finder
    from comfy_serverless.workflows.recheck import Recheck
    from comfy_serverless.workflows.store import WorkflowStore


IS_LAMBDA = "AWS_LAMBDA_RUNTIME_API" in os.environ
if IS_LAMBDA:
    # Lambda has given its own level to all libraries: at DEBUG those of AWS would log requests and signatures.
    logging.getLogger().setLevel(logging.WARNING)


#: How long an invocation waits, at its end, for the collector of its spans, in seconds; the function of the API less,
#: because somebody waits for its answer. Where a collector does not answer that is once a minute (`tracing.flush`).
FLUSH_S, FLUSH_ANSWER_S = 0.5, 0.1


def at_start(make: Callable[[], object]) -> None:
    """Make this now, under Lambda: a function that starts has a whole processor, and missing settings are named."""
    if IS_LAMBDA:
        make()


@functools.cache
def settings() -> Settings:
    """The environment, read once. A wrong value is named and fails the start."""
    from comfy_serverless import tracing
    from comfy_serverless.observability import name_release

    found = Settings.from_environment()
    name_release(found.release_version)
    service = os.environ.get("POWERTOOLS_SERVICE_NAME", "comfy_serverless")
    tracing.begin(found.otel_endpoint, service=service, facts={"service.version": found.release_version})
    return found


@functools.cache
def s3() -> S3Client:
    """The client of S3."""
    from comfy_serverless.aws.s3 import s3_client

    return s3_client()


@functools.cache
def sqs() -> SQSClient:
    """The client of SQS."""
    from comfy_serverless.aws.sqs import sqs_client

    return sqs_client()


# The table and its stores.


@functools.cache
def table() -> Table:
    """The table."""
    from comfy_serverless.aws.dynamodb import Table, dynamodb_client

    (name,) = settings().require("jobs_table")
    return Table(dynamodb_client(), name)


def job_store(table: Table) -> JobStore:
    """The jobs in this table."""
    from comfy_serverless.table.jobs import JobStore

    return JobStore(
        table,
        lease_s=settings().lease_s,
        max_runs=settings().max_runs,
        release_version=settings().release_version,
    )


@functools.cache
def jobs() -> JobStore:
    """The jobs in the table."""
    return job_store(table())


@functools.cache
def batches() -> BatchStore:
    """The batches."""
    from comfy_serverless.batches.store import BatchStore

    return BatchStore(table())


@functools.cache
def assets() -> AssetStore:
    """The assets of the API's callers."""
    from comfy_serverless.table.assets import AssetStore

    _, bucket = settings().require("jobs_table", "assets_bucket")
    return AssetStore(table(), s3(), bucket=bucket)


@functools.cache
def workflow_store() -> WorkflowStore:
    """The named workflows."""
    from comfy_serverless.workflows.store import WorkflowStore

    _, bucket = settings().require("jobs_table", "assets_bucket")
    return WorkflowStore(table(), s3(), bucket)


def named_workflows(declarations: Callable[[], Mapping[str, Any] | None]) -> Finder:
    """Finds named workflows: those in the table, if there is one, and the files in the image.

    Args:
        declarations: what the workers' nodes are; None if nobody has told.
    """
    from comfy_serverless.workflows.finding import Finder

    has_table = settings().jobs_table is not None and settings().assets_bucket is not None
    return Finder(workflow_store() if has_table else None, settings().workflows_dir, declarations)


@functools.cache
def keys() -> ApiKeyStore:
    """The API keys."""
    from comfy_serverless.table.api_keys import ApiKeyStore

    return ApiKeyStore(table())


# Where jobs, orders and webhooks are sent.


def endpoint(name: str) -> Endpoint:
    """The SageMaker endpoint of this name."""
    from comfy_serverless.aws.sagemaker import endpoint_clients
    from comfy_serverless.table.dispatch import Endpoint

    return Endpoint(*endpoint_clients(), name)


@functools.cache
def workers() -> Workers:
    """Where jobs are sent to run: queues, with functions or an endpoint behind them."""
    import boto3

    from comfy_serverless.aws.sqs import CONFIG
    from comfy_serverless.table.dispatch import Queues, Switch

    (url,) = settings().require("job_queue_url")
    image, version = settings().worker_image, settings().release_version
    own = Queues.at(url, settings().batch_queue_url, sqs=sqs(), image=image, version=version)
    parameter = settings().dispatch_parameter
    return own if parameter is None else Switch(own, parameter, boto3.client("ssm", config=CONFIG), endpoint)


@functools.cache
def manifest_queue() -> JobQueue:
    """The queue of orders to `ingest`."""
    from comfy_serverless.aws.sqs import JobQueue

    (url,) = settings().require("manifest_queue_url")
    return JobQueue(sqs(), url)


@functools.cache
def webhook_queue() -> WebhookQueue:
    """The queue of webhooks to call, if there is one."""
    from comfy_serverless.aws.sqs import WebhookQueue

    url = settings().webhook_queue_url
    return WebhookQueue(sqs() if url else None, url)


# What workers have told of their nodes.


def _told_by_workers() -> tuple[S3Client, str, Callable[[], str], Callable[[], str]]:
    """Where it is kept, and which workers are meant."""
    (bucket,) = settings().require("assets_bucket")
    sent_to = workers()
    return s3(), bucket, sent_to.worker_image, lambda: sent_to.release()[1]


@functools.cache
def declarations() -> DeclarationsReader:
    """What the nodes declare."""
    from comfy_serverless.jobs.declarations import DeclarationsReader

    return DeclarationsReader(*_told_by_workers())


@functools.cache
def node_list() -> NodeListReader:
    """Which classes there are, and which packs did not import."""
    from comfy_serverless.jobs.node_list import NodeListReader

    return NodeListReader(*_told_by_workers())


# For each function, what it works with.


@functools.cache
def care() -> Care:
    """The care of neglected jobs."""
    from comfy_serverless.table.care import Care

    settings().require("jobs_table", "job_queue_url")
    return Care(jobs(), workers(), webhook_queue(), s3())


def caretaker() -> tuple[Care, AssetStore]:
    """For `caretaker`: the care of neglected jobs, and the assets, which expire."""
    settings().require("jobs_table", "assets_bucket", "job_queue_url")
    return care(), assets()


@functools.cache
def recheck() -> Recheck:
    """For `caretaker`: the check of everybody's named workflows, each time what the workers declare has changed."""
    from comfy_serverless.workflows.reader import WorkflowReader
    from comfy_serverless.workflows.recheck import Recheck

    (bucket,) = settings().require("assets_bucket")
    return Recheck(
        table=table(),
        keys=keys(),
        reader=WorkflowReader(table(), s3(), bucket),
        named=named_workflows(declarations().newest),
        declarations=declarations(),
        lost=node_list().not_imported,
    )


@functools.cache
def settlement() -> Settlement:
    """For `outcome`: it ends jobs that no worker has ended."""
    from comfy_serverless.table.settlement import Settlement

    return Settlement(care())


@functools.cache
def gate() -> Gate:
    """For `forward`: the gate before the endpoint."""
    import boto3

    from comfy_serverless.aws.sqs import CONFIG
    from comfy_serverless.batches.store import hold_back
    from comfy_serverless.table.gate import Fleet, Gate, PlaceStore

    name, _, _, _ = settings().require("endpoint_name", "jobs_table", "job_queue_url", "batch_queue_url")
    return Gate(
        endpoint(name),
        Fleet(boto3.client("sagemaker", config=CONFIG), name),
        jobs(),
        PlaceStore(table(), name),
        settings().waiting_per_instance,
        functools.partial(hold_back, jobs(), batches()),
    )


@functools.cache
def webhook_caller() -> WebhookCaller:
    """For `webhooks`: it calls them."""
    from comfy_serverless.fetch.web import Network
    from comfy_serverless.jobs.links import Links
    from comfy_serverless.webhooks.calls import WebhookCaller

    return WebhookCaller(jobs(), Links(s3(), settings().link_expiry_s), Network.of(settings()))


class NamesWhenAsked:
    """The named workflows, opened only by requests that name one."""

    def __init__(self, opened: Callable[[], Finder]) -> None:
        self._opened = opened

    def expand(self, request: JobRequest, *, owner: str, key: str, was_taken: bool = False) -> JobRequest:
        return self._opened().expand(request, owner=owner, key=key, was_taken=was_taken)

    def pinned(self, request: JobRequest, *, owner: str, key: str) -> JobRequest:
        return self._opened().pinned(request, owner=owner, key=key)

    def with_file(self, workflow: str, address: str, *, media: str, owner: str, key: str) -> JobRequest:
        return self._opened().with_file(workflow, address, media=media, owner=owner, key=key)

    def draws(self, question: Question, *, owner: str) -> bool:
        return self._opened().draws(question, owner=owner)

    def remembering(self) -> NamedWorkflows:
        return self._opened().remembering()
