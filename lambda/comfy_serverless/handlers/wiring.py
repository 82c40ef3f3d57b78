"""What each function works with: made once for a process, from its environment, and nowhere else.

What a function takes from here names all missing settings at once. Imports stand inside the functions, so that a
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

    from comfy_serverless.api.event_links import EventLinks
    from comfy_serverless.api.event_streams import EventStreams
    from comfy_serverless.api.services import Services
    from comfy_serverless.aws.dynamodb import Table
    from comfy_serverless.aws.sqs import JobQueue, WebhookQueue
    from comfy_serverless.batches.drops import Drops
    from comfy_serverless.batches.store import BatchStore
    from comfy_serverless.jobs.declarations import DeclarationsReader
    from comfy_serverless.jobs.line_ids import Question
    from comfy_serverless.jobs.named import NamedWorkflows
    from comfy_serverless.jobs.request import JobRequest
    from comfy_serverless.jobs.runnable import Behind
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.table.assets import AssetStore
    from comfy_serverless.table.care import Care
    from comfy_serverless.table.dispatch import Endpoint
    from comfy_serverless.table.gate import Gate
    from comfy_serverless.table.jobs import JobStore
    from comfy_serverless.table.settlement import Settlement
    from comfy_serverless.table.workers import Workers
    from comfy_serverless.webhooks.calls import Caller
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


def _job_store(table: Table) -> JobStore:
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
    return _job_store(table())


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
    import boto3

    from comfy_serverless.aws.sqs import CONFIG
    from comfy_serverless.table.dispatch import Endpoint

    return Endpoint(boto3.client("sagemaker-runtime", config=CONFIG), boto3.client("cloudwatch", config=CONFIG), name)


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


# For each function, what it works with.


@functools.cache
def services() -> Services:
    """For `api`: everything behind its routes."""
    from concurrent.futures import ThreadPoolExecutor

    from comfy_serverless.api.services import Services
    from comfy_serverless.jobs.declarations import DeclarationsReader
    from comfy_serverless.jobs.node_list import NodeListReader
    from comfy_serverless.table.presigned_uploads import UploadStore
    from comfy_serverless.table.usage import UsageStore

    _, assets_bucket, output_bucket, _ = settings().require(
        "jobs_table", "assets_bucket", "output_bucket", "job_queue_url"
    )
    jobs_to = workers()
    told = (s3(), assets_bucket, jobs_to.worker_image, lambda: jobs_to.release()[1])
    declarations = DeclarationsReader(*told)
    return Services(
        settings=settings(),
        s3=s3(),
        table=table(),
        jobs=jobs(),
        assets=assets(),
        uploads=UploadStore(assets()),
        keys=keys(),
        usage=UsageStore(table()),
        node_list=NodeListReader(*told),
        declarations=declarations,
        workflows=workflow_store(),
        named=named_workflows(declarations.fresh),
        workers=jobs_to,
        batches=batches(),
        orders=manifest_queue() if settings().manifest_queue_url else None,
        care=care(),
        assets_bucket=assets_bucket,
        output_bucket=output_bucket,
        # One request at a time needs one or two; one that S3 keeps waiting must not hold up the next.
        beside=ThreadPoolExecutor(4, thread_name_prefix="beside"),
        event_links=event_links(),
    )


@functools.cache
def event_links() -> EventLinks | None:
    """Links to live events; None where nothing streams them."""
    from comfy_serverless.api.event_links import EventLinks
    from comfy_serverless.table.event_keys import EventKeys

    url = settings().events_url
    return EventLinks(EventKeys(table()), url, settings().events_link_s) if url else None


@functools.cache
def event_streams() -> EventStreams:
    """For `stream`: live events of jobs."""
    from concurrent.futures import ThreadPoolExecutor

    from comfy_serverless.api.event_streams import EventStreams
    from comfy_serverless.jobs.links import Links
    from comfy_serverless.table.event_keys import EventKeys
    from comfy_serverless.table.watchers import WatcherPlaces

    settings().require("jobs_table")
    return EventStreams(
        jobs=jobs(),
        keys=keys(),
        event_keys=EventKeys(table()),
        places=WatcherPlaces(table(), settings().streams_per_owner),
        links=Links(s3(), settings().link_expiry_s),
        beside=ThreadPoolExecutor(4, thread_name_prefix="beside"),
        cors_origins=settings().cors_origins,
    )


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
    from comfy_serverless.jobs.declarations import DeclarationsReader
    from comfy_serverless.jobs.node_list import NodeListReader
    from comfy_serverless.workflows.reader import WorkflowReader
    from comfy_serverless.workflows.recheck import Recheck

    (bucket,) = settings().require("assets_bucket")
    told = (s3(), bucket, workers().worker_image, lambda: workers().release()[1])
    declarations = DeclarationsReader(*told)
    return Recheck(
        table=table(),
        keys=keys(),
        reader=WorkflowReader(table(), s3(), bucket),
        named=named_workflows(declarations.newest),
        declarations=declarations,
        lost=NodeListReader(*told).not_imported,
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
def ingest() -> Drops:
    """For `ingest`: it takes dropped objects, with the keeper of the batches among them."""
    import boto3

    from comfy_serverless.aws.dynamodb import Table, dynamodb_client
    from comfy_serverless.batches.drops import Drops
    from comfy_serverless.batches.keeper import Keeper
    from comfy_serverless.batches.store import BatchStore

    table_name, assets_bucket, output_bucket, _, _ = settings().require(
        "jobs_table", "assets_bucket", "output_bucket", "manifest_queue_url", "job_queue_url"
    )
    patient = Table(dynamodb_client(is_patient=True), table_name)
    jobs_to = workers()
    keeper = Keeper(
        jobs=_job_store(patient),
        batches=BatchStore(patient),
        workers=jobs_to,
        own_queue=manifest_queue(),
        s3=s3(),
        settings=settings(),
        output_bucket=output_bucket,
        step_functions=boto3.client("stepfunctions") if settings().batch_state_machine else None,
        named=NamesWhenAsked(_names_of_ingest),
        behind=functools.cache(lambda: _behind_of_ingest(patient)),
    )
    return Drops(
        jobs=keeper.jobs, workers=jobs_to, s3=s3(), settings=settings(), assets_bucket=assets_bucket, keeper=keeper
    )


@functools.cache
def _names_of_ingest() -> Finder:
    return named_workflows(_declarations_of_ingest().fresh)


@functools.cache
def _declarations_of_ingest() -> DeclarationsReader:
    from comfy_serverless.jobs.declarations import DeclarationsReader

    (bucket,) = settings().require("assets_bucket")
    return DeclarationsReader(s3(), bucket, workers().worker_image, lambda: workers().release()[1])


def _behind_of_ingest(table: Table) -> Behind:
    """What is asked about lines of owners' batches, as `services` has it for requests."""
    from comfy_serverless.batches.owned import OfOwners
    from comfy_serverless.jobs.node_list import NodeListReader
    from comfy_serverless.table.assets import AssetStore

    assets_bucket, output_bucket = settings().require("assets_bucket", "output_bucket")
    return OfOwners(
        s3=s3(),
        settings=settings(),
        assets=AssetStore(table, s3(), bucket=assets_bucket),
        node_list=NodeListReader(s3(), assets_bucket, workers().worker_image, lambda: workers().release()[1]),
        declarations=_declarations_of_ingest(),
        assets_bucket=assets_bucket,
        output_bucket=output_bucket,
    )


@functools.cache
def caller() -> Caller:
    """For `webhooks`: it calls them."""
    from comfy_serverless.fetch.web import Network
    from comfy_serverless.jobs.links import Links
    from comfy_serverless.webhooks.calls import Caller

    return Caller(jobs(), Links(s3(), settings().link_expiry_s), Network.of(settings()))


class NamesWhenAsked:
    """The named workflows, opened only by requests that name one."""

    def __init__(self, opened: Callable[[], Finder]) -> None:
        self._opened = opened

    def expand(self, request: JobRequest, *, owner: str, key: str) -> JobRequest:
        return self._opened().expand(request, owner=owner, key=key)

    def pinned(self, request: JobRequest, *, owner: str, key: str) -> JobRequest:
        return self._opened().pinned(request, owner=owner, key=key)

    def with_file(self, workflow: str, address: str, *, media: str, owner: str, key: str) -> JobRequest:
        return self._opened().with_file(workflow, address, media=media, owner=owner, key=key)

    def draws(self, question: Question, *, owner: str) -> bool:
        return self._opened().draws(question, owner=owner)

    def remembering(self) -> NamedWorkflows:
        return self._opened().remembering()
