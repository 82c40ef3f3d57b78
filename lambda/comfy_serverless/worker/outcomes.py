"""How a job came to a worker, how it ended, and whether that is written down.

What is written where a job fails:

- A failure that sending the same request again may cure (`retryable`: the engine died, S3 was away) is not written
  down, so that the same id can run again. At the last delivery of a queue's message it is, because no caller hears of
  it and no queue sends it again; the same id runs again all the same if it should come.
- Any other failure of a job that ran is written to `result.json`: the same id never runs twice.
- A request that was refused before it ran is written down only if no caller hears the answer (an S3 drop, an SQS
  message); a caller who hears it corrects the request and sends it again, with the same id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comfy_serverless import tracing
from comfy_serverless.errors import ComfyError, DeliveryFailed, DeliveryRefused, WorkerOutdated
from comfy_serverless.jobs.document import Job
from comfy_serverless.jobs.request import ReplyMode
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.observability import log
from comfy_serverless.worker.ahead import ReadStanding
from comfy_serverless.worker.protocols import NobodyWatches, Observer
from comfy_serverless.worker.record import JobRecord, log_job

if TYPE_CHECKING:
    from comfy_serverless.connector.outputs import Output as Made


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a job came to us.

    Attributes:
        remaining_s: returns the seconds until this process may be cut off.
        is_heard: whether a caller waits for the answer; otherwise only `result.json` says how the job ended.
        is_first: whether the job has had the whole time of this invocation, or others before it used some up.
        is_last_try: whether no queue and no caretaker sends the job again.
        observer: follows the job while it runs.
        standing: reads the result that may stand already.
        is_line: whether it is a line of a batch: nobody reads the warning that a result is another request's.
    """

    remaining_s: Callable[[], float] = lambda: math.inf
    is_heard: bool = True
    is_first: bool = True
    is_last_try: bool = False
    observer: Observer = field(default_factory=NobodyWatches)
    standing: ReadStanding = ResultFile.read_before_work
    is_line: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended, and what is needed to answer it.

    Attributes:
        job: the document, without links.
        error: why it failed; None for success, and for a job that was answered from its stored result.
        has_run: whether the engine ran the workflow, this time.
        is_recorded: whether `result.json` has the outcome.
        reply: how the caller wants the outputs.
        made: where the bytes of outputs can be read on this machine, by output id, until `release`.
        release: removes what was delivered from the engine, in the background, once the reply is made. Idempotent.
    """

    job: Job
    error: ComfyError | None
    has_run: bool
    is_recorded: bool
    reply: ReplyMode = "auto"
    made: Mapping[str, Made] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None


def conclude(record: JobRecord, error: ComfyError | None, call: Call) -> Outcome:
    """Make the document, and write it down if this failure or success is the last word."""
    job = record.document(error)
    is_recorded = False
    if record.result is not None and _is_last_word(record, error, call):
        record.write_log(error)  # first: who sees the end may ask for it
        try:
            with tracing.span("store result"):
                standing = record.result.write(job, replaces=record.replaces)
        except DeliveryFailed as failure:
            log.warning("the outcome could not be written down", reason=failure.message)
            error = error or failure
            if _is_last_word(record, error, call):
                is_recorded = record.write_at_home(error)
            if isinstance(error, DeliveryRefused) and not is_recorded:
                # A refusal is no end as long as it is written nowhere.
                error = DeliveryFailed(error.message, details=error.details)
            job = record.document(error)
        else:
            is_recorded = True
            if standing is not job:
                log.warning("another worker has run the same job: its result stands")
                return outcome_of(record, record.answered(standing), error=None, is_recorded=True)
    if not is_recorded:
        job = job.model_copy(update={"result_uri": None})
    log_job(job)
    return outcome_of(record, job, error=error, is_recorded=is_recorded)


def outcome_of(record: JobRecord, job: Job, *, error: ComfyError | None, is_recorded: bool) -> Outcome:
    """How this run of the job ended, told with this document."""
    return Outcome(
        job=job,
        error=error,
        has_run=record.has_run,
        is_recorded=is_recorded,
        reply=record.request.reply if record.request else "auto",
        made={delivered.output.id: delivered.made for delivered in record.delivered},
        release=record.tidy,
    )


def _is_last_word(record: JobRecord, error: ComfyError | None, call: Call) -> bool:
    if error is None:
        return True
    if record.is_retryable(error):
        return call.is_last_try and not isinstance(error, WorkerOutdated)
    return record.has_run or not call.is_heard
