"""The Lambda function that runs jobs: direct payloads, HTTP API requests, S3 events, SQS batches.

`handler` translates an event to jobs, has them run one after the other, and translates back.
"""

from __future__ import annotations

from comfy_serverless.handlers import warm

# isort: split
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from comfy_serverless.aws import s3 as s3_module
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.handlers.events import JobQueueEvent, recognise
from comfy_serverless.handlers.shutdown import drain_on_sigterm, leave_process
from comfy_serverless.observability import log
from comfy_serverless.worker.metrics import emit_metrics
from comfy_serverless.worker.replies import Replies
from comfy_serverless.worker.worker import Call, Outcome, Worker

if TYPE_CHECKING:
    from comfy_serverless.jobs.node_list import NodeListWriter
    from comfy_serverless.jobs.request import ModelRequest
    from comfy_serverless.jobs.sources import QueuedJob
    from comfy_serverless.worker.journal import Journal
    from comfy_serverless.worker.model_store import ModelStore

warm.imports_done()


class LambdaContext(Protocol):
    """What we use of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is cut off."""


@dataclass(slots=True)
class Service:
    """Everything one process needs to answer invocations, kept warm from one to the next."""

    worker: Worker
    replies: Replies
    max_receives: int
    invocations: int = 0
    counted_starts: int = 0

    def answer(self, event: object, remaining_s: Callable[[], float]) -> Any:  # noqa: ANN401
        """Run the jobs an event asks for, one after the other, and answer it in its own way."""
        recognised = recognise(event)
        if isinstance(recognised, JobQueueEvent):
            return self._run_queued(recognised, remaining_s)
        outcomes: list[Outcome] = []
        try:
            for source, delivery in zip(recognised.sources(), recognised.deliveries(), strict=True):
                call = Call(
                    remaining_s=remaining_s,
                    is_heard=recognised.is_heard,
                    is_first=not outcomes,
                    is_last_try=not recognised.is_heard and delivery >= self.max_receives,
                )
                outcomes.append(self.worker.run(source, call))
            self.count(outcomes)
            return recognised.answer(outcomes, self.replies)
        finally:
            for outcome in outcomes:
                outcome.release()

    def _run_queued(self, event: JobQueueEvent, remaining_s: Callable[[], float]) -> dict[str, Any]:
        """Run jobs of the API: the table says which are still to be run, and is told how they ended."""
        table = journal()
        unrecorded: list[QueuedJob] = []
        for number, job in enumerate(event.sources()):
            call = Call(remaining_s=remaining_s, is_heard=False, is_first=number == 0)
            try:
                outcome = table.run(self.worker, job, call)
            except Exception:  # noqa: BLE001  (whatever it is, the batch's other jobs must not pay for it)
                log.exception("the job's message is to come again", job_id=job.job_id)
                unrecorded.append(job)
                continue
            if isinstance(outcome, Outcome):
                self.count([outcome])
                outcome.release()
        if (writer := node_list()) is not None:
            writer.write_if_due()
        return event.come_again(unrecorded)

    def count(self, outcomes: list[Outcome]) -> None:
        """Count them in the metrics."""
        starts = warm.connector().starts
        emit_metrics(
            # A job answered from its stored result has been counted already.
            [outcome.job for outcome in outcomes if outcome.has_run or outcome.error is not None],
            is_cold_start=self.invocations == 0,
            engine_starts=starts - self.counted_starts,
        )
        self.invocations += 1
        self.counted_starts = starts


@functools.cache
def model_store() -> ModelStore:
    """The models of this process; imported and opened with the first job that needs one."""
    from comfy_serverless.worker.model_store import ModelStore
    from comfy_serverless.worker.model_store.forgetting import forget_everything

    engine = warm.connector()
    return ModelStore(
        warm.settings(), s3_module.create_client(), forget=lambda deadline: forget_everything(engine, deadline=deadline)
    )


@functools.cache
def journal() -> Journal:
    """The jobs table of this process; imported and connected to with the first job of the API.

    Raises:
        InvalidSetting: the function does not know the table or the queue.
    """
    from comfy_serverless.aws.dynamodb import Table, create_client
    from comfy_serverless.aws.sqs import WebhookQueue
    from comfy_serverless.batches.holding import hold_back
    from comfy_serverless.batches.store import BatchStore
    from comfy_serverless.table.dispatch import workers_of
    from comfy_serverless.table.jobs import JobStore
    from comfy_serverless.worker.journal import Journal

    settings = warm.settings()
    if settings.jobs_table is None:
        raise InvalidSetting("a job of the API has come, and JOBS_TABLE is not set on this function")
    table = Table(create_client(), settings.jobs_table)
    jobs = JobStore(table, lease_s=settings.lease_s, max_runs=settings.max_runs)
    return Journal(
        jobs,
        workers_of(settings),
        WebhookQueue.at(settings.webhook_queue_url),
        hold_back=functools.partial(hold_back, jobs, BatchStore(table)),
    )


@functools.cache
def node_list() -> NodeListWriter | None:
    """What tells the API which node classes there are."""
    from comfy_serverless.jobs.node_list import NodeListWriter

    bucket = warm.settings().assets_bucket
    return NodeListWriter(s3_module.create_client(), bucket, warm.connector().node_classes) if bucket else None


class Models:
    """The model store, for those jobs that need it."""

    def hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float) -> AbstractContextManager[object]:
        """See `ModelStore.hold`."""
        if not models and not warm.settings().models_manifest:
            return nullcontext()
        return model_store().hold(models, job_id=job_id, deadline=deadline)


@functools.cache
def service() -> Service:
    """The service of this process."""
    from comfy_serverless.worker.inputs.fetcher import InputFetcher

    settings, engine, s3 = warm.settings(), warm.connector(), s3_module.create_client()
    inputs = InputFetcher(settings=settings, s3=s3, connector=engine)
    worker = Worker(settings=settings, engine=engine, s3=s3, inputs=inputs, models=Models())
    if settings.models_manifest:
        model_store()  # they are fetched while ComfyUI starts
    return Service(worker, Replies(s3, settings), max_receives=settings.max_receives)


def handler(event: object, context: LambdaContext) -> Any:  # noqa: ANN401  (any JSON value)
    """Answer one invocation."""
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000
    return service().answer(event, lambda: until - time.monotonic())


def _drain_on_sigterm() -> None:
    drain_on_sigterm(worker=service().worker, stop_engine=warm.connector().kill_api, leave=leave_process)


warm.in_worker(_drain_on_sigterm)
