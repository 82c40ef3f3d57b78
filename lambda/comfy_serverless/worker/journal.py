"""A worker's part in the table: it takes a job, reports its progress, learns of a cancel, and writes how it ended.

    begin ──► reports, at most two writes a second, from a separate thread ──► finish, or give back
                 └─ their answers carry the cancel request

The engine never waits for the table: reports are left here, and the thread writes them. Once all outputs are delivered
it writes those that are left at once, beside the worker, which writes `result.json` meanwhile.
"""

from __future__ import annotations

import base64
import contextvars
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.errors import Canceled, ComfyError, WorkerOutdated, WorkerStopped
from comfy_serverless.files import type_of_head
from comfy_serverless.jobs.document import Job, JobStatus, Output, Progress
from comfy_serverless.observability import about, emit_wait, log
from comfy_serverless.redaction import redacted
from comfy_serverless.table.care import is_too_old, waited_s
from comfy_serverless.table.job_state import Claim, JobState, LeaseLost
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.waiting_jobs import IN_QUEUE_S
from comfy_serverless.worker import traced

if TYPE_CHECKING:
    from comfy_serverless.aws.sqs import WebhookQueue
    from comfy_serverless.connector.progress import Progress as EngineProgress
    from comfy_serverless.jobs.message import JobMessage
    from comfy_serverless.table.workers import Workers
    from comfy_serverless.worker.outcomes import Call, Outcome
    from comfy_serverless.worker.worker import Worker

#: The time between two writes of one job.
TICK_S = 0.5
#: Without news a sign of life is written this often: a cancel request may wait this long.
SIGN_OF_LIFE_S = 2.0
PREVIEW_EVERY_S = 2.0
#: Larger previews are left out: an item has at most 400 KB.
MAX_PREVIEW_BYTES = 200_000
#: How long the end of a job is tried to be written, and how much of the invocation's time is kept back, in seconds.
CONCLUDE_FOR_S, CONCLUDE_RESERVE_S = 20.0, 1.0
#: The delay of a job that failed before it is sent to the workers again, for each time it has been run, in seconds.
AGAIN_AFTER_S = 5
#: When a job of a newer release is sent again, in seconds: a deployment may take some minutes. It doubles each time.
OUTDATED_AFTER_S, OUTDATED_AFTER_MOST_S = 300, 3600
#: How long a job that the caretaker cannot send waits here, and then in a queue in seconds.
#: The wait in the queue is a quarter of the time it has waited before, and no longer than SQS delays a message.
OUTDATED_PAUSE_S, OUTDATED_DELAY_S, OUTDATED_DELAY_MOST_S = 10.0, 30, 900

_AWS_FAILURES = (ClientError, BotoCoreError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Standing:
    """A job that is not ours to run: it has ended, was canceled or held back, or runs elsewhere.

    `state` is as the table has it, without outputs; None if the table does not have the job, or was not asked.
    """

    state: JobState | None = None


class Unrecorded(Exception):
    """The end of a job could not be written into the table. Its message must come again, for another try."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The table and the queues, as a worker uses them.

    Attributes:
        hold_back: keeps a job of paused or canceled batches from being run; returns whether it did
            (`batches.holding`).
        most_outputs: how many outputs of a run are reported while it lasts; its document decides which ones stay.
    """

    jobs: JobStore
    workers: Workers
    webhook_queue: WebhookQueue
    hold_back: Callable[[JobMessage], bool] = lambda _source: False
    most_outputs: int = 1000

    def run(self, worker: Worker, source: JobMessage, call: Call) -> Outcome | Standing:
        """Run a job whose message has come, if it is still to run, and write down how it ended.

        Raises Unrecorded if the table does not answer.
        """
        with about(source.job_id):
            return self._run(worker, source, call)

    def _run(self, worker: Worker, source: JobMessage, call: Call) -> Outcome | Standing:
        run_id = str(uuid.uuid4())
        try:
            # If its batch is paused or canceled, the job waits without a message, or has ended.
            if self.hold_back(source):
                return Standing()
            standing = worker.ahead.look(source)
            begun = self.jobs.begin(source.job_id, run=run_id)
        except _AWS_FAILURES as error:
            raise Unrecorded(
                f"job {source.job_id} was not begun: the table does not answer ({redacted(error)})"
            ) from error
        if begun.state is None or begun.claim is Claim.LEAVE:
            log.info("the job is not ours to run")
            return Standing(begun.state)
        if begun.claim is Claim.CANCELED:
            if self.jobs.fail(begun.state, Canceled("the job was canceled before it was run again")):
                self._call_webhook(begun.state)
            return Standing()
        if begun.state.runs == 1:  # a later run has waited for the end of the one before
            emit_wait(waited_s(begun.state), is_batch=begun.state.is_of_batch)
        traced.add_wait(begun.state)
        log.info("the job is begun", run=begun.state.runs)
        with Reporter(self.jobs, begun.state, run_id=run_id, most_outputs=self.most_outputs) as reporter:
            its_call = replace(
                call, observer=reporter, is_last_try=begun.is_last, standing=standing, is_line=begun.state.is_of_batch
            )
            outcome = worker.run(source, its_call)
            try:
                # The reporter goes on meanwhile: the job stays ours however long this takes.
                self._conclude(source, outcome, reporter, is_last=begun.is_last, remaining_s=call.remaining_s)
            except BaseException:
                outcome.release()
                raise
        return outcome

    def _conclude(
        self,
        source: JobMessage,
        outcome: Outcome,
        reporter: Reporter,
        *,
        is_last: bool,
        remaining_s: Callable[[], float],
    ) -> None:
        """Write down how a run ended, as patiently as the time allows.

        Raises Unrecorded if that fails. The caretaker then finds the outcome in `result.json`.
        """
        until = time.monotonic() + min(CONCLUDE_FOR_S, remaining_s() - CONCLUDE_RESERVE_S)
        while not reporter.is_lost:
            try:
                if isinstance(outcome.error, WorkerOutdated) and not is_too_old(reporter.state):
                    self._leave_to_newer(reporter, source, remaining_s=remaining_s)
                elif self._is_to_run_again(outcome, is_last=is_last):
                    self._give_back(reporter.state, source, outcome.error, run_id=reporter.run_id)
                else:
                    self._finish(outcome.job, reporter)
            except _AWS_FAILURES as error:
                if time.monotonic() + TICK_S > until:
                    raise Unrecorded(
                        f"the end of job {source.job_id} could not be written down ({redacted(error)})"
                    ) from error
                log.warning("the table did not take how the job ended: again", exc_info=True)
                time.sleep(TICK_S)
            else:
                return
        log.warning("another worker has taken the job over: its outcome counts")

    @staticmethod
    def _is_to_run_again(outcome: Outcome, *, is_last: bool) -> bool:
        job = outcome.job
        if job.error is None or not job.error.retryable or job.status is JobStatus.CANCELED:
            return False
        if isinstance(outcome.error, WorkerOutdated):
            return False  # it has waited for a newer worker for as long as a queue keeps a message
        return not is_last or isinstance(outcome.error, WorkerStopped)

    def _finish(self, job: Job, reporter: Reporter) -> None:
        state = reporter.state
        places, run = reporter.commit(job.outputs), reporter.run_id
        is_ours = self.jobs.finish(
            state.id, job, run=run, webhook=state.has_webhook, places=places, account=state.account
        )
        if is_ours:
            self._call_webhook(state)

    def _give_back(self, state: JobState, source: JobMessage, error: ComfyError | None, *, run_id: str) -> None:
        counts = not isinstance(error, WorkerStopped)
        if self.jobs.give_back(state.id, run=run_id, counts=counts):
            delay_s = AGAIN_AFTER_S * state.runs if counts else 0
            self.workers.send(source, delay_s=delay_s, is_batch=state.is_of_batch)
            self.jobs.dispatched(state.id, is_batch=state.is_of_batch)
            log.warning("the job is run again", job_id=state.id, runs=state.runs, code=error.code if error else None)

    def _leave_to_newer(self, reporter: Reporter, source: JobMessage, *, remaining_s: Callable[[], float]) -> None:
        """Give back a job that a newer release has written. That does not count as one of its runs.

        The caretaker sends it again. If its message has data that is kept nowhere, we send it, after a pause.
        """
        state = reporter.state
        if source.extra_data:
            time.sleep(max(0.0, min(OUTDATED_PAUSE_S, remaining_s() - CONCLUDE_RESERVE_S)))
        after_s = min(OUTDATED_AFTER_S << min(state.sent_again, 6), OUTDATED_AFTER_MOST_S)
        is_ours = self.jobs.give_back(state.id, run=reporter.run_id, counts=False, for_s=after_s)
        if is_ours and source.extra_data:
            delay_s = min(max(OUTDATED_DELAY_S, int(waited_s(state) / 4)), OUTDATED_DELAY_MOST_S)
            self.workers.send(source, delay_s=delay_s, is_batch=state.is_of_batch)
            self.jobs.dispatched(state.id, is_batch=state.is_of_batch, for_s=delay_s + IN_QUEUE_S)
        log.error("the job waits for a newer worker: deploy the worker's image", job_id=state.id)

    def _call_webhook(self, state: JobState) -> None:
        if not state.has_webhook:
            return
        try:
            self.webhook_queue.send(state.id)
            self.jobs.webhook_sent(state.id)
        except _AWS_FAILURES:
            log.exception("the webhook was not sent for", job_id=state.id)  # the caretaker sends it


class Reporter:
    """Reports one run to the table, from its own thread, between `with` and the end of the block."""

    def __init__(self, jobs: JobStore, state: JobState, *, run_id: str, most_outputs: int) -> None:
        self.state = state
        self.run_id = run_id
        self._most_outputs = most_outputs
        self._jobs = jobs
        self._stop: Callable[[ComfyError], object] = lambda _error: None
        self._change = threading.Condition()
        self._progress: Progress | None = None
        self._preview: tuple[str, bytes] | None = None
        self._outputs: dict[str, tuple[int, Output]] = {}
        self._committed: dict[str, int] = {}
        self._telling = threading.Lock()
        self._is_hurried = False
        self._is_over = False
        self.is_lost = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._tell,), name="journal", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._is_over = True
            self._change.notify_all()
        # Not for longer: a report that hangs must not keep the next job waiting, and can no longer change anything.
        self._thread.join(timeout=TICK_S)

    def see_begin(self, stop: Callable[[ComfyError], object]) -> None:
        """Remember how to end the job."""
        self._stop = stop

    def see_progress(self, progress: EngineProgress) -> None:
        """Leave a snapshot to report; the newest counts."""
        with self._change:
            self._progress = Progress.model_validate(progress)
            if progress.preview is not None and len(progress.preview) <= MAX_PREVIEW_BYTES:
                self._preview = (progress.current_node or "", progress.preview)

    def see_output(self, output: Output) -> None:
        """Leave a delivered output to report at once, unless there are too many to be shown."""
        with self._change:
            if output.id not in self._committed and len(self._committed) >= self._most_outputs:
                return
            # If a second attempt made it anew, it takes the place of the first.
            place = self._committed.setdefault(output.id, len(self._committed))
            self._outputs[output.id] = (place, output)
            self._change.notify_all()

    def see_all_delivered(self) -> None:
        """Have the outputs that are left reported now: the job is about to end."""
        with self._change:
            self._is_hurried = True
            self._change.notify_all()

    def commit(self, outputs: tuple[Output, ...]) -> list[int]:
        """Write those outputs of the finished job that are not in the table yet, or not as they are now.

        Outputs that are being reported are waited for.

        Returns the outputs' places in the table, in their order; raises as AWS does if the table does not take them.
        """
        with self._change:
            for output in outputs:
                if output.id not in self._committed:
                    self._outputs[output.id] = (len(self._committed), output)
                    self._committed[output.id] = len(self._committed)
                elif output.id in self._outputs and self._outputs[output.id][1] != output:
                    self._outputs[output.id] = (self._committed[output.id], output)
        self._tell_outputs()
        return [self._committed[output.id] for output in outputs]

    def _tell(self) -> None:
        last_sign = last_preview = time.monotonic()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_over or (self._outputs and not self.is_lost), timeout=TICK_S)
                if self._is_over:
                    return
                self._is_hurried = False
            begun = time.monotonic()
            if self.is_lost:
                self._whatever_happens(self._stop_lost)  # again: the engine may not have heard it
                continue
            self._whatever_happens(self._tell_outputs)
            if self._preview is not None and begun - last_preview >= PREVIEW_EVERY_S:
                self._whatever_happens(self._tell_preview)
                last_preview = begun
            elif begun - last_sign >= (SIGN_OF_LIFE_S if self._progress is None else TICK_S / 2):
                self._whatever_happens(self._give_sign)
                last_sign = begun
            with self._change:
                left_s = TICK_S - (time.monotonic() - begun)
                self._change.wait_for(lambda: self._is_over or self._is_hurried, timeout=max(0.0, left_s))

    def _whatever_happens(self, tell: Callable[[], None]) -> None:
        """Write one report; a failure keeps neither other reports from being written nor the lease from ending."""
        try:
            tell()
        except LeaseLost:
            self.is_lost = True
            self._whatever_happens(self._stop_lost)
        except _AWS_FAILURES:
            log.warning("the table did not take a report", exc_info=True)  # the next one has it all
        except Exception:  # noqa: BLE001  (the job must stay ours)
            log.exception("bug: a report failed in our own code")

    def _stop_lost(self) -> None:
        # Not as canceled, which no caller has asked for: that would end this job for the worker that has it now.
        self._stop(WorkerStopped("the job is another worker's by now: this one had given no sign of life in time"))

    def _tell_outputs(self) -> None:
        with self._telling:
            with self._change:
                outputs = dict(self._outputs)
            if outputs:
                self._jobs.put_outputs(self.state, list(outputs.values()), run=self.run_id)
                with self._change:
                    left = self._outputs.items()
                    self._outputs = {key: output for key, output in left if outputs.get(key) is not output}

    def _tell_preview(self) -> None:
        with self._change:
            preview, self._preview = self._preview, None
        if preview is not None:
            node_id, content = preview
            self._jobs.put_preview(
                self.state.id,
                node_id=node_id,
                content_type=type_of_head(content) or "image/jpeg",
                data_base64=base64.b64encode(content).decode("ascii"),
            )

    def _give_sign(self) -> None:
        with self._change:
            progress, self._progress = self._progress, None
        status = self._jobs.report(self.state.id, run=self.run_id, progress=progress)
        if status is JobStatus.CANCELING:
            self._stop(Canceled("the job was canceled on request"))
