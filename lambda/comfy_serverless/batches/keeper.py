"""Looks after batches: has their manifests read, sends parked jobs, and reports when all jobs have ended.

    batch ──► ranges ──► jobs ──► settled: up to here every job has ended ──► parts of the report ──► report

Everything may come twice and be cut off anywhere: what is done is recognised, and only the rest is done then.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from comfy_serverless.aws.dynamodb import MAX_READS
from comfy_serverless.aws.s3 import S3Address, error_code
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.batches.batch import ADVANCE_EVERY_S, Batch, BatchStatus
from comfy_serverless.batches.fates import BadBetween, Fate, Fates, fates
from comfy_serverless.batches.orders import Order, machine_input
from comfy_serverless.batches.progress import ENDED, counts_of
from comfy_serverless.batches.ranges import Range, ranges_for
from comfy_serverless.batches.reading import CHUNK_LINES, THREADS, BatchReader
from comfy_serverless.batches.report import PART_FORM, write_part, write_report
from comfy_serverless.batches.taking import take, take_again
from comfy_serverless.batches.tally import UNTOUCHED_IN_A_ROW, Tally, is_of_another_line
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.jobs.reserved import Reserved, owner_prefix
from comfy_serverless.observability import log

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

    from comfy_serverless.batches.budgets import BatchBudgets
    from comfy_serverless.errors import ComfyError
    from comfy_serverless.table.job_state import JobState

#: How often a caller that advances a batch says that it goes on, in seconds.
RENEW_EVERY_S = 20.0
#: Lines behind the first open ones that are counted in one round: 500 reads of the table.
MAX_AHEAD_LINES = 50_000
#: How long the lines of an upload may be taken before somebody else begins anew, in seconds: the time of a function.
MAX_TAKE_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper(BatchReader):
    """Looks after the batches of one table.

    Attributes:
        own_queue: where orders to ourselves go.
        output_bucket: where reports go.
        step_functions: starts the state machine that reads large manifests; None if there is none.
        budgets: those of keys that batches came with; None where there are none.
    """

    own_queue: JobQueue
    output_bucket: str
    step_functions: SFNClient | None = None
    budgets: BatchBudgets | None = None

    # Ranges are read.

    def begin(self, batch: Batch) -> None:
        """Write a batch, and have its ranges read."""
        ranges = ranges_for(batch.size_bytes)
        self.batches.create(batch, ranges)
        self._have_read(batch, [start for start, _ in ranges])

    def _take(self, batch: Batch) -> None:
        """Take the lines of a batch that came to the API as an upload, or that are to be run again; have them read."""
        # Nobody else need begin it meanwhile; if this is cut off, somebody will.
        self.batches.extend(batch, 0, for_s=MAX_TAKE_S)
        copy = S3Address.parse(batch.manifest)
        source = S3Address.parse(str(batch.take_from))
        try:
            if batch.only is None:
                # Packed or not, an owner's manifest has as many bytes as a file of his may have.
                most_bytes = self.settings.max_upload_bytes
                size_bytes = take(self.s3, source, copy, called=f"the manifest {batch.called}", most_bytes=most_bytes)
            else:
                size_bytes = take_again(self.s3, source, copy, only=batch.only)
        except (InvalidRequest, MissingAsset) as error:
            self._end(batch, [], problem=error)
            return
        ranges = ranges_for(size_bytes)
        taken = self.batches.mark_taken(batch, size_bytes, ranges)
        if taken is not None and taken.status is BatchStatus.RUNNING:
            self._have_read(taken, [start for start, _ in ranges])

    def _have_read(self, batch: Batch, starts: list[int]) -> None:
        machine, is_large = self.settings.batch_state_machine, batch.size_bytes >= self.settings.batch_map_bytes
        if machine is not None and self.step_functions is not None and is_large:
            order = machine_input(batch.id, starts)
            begun = self.step_functions.start_execution(stateMachineArn=machine, input=order)
            self.batches.read_by(batch.id, begun["executionArn"])
            return
        self.own_queue.send_many([(batch.id, Order(batch_id=batch.id, start=start).to_text()) for start in starts])

    def _is_being_read(self, batch: Batch) -> bool:
        """Whether abandoned ranges may only be waiting: in our queue, or in the state machine."""
        if self.own_queue.depth() > 0:
            return True
        if batch.execution is None or self.step_functions is None:
            return False
        try:
            execution = self.step_functions.describe_execution(executionArn=batch.execution)
        except ClientError as error:
            if error_code(error) == "ExecutionDoesNotExist":
                return False
            raise
        return execution["status"] == "RUNNING"

    def read(self, batch_id: str, start: int, *, until: float, now: Callable[[], float] = time.monotonic) -> bool:
        """Go on reading a range; returns whether nothing is left of it for us."""
        batch = self.batches.get(batch_id)
        part = self.batches.range_at(batch_id, start)
        if batch is None or part is None or part.is_read or batch.status is not BatchStatus.RUNNING:
            if part is not None and not part.is_read and batch is not None and batch.status is BatchStatus.PAUSED:
                self.batches.leave(batch_id, part)
            return True
        if batch.cut is not None and not self._has_jobs_ahead(batch, part):
            self.batches.cut_range(batch_id, part)
            return True
        return self.read_range(batch, part, until=until, now=now)

    def _has_jobs_ahead(self, batch: Batch, part: Range) -> bool:
        """Whether lines of the next chunk are jobs of this batch already: whoever read it was cut off before its end.

        They will run, so they must be in the report: that chunk is read again, though no other is.
        """
        ahead = self._fates(batch, part, start=part.offset)
        return any(
            fate.state is not None and batch.id in fate.state.batches and not is_of_another_line(batch, fate)
            for some in itertools.islice(ahead, -(-CHUNK_LINES // MAX_READS))
            for fate in some.lines
        )

    def read_or_pass_on(self, batch_id: str, start: int, *, until: float) -> None:
        """Read a range, and order the rest if the time does not allow it.

        A range of `RANGE_BYTES` takes few invocations. That matters: Lambda counts how often the work of one function
        goes back to it through a queue, and stops it after some 16 times (`RecursiveLoop: Terminate`, the alarm
        `Recursion`). The caretaker's orders begin a count of their own.
        """
        if not self.read(batch_id, start, until=until):
            self.own_queue.send(Order(batch_id=batch_id, start=start).to_text(), tenant=batch_id)

    # Jobs end, and are reported.

    def advance(self, batch_id: str, *, until: float, now: Callable[[], float] = time.monotonic) -> None:
        """Have the rest of a batch read, and report on what has ended. One caller does so at a time."""
        batch = self.batches.get(batch_id)
        if batch is None or batch.report is not None or not self.batches.begin_advance(batch.id):
            return
        try:
            self._advance(batch, until=until, now=now)
        finally:
            self.batches.end_advance(batch.id)

    def _advance(self, batch: Batch, *, until: float, now: Callable[[], float]) -> None:
        if batch.take_from is not None:
            batch = self._paused_for_its_budget(batch)
            if batch.status is not BatchStatus.CANCELED:
                self._take(batch)
                return  # the next look counts
            batch = self.batches.mark_taken(batch, 0, []) or batch
        ranges = self.batches.ranges(batch.id)
        self._read_on(batch, ranges)
        settled = self._settle(batch, ranges, until=until, now=now)
        if settled < batch.size_bytes:  # else nothing is left that could cost
            batch = self._paused_for_its_budget(batch)
        for part in ranges:
            if part.part_form == PART_FORM:
                continue
            if part.end > settled or now() >= until:
                return
            open_at = write_part(
                self.s3, self.jobs, batch, part, reserved=Reserved.of(self.settings), bad_between=self._bad_in(batch)
            )
            if open_at is not None:  # a job was forgotten meanwhile: what ends there is seen the next time
                self.batches.mark_counted(batch.id, replace(part, ended=0, ends={}, ahead={}))
                self.batches.extend(batch, open_at)
                return
            self.batches.mark_reported(batch.id, part, form=PART_FORM)
            self.batches.extend(batch, settled)
        if settled < batch.size_bytes:
            return
        self.batches.extend(batch, settled, for_s=max(ADVANCE_EVERY_S, len(ranges)))
        self._end(batch, ranges)

    def _paused_for_its_budget(self, batch: Batch) -> Batch:
        """Pause a running batch whose key has cost what it may. Returns it as it is then."""
        if batch.status is not BatchStatus.RUNNING or self.budgets is None:
            return batch
        why = self.budgets.reason_to_pause(batch)
        if why is None:
            return batch
        if self.batches.set_status(batch.id, BatchStatus.PAUSED, was=[BatchStatus.RUNNING], why=why):
            log.warning("a batch is paused: the budget of its key is used up", batch=batch.id, owner=batch.owner)
        return self.batches.get(batch.id) or batch

    def _end(self, batch: Batch, ranges: list[Range], *, problem: ComfyError | None = None) -> None:
        """Write the report, where the owner of an owner's batch has his results."""
        settings = self.settings
        prefix = owner_prefix(batch.owner, settings) if batch.is_owned else settings.output_prefix
        written = write_report(self.s3, batch, ranges, bucket=self.output_bucket, prefix=prefix, problem=problem)
        if self.batches.complete(batch, written.address, status=written.status, summary=written.summary):
            log.info("the batch has ended", batch=batch.id, status=written.status.value, report=written.address)

    def _read_on(self, batch: Batch, ranges: list[Range]) -> None:
        """Have abandoned ranges read: their message is lost, or the batch was paused."""
        abandoned = [part for part in ranges if part.is_abandoned]
        if abandoned and batch.status is BatchStatus.RUNNING and not self._is_being_read(batch):
            self._have_read(batch, [part.start for part in abandoned])
            with ThreadPoolExecutor(THREADS, thread_name_prefix="order") as pool:
                list(pool.map(lambda part: self.batches.mark_ordered(batch.id, part), abandoned))

    def _settle(self, batch: Batch, ranges: list[Range], *, until: float, now: Callable[[], float]) -> int:
        """Count the lines of all ranges; returns the offset of the first one whose job has not ended, or the end.

        In a canceled batch, jobs that no worker has begun end here.
        """
        ended_then = sum(counts_of(ranges)[name] for name in ENDED)
        is_canceled = batch.status is BatchStatus.CANCELED  # then every line is looked at
        settled, is_first, renewed, ahead, untouched = 0, True, now(), 0, 0
        for part in ranges:
            counted = part
            is_enough = ahead >= MAX_AHEAD_LINES or untouched >= UNTOUCHED_IN_A_ROW
            if self._is_to_count(batch, part) and not is_enough and now() < until:
                tally = self._count(batch, part, until=until, now=now)
                ahead += tally.ahead_seen
                untouched = untouched + 1 if tally.is_untouched and not is_canceled else 0
                counted = tally.put_into(part)
                if counted != part:
                    self.batches.mark_counted(batch.id, counted)
                if is_first and tally.first_open is not None:
                    self._help(batch, part, tally.first_open)
                if now() - renewed >= RENEW_EVERY_S:
                    self.batches.extend(batch, max(batch.settled, settled))
                    renewed = now()
            if is_first:
                settled, is_first = max(settled, counted.settled), counted.settled >= part.end
        if is_first:
            settled = batch.size_bytes
        self.batches.extend(batch, settled)
        self.batches.counted(batch, batch.counting.next_before(ended_then))
        return settled

    @staticmethod
    def _is_to_count(batch: Batch, part: Range) -> bool:
        """Whether anything may have changed for its lines: some are read, and not all had ended."""
        return part.ended < part.end and (part.offset > part.start or batch.status is BatchStatus.CANCELED)

    def _count(self, batch: Batch, part: Range, *, until: float, now: Callable[[], float]) -> Tally:
        tally, renewed = Tally.of(batch, part), now()
        is_canceled = batch.status is BatchStatus.CANCELED
        limit = part.end if is_canceled else min(part.offset, part.end)
        for chunk in self._fates(batch, part, start=part.settled, end=limit):
            just_ended = self._end_unbegun(batch, chunk.lines) if is_canceled else frozenset()
            for fate in chunk.lines:
                tally.see(fate, just_ended=just_ended)
            if now() >= until or tally.ahead_seen >= MAX_AHEAD_LINES or (tally.is_enough and not is_canceled):
                return tally
            if now() - renewed >= RENEW_EVERY_S:
                self.batches.extend(batch, max(batch.settled, part.settled))
                renewed = now()
        tally.see_end(limit)
        return tally

    def _fates(self, batch: Batch, part: Range, *, start: int, end: int | None = None) -> Iterator[Fates]:
        return fates(
            self.s3,
            self.jobs,
            batch,
            part,
            reserved=Reserved.of(self.settings),
            start=start,
            end=end,
            bad_between=self._bad_in(batch),
        )

    def _bad_in(self, batch: Batch) -> BadBetween:
        return partial(self.batches.bad_between, batch.id)

    def _help(self, batch: Batch, part: Range, fate: Fate) -> None:
        """Send the job of the first open line, and of those behind it without one, if nothing else will."""
        if batch.status is not BatchStatus.RUNNING:
            return
        if fate.is_missing:  # the job was another batch's, 30 days ago, and is forgotten; its outputs may still exist
            for chunk in self._fates(batch, part, start=fate.line.offset):
                missing = [one.line for one in chunk.lines if one.is_missing and one.line.offset < part.offset]
                bad = self.submit(batch, missing, draws=part.draws if part.has_ids_of_places else None)
                # The workflow that it names may be gone: its number is not known here.
                self.batches.mark_bad(batch, [replace(one, line=None) for one in bad])
                return
        elif fate.state is not None and fate.state.is_parked:  # its message came just before the resume
            self._resume_at(batch, fate.line.offset)

    def _end_unbegun(self, batch: Batch, chunk: list[Fate]) -> frozenset[str]:
        """End the jobs of a canceled batch that no worker has begun and no other batch wants; returns their ids."""
        unbegun = [fate.state for fate in chunk if fate.state is not None and fate.state.is_unbegun]
        others = {other for state in unbegun for other in state.batches - {batch.id}}
        going_on = {other for other in others if self._goes_on(other)}
        mine = [state for state in unbegun if state.is_of_batch and not state.batches & going_on]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="end") as pool:
            are_ended = list(pool.map(self.jobs.cancel_unbegun, mine))
        return frozenset(state.id for state, is_ended in zip(mine, are_ended, strict=True) if is_ended)

    def _goes_on(self, batch_id: str) -> bool:
        batch = self.batches.get(batch_id)
        return batch is not None and batch.status in (BatchStatus.RUNNING, BatchStatus.PAUSED)

    # Orders of people.

    def _resume_at(self, batch: Batch, offset: int) -> None:
        self.own_queue.send(Order(batch_id=batch.id, start=offset, is_resume=True).to_text(), tenant=batch.id)

    def resume(self, batch_id: str, *, start: int = 0, until: float, now: Callable[[], float] = time.monotonic) -> None:
        """Send parked jobs again, from a line on, and have the rest read. What the time does not allow is ordered.

        The longest chain of orders that we make: each is 14 minutes of one resume, some 600,000 parked jobs. Lambda
        stops a chain after some 16 invocations (see `read_or_pass_on`), at some ten million. Nothing is lost then:
        `advance`, of which the caretaker begins a new chain each minute, orders a resume from the first parked job on.
        """
        batch = self.batches.get(batch_id)
        if batch is None or batch.status is not BatchStatus.RUNNING:
            return
        self._read_on(batch, self.batches.ranges(batch_id))
        first = max(start, batch.settled)
        for part in self.batches.ranges(batch_id):
            for chunk in self._fates(batch, part, start=first):
                if now() >= until:
                    self._resume_at(batch, chunk.lines[0].line.offset if chunk.lines else part.end)
                    return
                states = [fate.state for fate in chunk.lines]
                self._unpark([state for state in states if state is not None and state.is_parked])

    def _unpark(self, parked: list[JobState]) -> None:
        """Send the jobs, then unpark them: a job that is cut off in between is sent twice, and runs once."""
        self.workers.send_many([state.message for state in parked])
        with ThreadPoolExecutor(THREADS, thread_name_prefix="unpark") as pool:
            list(pool.map(lambda state: self.jobs.unpark(state.id), parked))
