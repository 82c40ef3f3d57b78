"""The Lambda function that runs jobs: of the job queue, direct payloads, HTTP requests, S3 events, SQS batches."""

from __future__ import annotations

from comfy_serverless.handlers import warm

# isort: split
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from comfy_serverless import tracing
from comfy_serverless.handlers import snapshot, wiring, wiring_worker
from comfy_serverless.handlers.events import Event, SqsEvent, queued_jobs, recognise
from comfy_serverless.handlers.shutdown import drain_on_sigterm, leave_process
from comfy_serverless.observability import begin_invocation
from comfy_serverless.worker.worker import Call, Outcome

if TYPE_CHECKING:
    from comfy_serverless.jobs.message import JobMessage

warm.imports_done()

#: How long an invocation that has run its jobs waits for the lists of nodes to be written, and what it keeps back of
#: its time, in seconds. Once a start, and once an hour, ComfyUI takes a second or two to say what it has.
LISTED_WITHIN_S, ANSWER_RESERVE_S = 15.0, 2.0


class LambdaContext(Protocol):
    """The part of Lambda's context that we use."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int: ...


def handler(event: Any, context: LambdaContext) -> Any:  # noqa: ANN401  (any JSON value)
    """Run the jobs of one invocation, one after the other."""
    begin_invocation(context.aws_request_id)
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000

    def remaining_s() -> float:
        return until - time.monotonic()

    try:
        return _answer(event, remaining_s)
    finally:
        tracing.flush(min(wiring.FLUSH_S, remaining_s() - ANSWER_RESERVE_S))


def _answer(event: Any, remaining_s: Callable[[], float]) -> Any:  # noqa: ANN401
    if queued := queued_jobs(event):
        return _put_off(event, _run_messages(event["Records"], queued, remaining_s))
    recognised = recognise(event)
    answer = _run(recognised, remaining_s)
    return _put_off(event, answer) if isinstance(recognised, SqsEvent) else answer


def _run(recognised: Event, remaining_s: Callable[[], float]) -> Any:  # noqa: ANN401
    outcomes: list[Outcome] = []
    try:
        for source, delivery in zip(recognised.sources(), recognised.deliveries(), strict=True):
            call = Call(
                remaining_s=remaining_s,
                is_heard=recognised.is_heard,
                is_first=not outcomes,
                is_last_try=not recognised.is_heard and delivery >= wiring.settings().max_receives,
            )
            outcomes.append(wiring_worker.worker().run(source, call))
        wiring_worker.meter().count(outcomes)
        return recognised.answer(outcomes, wiring_worker.replies())
    finally:
        for outcome in outcomes:
            outcome.release()


def _run_messages(
    messages: Sequence[Mapping[str, Any]], jobs: Mapping[str, JobMessage], remaining_s: Callable[[], float]
) -> dict[str, Any]:
    """Run the jobs of the API among messages, and then what others ask for."""
    answer = _run_queued([each for each in messages if each["messageId"] in jobs], jobs, remaining_s)
    if others := [each for each in messages if each["messageId"] not in jobs]:
        answer["batchItemFailures"] += _run(recognise({"Records": others}), remaining_s)["batchItemFailures"]
    return answer


def _run_queued(
    messages: Sequence[Mapping[str, Any]], jobs: Mapping[str, JobMessage], remaining_s: Callable[[], float]
) -> dict[str, Any]:
    """Run jobs of the API: the table says which still have to run, and records how they ended.

    A message comes again only if the outcome could not be recorded.
    """
    from comfy_serverless.aws.sqs import take_each  # comes with the first job of the API

    journal = wiring_worker.journal()

    def run(message: Mapping[str, Any]) -> bool:
        call = Call(remaining_s=remaining_s, is_heard=False, is_first=message is messages[0])
        outcome = journal.run(wiring_worker.worker(), jobs[message["messageId"]], call)
        if isinstance(outcome, Outcome):
            wiring_worker.meter().count([outcome])
            outcome.release()
        return True

    answer = take_each(
        messages,
        run,
        failing="the job's message is to come again",
        keys=lambda message: {"job_id": jobs[message["messageId"]].job_id},
    )
    if (writer := wiring_worker.node_list()) is not None:
        writer.write_if_due()
        # After the answer this process is frozen, and with it whoever waits for a turn behind the reading.
        writer.wait(min(LISTED_WITHIN_S, remaining_s() - ANSWER_RESERVE_S))
    return answer


def _put_off(event: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    from comfy_serverless.handlers import again  # comes with the first message

    return again.put_off(event, answer, pauses_s=again.JOBS_AGAIN_AFTER_S)


def _drain_on_sigterm() -> None:
    drain_on_sigterm(worker=wiring_worker.worker(), stop_engine=wiring_worker.connector().kill_api, leave=leave_process)


warm.in_worker(_drain_on_sigterm)
snapshot.hooks(before=lambda: wiring_worker.connector().rest(), after=lambda: wiring_worker.connector().wake())
