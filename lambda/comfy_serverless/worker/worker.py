"""Runs one job, from its source to its verified result. The only code that does; all other code translates.

    read ──► done already? ──► workflow ──► models, inputs ──► engine ──► outputs ──► result.json ──► reply ──► tidied
                  │                                              │           ▲
                  └──► that result                               └───────────┘ each output leaves as soon as it is made

Several threads may run jobs of one worker at once: while one executes, the last is delivered and the next prepared.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypedDict

from comfy_serverless import tracing
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.connector.own_folder import check_prefixes
from comfy_serverless.errors import (
    Canceled,
    ComfyError,
    DeadlineExceeded,
    DeliveryFailed,
    InvalidRequest,
    InvalidWorkflow,
)
from comfy_serverless.graph.lookup import met_several
from comfy_serverless.graph.workflow import draw_seeds
from comfy_serverless.graph.wrappers import merged
from comfy_serverless.jobs.buckets import Buckets
from comfy_serverless.jobs.document import Job
from comfy_serverless.jobs.keys import KeyAllotment, keys_of
from comfy_serverless.jobs.prices import Prices
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.observability import about, log, rename
from comfy_serverless.worker import traced
from comfy_serverless.worker.ahead import Ahead
from comfy_serverless.worker.declarations import EngineDeclarations
from comfy_serverless.worker.delivery import UPLOAD_THREADS, Delivery, Undelivered, delivery_error
from comfy_serverless.worker.leftovers import FilesInUse, Leftovers, room_for_kept
from comfy_serverless.worker.outcomes import Call as Call  # whoever has a worker run jobs needs both
from comfy_serverless.worker.outcomes import Outcome as Outcome
from comfy_serverless.worker.outcomes import conclude, outcome_of
from comfy_serverless.worker.protocols import NothingShown
from comfy_serverless.worker.record import JobRecord, own_mistake
from comfy_serverless.worker.running import Phase, RunningJob, RunningJobs
from comfy_serverless.worker.thumbnails import Thumbnails
from comfy_serverless.worker.tidying import Tidying
from comfy_serverless.worker.workflows import JobWorkflow, Workflows

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.connector.outputs import Output as Made
    from comfy_serverless.connector.progress import Progress
    from comfy_serverless.jobs.named import Named
    from comfy_serverless.jobs.sources import RequestSource
    from comfy_serverless.settings import Settings
    from comfy_serverless.worker.protocols import Engine, Inputs, Models, PreparedGraph, Shown, ShownModels

#: Kept back at the very end, to write the result after the uploads, in seconds.
RESULT_RESERVE_S = 1.0
#: The longest wait for uploads, where no invocation ends, in seconds.
MAX_DELIVERY_S = 3600.0
#: The most of a drain's time that is kept back to stop jobs and to deliver what they have made, in seconds.
MAX_STOP_S = 6.0


class _Limits(TypedDict, total=False):
    """The time a workflow may take, and how much of it may be execution: see `ComfyConnector.run`."""

    deadline_s: float
    execution_s: float


class _Before(TypedDict):
    """The job, and when its workflow is of no use any more: see `Workflows`."""

    job_id: str
    until: float


class Worker:
    """Runs jobs with one warm engine. Thread-safe.

    Args:
        named: the workflows that requests may name.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        engine: Engine,
        s3: S3Client,
        inputs: Inputs,
        named: Named,
        models: Models | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._s3 = s3
        self._inputs = inputs
        self._models = models
        self._jobs = RunningJobs(engine.cancel)
        self._files_in_use = FilesInUse(limit_bytes=room_for_kept(settings.kept_output_bytes))
        self._pool = ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="delivery")
        self._thumbnails = Thumbnails.of(settings, s3)
        self.ahead = Ahead(s3, self._jobs)
        self._tidying = Tidying(engine, self._jobs, self._files_in_use)
        self.declarations = EngineDeclarations(engine, self._jobs)
        self._named = named
        self._workflows = Workflows(s3, settings, self.declarations, named)

    def close(self) -> None:
        """End the worker's threads, once they have tidied up."""
        self._pool.shutdown(wait=True)
        if self._thumbnails is not None:
            self._thumbnails.close()
        self.ahead.close()
        self._tidying.close()

    def cancel(self, job_id: str) -> bool:
        """Ask a job to end; its `run` returns `canceled` once the engine has confirmed.

        Returns False if no such job runs here, or if it is too late: all has been made, and is being delivered.
        """
        return self._jobs.cancel(job_id)

    def drain(self, *, within_s: float) -> bool:
        """Begin no more jobs, and let running ones finish or stop them in this time; return whether all have ended.

        A job that is stopped, or comes too late, ends as `worker_stopped`, which is retryable; its outputs are
        delivered.
        """
        stop_s = min(MAX_STOP_S, within_s / 2)
        return self._jobs.drain(finish_s=within_s - stop_s, stop_s=stop_s)

    def run(self, source: RequestSource, call: Call) -> Outcome:
        """Run the job a source asks for. Never raises for a job's failure, which is in the outcome."""
        return traced.run(source, lambda: self._run_noted(source, call))

    def _run_noted(self, source: RequestSource, call: Call) -> Outcome:
        record = JobRecord(
            job_id=source.default_id,
            metadata=dict(source.labels),
            release_version=self._settings.release_version,
            extra_data=source.extra_data,
            prices=Prices.of(self._settings),
            most_listed=self._settings.max_listed_outputs,
            keep_logs=self._settings.keep_logs,
        )
        with about(record.job_id):
            try:
                # New for every delivery, because a late answer to an earlier one must not be taken for this one's.
                prompt_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{record.job_id}/{time.time_ns()}/{uuid.uuid4()}"))
                with self._jobs.one_more(prompt_id, owner=source.owner_name) as running:
                    call.observer.see_begin(partial(self._jobs.stop, running))
                    return self._run(record, source, call, running)
            except Exception as failure:  # noqa: BLE001  (and the other jobs of the batch must not pay for it)
                error = own_mistake(failure)
                bare = JobRecord(job_id=record.job_id, metadata={}, release_version=record.release_version)
                bare.tidy = record.tidy
                return outcome_of(bare, bare.document(error), error=error, is_recorded=False)

    def _run(self, record: JobRecord, source: RequestSource, call: Call, running: RunningJob) -> Outcome:
        error: ComfyError | None = None
        try:
            standing = self._execute(record, source, call, running)
        except ComfyError as failure:
            standing, error = None, failure
        except Exception as failure:  # noqa: BLE001  (whatever it is, the job must end with an outcome)
            standing, error = None, own_mistake(failure)
        if standing is not None:
            log.info("job answered from its stored result", status=standing.status.value)
            return outcome_of(record, record.answered(standing), error=None, is_recorded=True)
        return conclude(record, error, call)

    def _execute(self, record: JobRecord, source: RequestSource, call: Call, running: RunningJob) -> Job | None:
        """Fill the record; return the stored result if the job has run before."""
        default_bucket = self._settings.output_bucket if self._settings.output_bucket != source.origin_bucket else None
        record.result = record.home = self._result_file(record, default_bucket)
        request = source.read(s3=self._s3, settings=self._settings, named=self._named)
        if not source.is_checked:  # before its place is known: nothing is written there, not even the refusal
            Reserved.of(self._settings).check(request, job_id=request.job_id or record.job_id)
        record.job_id = request.job_id or record.job_id
        record.metadata.update(request.metadata)
        rename(record.job_id)
        record.result = record.home = self._result_file(record, default_bucket)
        Buckets.of(self._settings).check_output(request)
        record.request = request
        record.warnings += request.warnings
        record.result = self._result_file(record, request.output.bucket or default_bucket)
        if record.result is None and (request.reply == "links" or not call.is_heard):
            raise InvalidRequest(
                "there is no bucket for the results: set OUTPUT_BUCKET on the worker, "
                "or `output.bucket` in the request."
            )
        leftovers = self._claim(record, call, running)
        try:
            standing = call.standing(record.result) if record.result else None
        except InvalidRequest:
            record.result = record.other_place() or record.result  # where the failure can be written
            raise
        if standing is not None and not (standing.job.error and standing.job.error.retryable):
            if call.is_line:
                _check_own(record, standing.job)
            return standing.job
        record.replaces = standing
        record.deadline = self._deadline(record, request, call)
        begun = time.monotonic()
        before: _Before = {"job_id": record.job_id, "until": record.latest}
        whole = self._workflows.expanded(request, source, running, **before)
        record.metadata.update(whole.metadata)
        workflow = self._workflows.of(whole, source, running, was_named=whole is not request, **before)
        # It may have waited for the jobs before it, to learn what nodes there are.
        record.deadline = min(record.latest, record.deadline + time.monotonic() - begun)
        self._run_engine(record, whole, workflow, leftovers, call, running)
        return None

    def _claim(self, record: JobRecord, call: Call, running: RunningJob) -> Leftovers:
        """Wait until no other job of this id runs here: the same id never runs twice at once."""
        # Held before the claim, so that an earlier run of the id leaves the job's kept files to this one.
        leftovers = Leftovers(self._files_in_use, job_id=record.job_id)
        record.tidy = lambda: self._tidying.after(record, leftovers, running.prompt_id)
        left_s = call.remaining_s() - self._settings.deadline_margin_s
        if not self._jobs.claim(running, record.job_id, timeout_s=left_s):
            running.check()
            record.is_cut_short = True
            raise DeadlineExceeded(f"job {record.job_id} is running here already, and has not ended in time")
        return leftovers

    def _result_file(self, record: JobRecord, bucket: str | None) -> ResultFile | None:
        if bucket is None:
            return None
        return ResultFile(self._s3, S3Address(bucket, self._keys(record).result_key))

    def _keys(self, record: JobRecord) -> KeyAllotment:
        return keys_of(record.job_id, record.request.output if record.request else None, self._settings)

    def _deadline(self, record: JobRecord, request: JobRequest, call: Call) -> float:
        asked_s = self._settings.default_deadline_s if request.deadline_s is None else request.deadline_s
        if asked_s == 0:
            raise DeadlineExceeded(
                "deadline_s is 0, so the job was given no time and was not started: say how many seconds it may take, "
                f"or leave deadline_s out for {self._settings.default_deadline_s:g}."
            )
        left_s = call.remaining_s() - self._settings.deadline_margin_s
        record.is_cut_short = left_s < asked_s
        record.shares_time = not call.is_first
        record.latest = record.begun + left_s
        if left_s <= 0:
            raise DeadlineExceeded(
                f"only {left_s + self._settings.deadline_margin_s:.0f} s of the invocation are left, and "
                f"{self._settings.deadline_margin_s:g} of them are kept back to report (DEADLINE_MARGIN_S): "
                "the job was not started. Give the function a longer timeout."
            )
        return record.begun + min(asked_s, left_s)

    def _run_engine(
        self,
        record: JobRecord,
        request: JobRequest,
        workflow: JobWorkflow,
        leftovers: Leftovers,
        call: Call,
        running: RunningJob,
    ) -> None:
        record.warnings += [warning for warning in request.warnings if warning not in record.warnings]
        record.warnings += workflow.warnings
        record.extra_data = merged(record.extra_data or {}, workflow.extra_data)
        record.warnings += met_several(workflow.graph, [*request.values, *request.inputs])
        graph, record.seeds = draw_seeds(workflow.graph)
        with ExitStack() as held:
            models: ShownModels = NothingShown()
            if self._models is not None:
                with record.step("models"):
                    models = self._models.hold(
                        request.models, job_id=record.job_id, deadline=record.deadline, owner=running.owner
                    )
                held.callback(models.release)
                record.warnings += models.warnings
            elif request.models:
                raise InvalidRequest("this worker fetches no models: it has no store for them.")
            running.check()
            with record.step("fetching"):
                prepared = self._inputs.prepare(
                    graph, workflow.inputs, job_id=record.job_id, owner=running.owner, deadline=record.deadline
                )
            held.callback(prepared.release)
            check_prefixes(prepared.graph)
            record.prepared_ms = record.elapsed_ms()
            self._run_prompt(record, prepared, models, leftovers, call, running)

    def _run_prompt(
        self,
        record: JobRecord,
        prepared: PreparedGraph,
        models: Shown,
        leftovers: Leftovers,
        call: Call,
        running: RunningJob,
    ) -> None:
        left_s = record.deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded("the job's time was over before its inputs had been fetched.")
        delivery = Delivery(
            job_id=record.job_id,
            owner=running.owner,
            keys=self._keys(record),
            s3=self._s3,
            bucket=record.result.address.bucket if record.result else None,
            pool=self._pool,
            leftovers=leftovers,
            thumbnails=self._thumbnails,
            on_delivered=call.observer.see_output,
        )

        def see_progress(progress: Progress) -> None:
            record.progress = progress
            self._jobs.has_begun(running)
            call.observer.see_progress(progress)

        try:
            running.may_overlap = self._engine.may_overlap(prepared.graph)
            with (
                self._my_turn(record, running) as limits,
                self._shown((models, prepared), record, running),
                traced.execution(prepared.graph) as tell,
            ):
                execution = self._engine.run(
                    prepared.graph,
                    **limits,
                    on_progress=see_progress,
                    on_output=delivery.hand_over,
                    on_log=partial(setattr, record, "log_lines"),
                    prompt_id=running.prompt_id,
                    extra_data=record.extra_data,
                    apart_as=record.job_id,
                    recalls_as=running.owner,
                )
                tell(execution.timings)
        except ComfyError as error:
            running.phase = Phase.DELIVERING
            record.has_run = record.has_run and not isinstance(error, InvalidRequest | InvalidWorkflow)
            record.timings = error.timings if record.has_run else None
            try:
                undelivered = self._deliver(record, delivery, tuple(error.outputs), call)
            except DeliveryFailed as failure:  # of the list: the outputs themselves are stored
                record.warnings.append(failure.message)
            else:
                record.warnings += [f"not delivered: {output}" for output in undelivered]
            if isinstance(error, Canceled) and running.stop_error not in (None, error):
                raise running.stop_error from error
            raise
        finally:
            record.engine = self._engine.engine or None
        running.phase = Phase.DELIVERING
        record.timings = execution.timings
        record.warnings += execution.warnings
        undelivered = self._deliver(record, delivery, execution.outputs, call)
        if undelivered:
            raise delivery_error(undelivered, of=len(execution.outputs))

    @contextmanager
    def _shown(self, brought: Sequence[Shown], record: JobRecord, running: RunningJob) -> Iterator[None]:
        """Let ComfyUI see what the job has brought, and nothing of another owner, until the end of the block."""

        def check() -> None:
            running.check()
            if time.monotonic() >= record.latest:
                raise DeadlineExceeded("another process had ComfyUI's folders until the job's time was over.")

        with self._engine.hold_folders(check, owner=running.owner), ExitStack() as shown:
            for one in brought:
                shown.callback(one.release)
                one.show(record.deadline)
            yield

    @contextmanager
    def _my_turn(self, record: JobRecord, running: RunningJob) -> Iterator[_Limits]:
        """Wait for the job's turn, and yield how long the engine may take; waiting for others is not of its time."""
        left_s, waited_from = record.deadline - time.monotonic(), time.monotonic()
        try:
            with self._jobs.turn(running, until=record.latest) as is_first:
                record.waited_ms = round((time.monotonic() - waited_from) * 1000)
                traced.add_turn(record.waited_ms)
                running.phase = Phase.EXECUTING
                running.check()
                record.has_run = True
                record.started_at = datetime.now(UTC)
                at_most_s = record.latest - time.monotonic()
                if is_first:
                    yield {"deadline_s": min(left_s, at_most_s)}
                else:
                    yield {"deadline_s": at_most_s, "execution_s": left_s}
        except DeadlineExceeded:
            if not record.has_run:
                record.is_cut_short = record.shares_time = True
            raise

    def _deliver(self, record: JobRecord, delivery: Delivery, made: tuple[Made, ...], call: Call) -> list[Undelivered]:
        begun = time.monotonic()
        timeout_s = min(MAX_DELIVERY_S, max(RESULT_RESERVE_S, call.remaining_s() - RESULT_RESERVE_S))
        with tracing.span("finish delivery"):
            record.delivered, undelivered = delivery.finish(made, timeout_s=timeout_s)
        call.observer.see_all_delivered()
        if record.result is not None and len(record.delivered) > record.most_listed:
            record.outputs_uri = delivery.write_list([delivered.output for delivered in record.delivered])
        record.delivering_ms = round((time.monotonic() - begun) * 1000)
        return undelivered


def _check_own(record: JobRecord, standing: Job) -> None:
    """Raise InvalidRequest if the result that stands is of another request. It stays; there is no place for ours."""
    if record.answered(standing) is standing:
        return
    place = f" ({record.result.address})" if record.result is not None else ""
    record.result = None
    raise InvalidRequest(
        f"the job_id {record.job_id!r} has been used for another request, whose result stands{place}: choose another, "
        "or leave it out."
    )
