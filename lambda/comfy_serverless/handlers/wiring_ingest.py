"""What `ingest` works with, made as in `wiring`: it takes drops, and looks after batches."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from comfy_serverless.handlers import wiring

if TYPE_CHECKING:
    from comfy_serverless.aws.dynamodb import Table
    from comfy_serverless.batches.drops import Drops
    from comfy_serverless.jobs.runnable import Behind
    from comfy_serverless.workflows.finding import Finder


@functools.cache
def ingest() -> Drops:
    """Takes dropped objects, with the keeper of the batches among them."""
    import boto3

    from comfy_serverless.aws.dynamodb import Table, dynamodb_client
    from comfy_serverless.aws.sqs import CONFIG
    from comfy_serverless.batches.budgets import BatchBudgets
    from comfy_serverless.batches.drops import Drops
    from comfy_serverless.batches.keeper import Keeper
    from comfy_serverless.batches.store import BatchStore
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.table.usage import UsageStore

    settings = wiring.settings()
    table_name, assets_bucket, output_bucket, _, _ = settings.require(
        "jobs_table", "assets_bucket", "output_bucket", "manifest_queue_url", "job_queue_url"
    )
    patient = Table(dynamodb_client(is_patient=True), table_name)
    keeper = Keeper(
        jobs=wiring.job_store(patient),
        batches=BatchStore(patient),
        workers=wiring.workers(),
        own_queue=wiring.manifest_queue(),
        s3=wiring.s3(),
        settings=settings,
        output_bucket=output_bucket,
        step_functions=boto3.client("stepfunctions", config=CONFIG) if settings.batch_state_machine else None,
        budgets=BatchBudgets(ApiKeyStore(patient), UsageStore(patient)),
        named=wiring.NamesWhenAsked(_names),
        behind=functools.cache(lambda: _behind(patient)),
    )
    return Drops(
        jobs=keeper.jobs,
        workers=keeper.workers,
        s3=wiring.s3(),
        settings=settings,
        assets_bucket=assets_bucket,
        keeper=keeper,
    )


@functools.cache
def _names() -> Finder:
    return wiring.named_workflows(wiring.declarations().fresh)


def _behind(table: Table) -> Behind:
    """What is asked about lines of owners' batches, as `wiring_api.services` has it for requests."""
    from comfy_serverless.batches.owned import OfOwners
    from comfy_serverless.table.assets import AssetStore

    assets_bucket, output_bucket = wiring.settings().require("assets_bucket", "output_bucket")
    return OfOwners(
        s3=wiring.s3(),
        settings=wiring.settings(),
        assets=AssetStore(table, wiring.s3(), bucket=assets_bucket),
        node_list=wiring.node_list(),
        declarations=wiring.declarations(),
        assets_bucket=assets_bucket,
        output_bucket=output_bucket,
    )
