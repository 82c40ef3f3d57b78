"""The Lambda function that takes what is dropped, and looks after batches: events of S3 and messages of our own.

SQS: S3 events ──► a job, or a batch          SQS: orders ──► see `batches.orders`
Step Functions: orders to read a range, for large manifests
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from typing import Any

import boto3

from comfy_serverless.aws import s3
from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.aws.dynamodb import create_client as create_table_client
from comfy_serverless.aws.sqs import JobQueue, create_client
from comfy_serverless.batches.drops import Drops, NotThere
from comfy_serverless.batches.keeper import Keeper
from comfy_serverless.batches.orders import Order
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.handlers.events import dropped_objects
from comfy_serverless.observability import log
from comfy_serverless.settings import Settings
from comfy_serverless.table.dispatch import workers_of
from comfy_serverless.table.jobs import JobStore

#: Kept back of an invocation for the chunk in hand, and to pass the rest on, in seconds.
RESERVE_S = 60.0


@functools.cache
def ingest() -> Drops:
    """The stores and queues of this process."""
    settings = Settings.from_environment()
    for variable, value in {
        "JOBS_TABLE": settings.jobs_table,
        "ASSETS_BUCKET": settings.assets_bucket,
        "OUTPUT_BUCKET": settings.output_bucket,
        "MANIFEST_QUEUE_URL": settings.manifest_queue_url,
    }.items():
        if value is None:
            raise InvalidSetting(f"{variable} must be set on this function")
    table = Table(create_table_client(is_patient=True), str(settings.jobs_table))
    jobs = JobStore(table, lease_s=settings.lease_s, max_runs=settings.max_runs)
    workers, client = workers_of(settings), s3.create_client()
    keeper = Keeper(
        jobs=jobs,
        batches=BatchStore(table),
        workers=workers,
        own_queue=JobQueue(create_client(), str(settings.manifest_queue_url)),
        s3=client,
        settings=settings,
        step_functions=boto3.client("stepfunctions") if settings.batch_state_machine else None,
    )
    return Drops(jobs=jobs, workers=workers, s3=client, settings=settings, keeper=keeper)


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Do what each message asks for. One that could not be done comes again, and the others do not pay for it."""
    left_s = context.get_remaining_time_in_millis() / 1000
    until = time.monotonic() + max(0.0, left_s - min(RESERVE_S, left_s / 2))
    if "Records" not in event:  # of the state machine: it tries again by itself
        return {"is_read": ingest().keeper.read(event["batch"], event["start"], until=until)}
    again = []
    for message in event["Records"]:
        try:
            _take(json.loads(message["body"]), until)
        except NotThere:
            log.exception("there is nothing to take any more")
        except Exception:  # noqa: BLE001  (whatever it is, the others must not pay for it)
            log.exception("a message could not be dealt with, and comes again")
            again.append(message["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in again]}


def _take(body: Any, until: float) -> None:  # noqa: ANN401
    keeper = ingest().keeper
    match Order.parse(body):
        case Order(batch_id=batch_id, start=int(start), is_resume=True):
            keeper.resume(batch_id, start=start, until=until)
        case Order(batch_id=batch_id, start=int(start)):
            keeper.read_or_pass_on(batch_id, start, until=until)
        case Order(batch_id=batch_id):
            keeper.advance(batch_id, until=until)
        case None:
            for dropped in dropped_objects(body):
                ingest().drop(dropped)
