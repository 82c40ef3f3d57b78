"""What `generate` and the container on SageMaker work with: one worker beside one warm engine, made as in `wiring`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy_serverless.handlers import snapshot, wiring

if TYPE_CHECKING:
    from comfy_serverless.connector.connector import ComfyConnector
    from comfy_serverless.fetch.web import Network
    from comfy_serverless.jobs.node_list import NodeListWriter
    from comfy_serverless.jobs.request import ModelRequest
    from comfy_serverless.sandbox.sandbox import Sandbox
    from comfy_serverless.worker.journal import Journal
    from comfy_serverless.worker.metrics import Meter
    from comfy_serverless.worker.model_store import ModelStore
    from comfy_serverless.worker.protocols import ShownModels
    from comfy_serverless.worker.replies import Replies
    from comfy_serverless.worker.worker import Worker
    from comfy_serverless.workflows.finding import Finder


@functools.cache
def connector() -> ComfyConnector:
    """The one connector; it may still be starting ComfyUI."""
    from comfy_serverless.connector.connector import ComfyConnector

    return ComfyConnector(settings=wiring.settings(), wait=False)


@functools.cache
def _network() -> Network:
    """What jobs may fetch from."""
    from comfy_serverless.fetch.web import Network

    return Network.of(wiring.settings(), engine=lambda: connector().server_address)


@functools.cache
def sandbox() -> Sandbox:
    """The one sandbox. Its children start with the first file that they are needed for, and end with this process."""
    from comfy_serverless.sandbox.sandbox import Sandbox

    return Sandbox()


@functools.cache
def worker() -> Worker:
    """The one worker."""
    from comfy_serverless.worker.inputs.fetcher import InputFetcher
    from comfy_serverless.worker.worker import Worker

    inputs = InputFetcher(
        settings=wiring.settings(), s3=wiring.s3(), connector=connector(), network=_network(), sandbox=sandbox()
    )
    if wiring.settings().models_manifest and not snapshot.IS_TAKEN:
        model_store()  # they are fetched while ComfyUI starts
    return Worker(
        settings=wiring.settings(),
        engine=connector(),
        s3=wiring.s3(),
        inputs=inputs,
        models=_Models(),
        named=wiring.NamesWhenAsked(_names_of_worker),
    )


@functools.cache
def replies() -> Replies:
    """The replies that callers get."""
    from comfy_serverless.worker.replies import Replies

    return Replies(wiring.s3(), wiring.settings())


@functools.cache
def meter() -> Meter:
    """The metrics of jobs."""
    from comfy_serverless.worker.metrics import Meter

    return Meter(lambda: connector().condition, lambda: len(connector().not_imported))


@functools.cache
def journal() -> Journal:
    """Takes jobs of the API out of the table and records there how they ended."""
    from comfy_serverless.batches.store import hold_back
    from comfy_serverless.worker.journal import Journal

    wiring.settings().require("jobs_table", "job_queue_url")
    return Journal(
        wiring.jobs(),
        wiring.workers(),
        wiring.webhook_queue(),
        hold_back=functools.partial(hold_back, wiring.jobs(), wiring.batches()),
        most_outputs=wiring.settings().max_listed_outputs,
    )


@functools.cache
def node_list() -> NodeListWriter | None:
    """Writes the list of node classes for the API; None without a bucket to write to."""
    from comfy_serverless.jobs.node_list import NodeListWriter

    bucket = wiring.settings().assets_bucket
    if bucket is None:
        return None
    image, release = wiring.settings().worker_image, wiring.settings().release_version
    return NodeListWriter(wiring.s3(), bucket, image, worker().declarations.newest, connector().lost_packs, release)


@functools.cache
def model_store() -> ModelStore:
    """The models; imported and opened with the first job that needs one."""
    from comfy_serverless.worker.model_store import ModelStore
    from comfy_serverless.worker.model_store.forgetting import forget_everything
    from comfy_serverless.worker.model_store.operator_models import places_of

    return ModelStore(
        wiring.settings(),
        wiring.s3(),
        _network(),
        forget=lambda deadline: forget_everything(connector(), deadline=deadline),
        places=lambda deadline: places_of(connector(), deadline=deadline),
        sandbox=sandbox(),
    )


@functools.cache
def _names_of_worker() -> Finder:
    return wiring.named_workflows(lambda: worker().declarations.known())


class _Models:
    """The model store, opened only by jobs that need it."""

    def hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float, owner: str = "") -> ShownModels:
        from comfy_serverless.worker.protocols import NothingShown

        if not models and not wiring.settings().models_manifest:
            return NothingShown()
        return model_store().hold(models, job_id=job_id, deadline=deadline, owner=owner)
