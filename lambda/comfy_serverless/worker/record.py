"""Notes what is known about a job while it runs, makes its document, and logs how it ended."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless import tracing
from comfy_serverless.errors import ComfyError, DeadlineExceeded, DeliveryFailed, InternalError
from comfy_serverless.jobs.document import (
    RETENTION,
    Job,
    JobError,
    JobUrls,
    Progress,
    clean,
    first_warnings,
    longest_nodes,
    status_of,
    worked_s,
)
from comfy_serverless.jobs.extra_data import keys_in, without_keys
from comfy_serverless.jobs.keys import OUTPUTS_NAME, RESULT_NAME
from comfy_serverless.jobs.prices import Prices, usd
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.run_log import log_address, log_content
from comfy_serverless.observability import log
from comfy_serverless.redaction import redacted
from comfy_serverless.setting_values import KeepLogs

if TYPE_CHECKING:
    from comfy_serverless.connector.facts import Timings
    from comfy_serverless.connector.progress import Progress as EngineProgress
    from comfy_serverless.jobs.result_file import ResultFile, StoredResult
    from comfy_serverless.worker.delivery import Delivered

_QUERY = re.compile(r"""(\bhttps?://[^\s?'"<>]*)\?[^\s'"<>]+""", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class JobRecord:
    """The notes of one run.

    Attributes:
        release_version: of this worker's image; "" if it does not say.
        extra_data: given to the engine and written nowhere: it may hold a key.
        result: where the document is kept; None without a bucket.
        home: where it is kept if that bucket refuses it: in OUTPUT_BUCKET; None without one.
        replaces: the stored outcome of an earlier try that this one takes the place of.
        has_run: whether the engine was given the workflow, and took it.
        is_cut_short: whether the invocation leaves it less time than it may take.
        shares_time: whether other jobs of the same invocation came before it.
        deadline: when it must be over, on the monotonic clock, if it need not wait for other jobs here.
        latest: when it must be over, however long it had to wait: this process may be cut off then.
        prepared_ms: how long it took until the engine could be given the workflow.
        steps_ms: how long it waited for its models, and for its other inputs, by the names in `timings_ms`.
        prices: what the operator says that jobs cost.
        waited_ms: how long other jobs of this worker had the engine then.
        most_listed: how many outputs the document lists, if the others are stored.
        outputs_uri: where all outputs are listed, if they are more than that.
        delivering_ms: how long uploads took after the engine was done.
        log_lines: the last that ComfyUI wrote during the run.
        keep_logs: of which jobs they are kept.
        tidy: removes what the job has left in the engine.
    """

    job_id: str
    metadata: dict[str, str]
    release_version: str = ""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    begun: float = field(default_factory=time.monotonic)
    extra_data: Mapping[str, Any] | None = field(default=None, repr=False)
    request: JobRequest | None = None
    result: ResultFile | None = None
    home: ResultFile | None = None
    replaces: StoredResult | None = None
    has_run: bool = False
    is_cut_short: bool = False
    shares_time: bool = False
    started_at: datetime | None = None
    deadline: float = math.inf
    latest: float = math.inf
    prepared_ms: int = 0
    steps_ms: dict[str, int] = field(default_factory=dict)
    waited_ms: int = 0
    prices: Prices = field(default_factory=Prices)
    timings: Timings | None = None
    delivering_ms: int = 0
    progress: EngineProgress | None = None
    delivered: list[Delivered] = field(default_factory=list)
    most_listed: int = 1000
    outputs_uri: str | None = None
    warnings: list[str] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    engine: str | None = None
    log_lines: Sequence[str] = ()
    keep_logs: KeepLogs = KeepLogs.FAILED
    tidy: Callable[[], None] = lambda: None

    def elapsed_ms(self) -> int:
        """Milliseconds since the job was taken up."""
        return round((time.monotonic() - self.begun) * 1000)

    def write_log(self, error: ComfyError | None) -> None:
        """Keep what ComfyUI wrote beside the result, if it is to be kept. Never raises: a failure is logged."""
        kept = {KeepLogs.ALL: True, KeepLogs.FAILED: error is not None, KeepLogs.NONE: False}[self.keep_logs]
        is_stale = self.replaces is not None  # that of an earlier try stands there
        if self.result is None or not (is_stale or (kept and self.log_lines)):
            return
        bucket, key = log_address(self.result.address)
        body = log_content(self.log_lines if kept else (), extra_data=self.extra_data)
        try:
            self.result.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="text/plain; charset=utf-8")
        except (ClientError, BotoCoreError):
            log.warning("the job's log could not be kept", exc_info=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note how long the block takes, however it ends."""
        begun = time.monotonic()
        try:
            with tracing.span(name):
                yield
        finally:
            self.steps_ms[name] = round((time.monotonic() - begun) * 1000)

    def other_place(self) -> ResultFile | None:
        """Where the document goes if the bucket that the request names refuses it; None if that is OUTPUT_BUCKET."""
        if self.home is None or self.result is None or self.home.address.bucket == self.result.address.bucket:
            return None
        return self.home

    def write_at_home(self, error: ComfyError) -> bool:
        """Write how the job ended into OUTPUT_BUCKET, if its own bucket is another. Returns whether it stands there."""
        place = self.other_place()
        if place is None:
            return False
        self.result = place
        try:
            place.write(self.document(error))
        except DeliveryFailed as failure:
            log.warning("nor could it be written into OUTPUT_BUCKET", reason=failure.message)
            return False
        return True

    def is_retryable(self, error: ComfyError) -> bool:
        """Whether the same request may succeed when it is sent again.

        A job for which the invocation was too short may, if other jobs or the start of the engine had used it up.
        """
        if isinstance(error, DeadlineExceeded) and self.is_cut_short:
            return self.shares_time or self.progress is None
        return error.retryable

    def _shown(self, error: ComfyError, keys: Sequence[str]) -> JobError:
        """The reportable form of a failure, without the keys that the caller has given to nodes."""
        retryable = self.is_retryable(error)
        if not keys:
            return JobError.of(error, retryable=retryable)
        # Also before long texts are cut, which may leave half a key. What is deeper inside is looked at afterwards.
        details = {name: without_keys(one, keys) if _is_text(one) else one for name, one in error.details.items()}
        bare = JobError.of(ComfyError(without_keys(error.message, keys), details=details), retryable=retryable)
        shown = without_keys(bare.model_dump(), keys)
        return JobError.model_validate({**shown, "code": error.code})  # no node has written that

    def document(self, error: ComfyError | None) -> Job:
        """The job as it ended, now."""
        timings, keys = self._timings(), keys_in(self.extra_data)
        outputs = tuple(delivered.output for delivered in self.delivered)
        listed = outputs if self.result is None else outputs[: self.most_listed]
        warnings = [*self._about_unlisted(len(listed), of=len(outputs)), *self.warnings]
        return Job(
            id=self.job_id,
            status=status_of(error),
            created_at=self.created_at,
            started_at=self.started_at,
            completed_at=datetime.now(UTC),
            expires_at=self.created_at + RETENTION,
            progress=Progress.model_validate(self.progress) if self.progress else None,
            outputs=listed,
            error=self._shown(error, keys) if error else None,
            metrics={
                "queue_ms": timings.get("queued"),
                "execution_ms": timings.get("executing"),
                "gpu_memory_peak_mb": self.timings.gpu_memory_peak_mb if self.timings else None,
                "output_bytes": sum(output.size_bytes for output in outputs),
            },
            urls=JobUrls.of(self.job_id),
            warnings=tuple(map(clean, first_warnings(without_keys(warnings, keys)))),
            seeds=self.seeds,
            engine=self.engine,
            release_version=self.release_version or None,
            timings_ms=timings,
            nodes_ms=longest_nodes(self.timings.node_ms) if self.timings else {},
            cost_usd=self._cost_usd(timings),
            metadata=self.metadata,
            result_uri=str(self.result.address) if self.result else None,
            outputs_total=len(outputs) if len(outputs) > len(listed) else None,
            outputs_uri=self.outputs_uri,
            request_sha256=self.request.digest() if self.request else None,
        )

    def answered(self, standing: Job) -> Job:
        """The stored outcome of a job, as the answer to this request: it says so if it was asked for something else."""
        return standing.answering(self.request.digest() if self.request else None)

    def _about_unlisted(self, listed: int, *, of: int) -> list[str]:
        if listed == of:
            return []
        where = f"all are listed in {OUTPUTS_NAME} beside {RESULT_NAME}" if self.outputs_uri else "all are stored"
        return [f"the first {listed} of {of} outputs are listed here (MAX_LISTED_OUTPUTS): {where}"]

    def _cost_usd(self, timings: Mapping[str, int]) -> float | None:
        cost = self.prices.cost_nanousd(worked_s(timings))
        return None if cost is None else usd(cost)

    def _timings(self) -> dict[str, int]:
        """The times a job took. The overhead is all that is neither queueing nor execution."""
        total = self.elapsed_ms()
        if self.timings is None:
            return {**self.steps_ms, "total": total}
        queued = self.waited_ms + self.timings.queued_ms
        engine = queued + self.timings.executing_ms
        return {
            "preparing": self.prepared_ms,
            **self.steps_ms,
            "queued": queued,
            "executing": self.timings.executing_ms,
            "loading": self.timings.loading_ms,
            "delivering": self.delivering_ms,
            "overhead": max(0, total - engine),
            "total": total,
        }


def _is_text(value: object) -> bool:
    """Whether this is a text, or a list of texts, as a traceback is."""
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value))


def log_job(job: Job) -> None:
    """Log how a job ended, in one line."""
    facts = {
        "status": job.status.value,
        "outputs": job.outputs_made,
        "output_bytes": sum(output.size_bytes for output in job.outputs),
        "timings_ms": job.timings_ms,
        "result_uri": job.result_uri,
    }
    if job.error is None:
        log.info("job finished", extra=facts)
    else:
        # Without the queries of web addresses: nodes that fetch something name their links whole.
        reason = _QUERY.sub(r"\1?…", job.error.message)
        failure = {"code": job.error.code, "reason": reason, "retryable": job.error.retryable}
        log.warning("job failed", extra={**facts, **failure})


def own_mistake(failure: Exception) -> InternalError:
    """Log a failure of our own code, and return the error that the job ends with."""
    log.exception("bug: the job failed in our own code")
    error = InternalError(redacted(f"{type(failure).__name__}: {failure}"))
    error.__cause__ = failure
    return error
