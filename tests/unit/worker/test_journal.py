"""A worker and the jobs table: its reports while a job runs, its cancels, and its failures."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.aws.dynamodb import now_s
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import JobQueue, WebhookQueue
from comfy_serverless.connector.progress import Progress
from comfy_serverless.errors import Canceled, EngineCrashed, NodeExecutionError, WorkerStopped
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.stored_request import VERSION
from comfy_serverless.moments import moment_text
from comfy_serverless.table.care import Care
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.table.job_state import JobState, NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.worker import journal as module
from comfy_serverless.worker.journal import Journal, Unrecorded
from comfy_serverless.worker.worker import Call, Outcome
from tests.patience import PATIENCE_S
from tests.unit.fakes import IN, OUT, WORKFLOW, FakeEngine, World, made
from tests.unit.jobs_table import aws, create_table

Worlds = Callable[..., World]
CALL = Call(is_heard=False)


class Office:
    """A worker, and a journal over the table and the queues."""

    def __init__(self, world: World, session: Any) -> None:
        self.world = world
        self.table, self.calls = create_table(session)
        self.store = JobStore(self.table, lease_s=30, max_runs=3)
        self.sqs = session.client("sqs")
        urls = [self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "webhooks")]
        self.queue_url = urls[0]
        self.journal = Journal(self.store, Queues.at(urls[0], None, sqs=self.sqs), WebhookQueue(self.sqs, urls[1]))

    def submit(self, *, webhook: bool = False, extra_data: dict[str, str] | None = None) -> JobMessage:
        job_id = str(uuid.uuid4())
        address = S3Address(IN, f"requests/{job_id}.json")
        request = {"job_id": job_id, "workflow": WORKFLOW, "output": {"bucket": OUT, "prefix": "owners/team"}}
        self.world.s3.put_object(
            Bucket=IN, Key=address.key, Body=json.dumps({"request": request, "workflow": WORKFLOW}).encode()
        )
        result = f"s3://{OUT}/owners/team/{job_id}/result.json"
        hook = Webhook(url="https://example.com", secret="whsec_x") if webhook else None
        self.store.submit(
            NewJob(job_id=job_id, owner="team", request_uri=str(address), result_uri=result, webhook=hook)
        )
        self.store.dispatched(job_id)
        return JobMessage(job_id=job_id, address=address, extra_data=extra_data)

    def run(self, job: JobMessage) -> Outcome | None:
        outcome = self.journal.run(self.world.worker, job, CALL)
        return outcome if isinstance(outcome, Outcome) else None

    def state(self, job: JobMessage) -> JobState:
        state = self.store.read(job.job_id)
        assert state is not None
        return state

    def change(self, job: JobMessage, **attributes: Any) -> None:
        item = self.table.get(f"job#{job.job_id}", "job")
        assert item is not None
        self.table.put({**item, **attributes})

    def care(self) -> Care:
        return Care(self.store, self.journal.workers, self.journal.webhook_queue, self.world.s3)

    def sent_again(self) -> list[dict[str, Any]]:
        url = self.queue_url
        self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "0"})
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


@pytest.fixture
def office(world: Worlds, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Office]]:
    monkeypatch.setattr(module, "TICK_S", 0.02)
    monkeypatch.setattr(module, "SIGN_OF_LIFE_S", 0.05)
    monkeypatch.setattr(module, "PREVIEW_EVERY_S", 0.0)
    monkeypatch.setattr(module, "AGAIN_AFTER_S", 0)
    monkeypatch.setattr(module, "CONCLUDE_FOR_S", 0.3)
    with aws() as session:
        yield lambda **parts: Office(world(**parts), session)


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Watched(FakeEngine):
    """Stands in the middle of a prompt until it may go on, or is canceled."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.reached, self.open = threading.Event(), threading.Event()
        self.then = self._stand
        self.extra_data: Any = None

    def run(self, workflow: Any, **arguments: Any) -> Any:
        self.extra_data = arguments.get("extra_data")
        arguments["on_progress"](
            Progress(value=0.25, nodes_done=0, nodes_total=2, current_node="3", preview=b"\xff\xd8")
        )
        return super().run(workflow, **arguments)

    def cancel(self, prompt_id: str) -> bool:
        super().cancel(prompt_id)
        self.error = Canceled("interrupted")
        self.open.set()
        return True

    def _stand(self) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE_S)


def test_a_job_is_followed_in_the_table_while_it_runs_and_ends_there(office: Callable[..., Office]) -> None:
    engine = Watched()
    here = office(engine=engine)
    job = here.submit(extra_data={"api_key_comfy_org": "secret"})
    thread = threading.Thread(target=here.run, args=(job,))
    thread.start()
    assert engine.reached.wait(PATIENCE_S)
    wait_until(lambda: here.state(job).outputs)
    wait_until(lambda: here.state(job).document().progress)
    assert here.state(job).document().status is JobStatus.RUNNING
    wait_until(lambda: (here.store.read_with_preview(job.job_id) or here.state(job)).preview)
    engine.open.set()
    thread.join(PATIENCE_S)
    ended = here.state(job).document()
    assert (ended.status, [output.name for output in ended.outputs]) == (JobStatus.SUCCEEDED, ["a.png"])
    assert ended.outputs[0].s3_uri == f"s3://{OUT}/owners/team/{job.job_id}/9/a.png"
    assert engine.extra_data == {"api_key_comfy_org": "secret"}
    stored = json.dumps([str(item) for item in here.table.query_all("#pk = :pk", {"pk": f"job#{job.job_id}"})])
    assert "secret" not in stored
    assert b"secret" not in b"".join(
        here.world.s3.get_object(Bucket=OUT, Key=key)["Body"].read() for key in here.world.stored_keys()
    )


def test_a_cancel_request_reaches_the_engine_with_the_answer_of_a_report(office: Callable[..., Office]) -> None:
    engine = Watched()
    here = office(engine=engine)
    job = here.submit()
    thread = threading.Thread(target=here.run, args=(job,))
    thread.start()
    assert engine.reached.wait(PATIENCE_S)
    here.store.cancel(here.state(job))
    thread.join(PATIENCE_S)
    ended = here.state(job).document()
    assert ended.status is JobStatus.CANCELED
    assert [output.name for output in ended.outputs] == ["a.png"], "what it had made is delivered"


def test_reports_are_at_most_two_a_second(office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.5)
    engine = Watched(outputs=())
    here = office(engine=engine)
    job = here.submit()
    thread = threading.Thread(target=here.run, args=(job,))
    thread.start()
    assert engine.reached.wait(PATIENCE_S)
    begun = time.monotonic()
    before = here.calls["UpdateItem"] + here.calls["PutItem"]
    time.sleep(2.0)
    reports = here.calls["UpdateItem"] + here.calls["PutItem"] - before
    assert reports <= (time.monotonic() - begun) / module.TICK_S + 1
    engine.open.set()
    thread.join(PATIENCE_S)


def test_a_message_that_comes_twice_runs_the_job_once(office: Callable[..., Office]) -> None:
    here = office()
    job = here.submit()
    assert here.run(job) is not None
    assert here.run(job) is None
    assert len(here.world.engine.runs) == 1


def test_a_failure_of_the_workflow_is_final(office: Callable[..., Office]) -> None:
    here = office(engine=FakeEngine(error=NodeExecutionError("bad", details={"node_id": "3"})))
    job = here.submit()
    here.run(job)
    error = here.state(job).document().error
    assert error is not None
    assert (error.code, error.node_id) == ("node_execution_error", "3")
    assert here.sent_again() == []


def test_a_failure_that_another_try_may_cure_is_tried_again_at_once_and_fails_at_last(
    office: Callable[..., Office],
) -> None:
    here = office(engine=FakeEngine(error=EngineCrashed("died")))
    job = here.submit(extra_data={"api_key_comfy_org": "secret"})
    for run in range(3):
        here.run(job)
        sent = here.sent_again()
        assert (here.state(job).status is JobStatus.FAILED) == (run == 2)
        assert all(message["extra_data"] == {"api_key_comfy_org": "secret"} for message in sent)
        assert len(sent) == min(run + 1, 2)
    assert here.state(job).document().error is not None


def test_a_worker_that_is_shut_down_gives_its_job_back_without_a_mark(office: Callable[..., Office]) -> None:
    here = office(engine=FakeEngine(error=WorkerStopped("stopped")))
    job = here.submit()
    for _ in range(5):
        here.run(job)
        assert here.state(job).status is JobStatus.RUNNING
    here.world.engine.error = None
    here.run(job)
    assert here.state(job).status is JobStatus.SUCCEEDED


def test_a_job_taken_over_by_another_worker_is_stopped_here_and_changes_nothing(office: Callable[..., Office]) -> None:
    engine = Watched()
    here = office(engine=engine)
    job = here.submit()
    thread = threading.Thread(target=here.run, args=(job,))
    thread.start()
    assert engine.reached.wait(PATIENCE_S)
    here.change(job, run="another")
    thread.join(PATIENCE_S)
    assert engine.canceled
    assert here.state(job).status is JobStatus.RUNNING
    assert not [key for key in here.world.stored_keys() if key.endswith("result.json")], "it is not the last word"


def test_a_run_that_has_lost_its_job_does_not_stop_the_next_one_in_the_same_process(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Watched()
    here = office(engine=engine)
    job = here.submit()
    report, may_report = here.store.report, threading.Event()

    def report_late(*arguments: Any, **fields: Any) -> JobStatus:
        assert may_report.wait(PATIENCE_S)
        return report(*arguments, **fields)

    monkeypatch.setattr(here.store, "report", report_late)  # or a sign of life would bring the lease back
    first = threading.Thread(target=here.run, args=(job,))
    first.start()
    assert engine.reached.wait(PATIENCE_S)
    run = here.state(job).run
    here.change(job, lease_until=1)
    second = threading.Thread(target=here.run, args=(job,))
    second.start()  # it takes the job, and waits for the first to let go of the id
    wait_until(lambda: here.state(job).run != run)
    may_report.set()
    second.join(PATIENCE_S)
    first.join(PATIENCE_S)
    assert len(engine.canceled) >= 1
    assert set(engine.canceled) == {engine.runs[0]["prompt_id"]}


def test_an_end_that_cannot_be_written_down_makes_the_message_come_again_and_is_then_written(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = office()
    job = here.submit()
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "finish", away)
        with pytest.raises(Unrecorded):
            here.run(job)
    here.change(job, lease_until=1)
    here.run(job)
    assert len(here.world.engine.runs) == 1, "the result in S3 answers it"
    assert [output.name for output in here.state(job).document().outputs] == ["a.png"]


def test_an_end_that_is_in_s3_and_not_in_the_table_is_found_by_the_caretaker(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = office()
    job = here.submit(webhook=True)
    here.change(job, is_rerunnable=False, runs=2)  # the last run, and its key is kept nowhere
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "put_outputs", away)
        patch.setattr(here.store, "finish", away)
        with pytest.raises(Unrecorded):
            here.run(job)
    here.change(job, lease_until=1)
    assert here.care().round() == 1
    ended = here.state(job).document()
    assert (ended.status, [output.name for output in ended.outputs]) == (JobStatus.SUCCEEDED, ["a.png"])
    assert here.table.get(f"asset#{ended.outputs[0].id}", "asset") is not None
    answer = here.sqs.receive_message(QueueUrl=here.journal.webhook_queue.url)
    assert [json.loads(message["Body"]) for message in answer["Messages"]] == [{"job": job.job_id}]
    assert here.care().round() == 0


def test_a_canceled_job_whose_lost_worker_had_finished_it_ends_as_it_did(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = office()
    job = here.submit()
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "finish", away)
        with pytest.raises(Unrecorded):
            here.run(job)
    here.store.cancel(here.state(job))
    here.change(job, lease_until=1)
    here.care().round()
    ended = here.state(job).document()
    assert (ended.status, len(ended.outputs)) == (JobStatus.SUCCEEDED, 1)


def test_a_failure_that_may_be_cured_and_stands_in_s3_is_how_a_job_without_runs_ends(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = office(engine=FakeEngine(error=EngineCrashed("out of memory")))
    job = here.submit()
    here.change(job, runs=2)
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "finish", away)
        with pytest.raises(Unrecorded):
            here.run(job)
    here.change(job, lease_until=1)
    here.care().round()
    error = here.state(job).document().error
    assert error is not None
    assert "out of memory" in error.message


def test_an_end_is_written_down_once_the_table_is_back_and_the_job_stays_ours_until_then(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONCLUDE_FOR_S", PATIENCE_S)
    here = office()
    job = here.submit()
    finish, refused = here.store.finish, list[int]()

    def away_at_first(*arguments: Any, **fields: Any) -> bool:
        if len(refused) < 5:
            refused.append(here.state(job).keeper_due or 0)
            here.change(job, lease_until=int(time.time()) + 2)
            wait_until(lambda: (here.state(job).keeper_due or 0) > time.time() + 20)  # a sign of life
            away()
        return finish(*arguments, **fields)

    monkeypatch.setattr(here.store, "finish", away_at_first)
    assert here.run(job) is not None
    assert len(refused) == 5
    assert here.state(job).status is JobStatus.SUCCEEDED


def test_what_an_unrecorded_job_left_in_the_engine_is_removed(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = office()
    monkeypatch.setattr(here.store, "finish", away)
    with pytest.raises(Unrecorded):
        here.run(here.submit())
    wait_until(lambda: here.world.engine.discarded)


def test_a_worker_that_is_shut_down_in_the_last_run_gives_its_job_back(office: Callable[..., Office]) -> None:
    here = office(engine=FakeEngine(error=WorkerStopped("stopped")))
    job = here.submit()
    here.change(job, runs=2)
    here.run(job)
    assert here.state(job).status is JobStatus.RUNNING
    here.world.engine.error = None
    here.run(job)
    assert here.state(job).status is JobStatus.SUCCEEDED


def test_a_mistake_of_our_own_in_a_report_does_not_cost_the_lease(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Watched()
    here = office(engine=engine)
    job = here.submit()

    def mistaken(*_arguments: Any, **_fields: Any) -> None:
        raise KeyError("place")

    with monkeypatch.context() as patch:
        patch.setattr(here.store, "put_outputs", mistaken)
        thread = threading.Thread(target=here.run, args=(job,))
        thread.start()
        assert engine.reached.wait(PATIENCE_S)
        before = here.calls["UpdateItem"]
        wait_until(lambda: here.calls["UpdateItem"] > before + 2 and "bug: a report failed" in caplog.text)
    engine.open.set()
    thread.join(PATIENCE_S)
    assert here.state(job).status is JobStatus.SUCCEEDED
    assert "bug: a report failed" in caplog.text


def test_a_table_that_is_away_while_a_job_runs_costs_nothing(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Watched()
    here = office(engine=engine)
    job = here.submit()
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "report", away)
        patch.setattr(here.store, "put_outputs", away)
        thread = threading.Thread(target=here.run, args=(job,))
        thread.start()
        assert engine.reached.wait(PATIENCE_S)
        time.sleep(0.1)
    engine.open.set()
    thread.join(PATIENCE_S)
    ended = here.state(job).document()
    assert (ended.status, len(ended.outputs)) == (JobStatus.SUCCEEDED, 1)


def test_a_report_that_fails_for_ever_does_not_cost_the_lease(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Watched()
    here = office(engine=engine)
    job = here.submit()
    with monkeypatch.context() as patch:
        patch.setattr(here.store, "put_outputs", away)
        thread = threading.Thread(target=here.run, args=(job,))
        thread.start()
        assert engine.reached.wait(PATIENCE_S)
        before = here.calls["UpdateItem"]
        wait_until(lambda: here.calls["UpdateItem"] > before + 2)
    engine.open.set()
    thread.join(PATIENCE_S)
    assert len(here.state(job).document().outputs) == 1


def test_the_end_of_a_job_with_a_webhook_is_sent_for(office: Callable[..., Office]) -> None:
    here = office()
    job = here.submit(webhook=True)
    here.run(job)
    answer = here.sqs.receive_message(QueueUrl=here.journal.webhook_queue.url)
    assert [json.loads(message["Body"]) for message in answer["Messages"]] == [{"job": job.job_id}]
    assert here.state(job).keeper is None


def test_every_output_of_a_job_with_many_is_in_the_table_in_order(office: Callable[..., Office]) -> None:
    outputs = tuple(made(f"{number}.png", index=number) for number in range(60))
    here = office(engine=FakeEngine(outputs=outputs, attempts=2))
    job = here.submit()
    here.run(job)
    assert [output.name for output in here.state(job).document().outputs] == [f"{number}.png" for number in range(60)]


def away(*_arguments: Any, **_fields: Any) -> Any:
    raise EndpointConnectionError(endpoint_url="https://dynamodb")


def newer(here: Office, job: JobMessage) -> JobMessage:
    version, others = VERSION + 1, {"new": 1}
    return JobMessage(job_id=job.job_id, address=job.address, extra_data=job.extra_data, version=version, others=others)


def test_a_job_of_a_newer_release_waits_for_a_newer_worker_and_has_had_no_run(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = office()
    job = here.submit()
    for times in range(5):  # more often than a job may run
        outcome = here.run(newer(here, job))
        assert outcome is not None
        assert outcome.job.error is not None
        assert (outcome.job.error.code, outcome.job.error.retryable) == ("worker_outdated", True)
        state = here.state(job)
        assert (state.is_over, state.is_unbegun, state.runs) == (False, True, 0)
        assert len(here.sent_again()) == times, "at once it would meet the same worker"
        pause_s = (state.keeper_due or 0) - now_s()
        assert pause_s == pytest.approx(min(module.OUTDATED_AFTER_S * 2**times, 3600), rel=0.1), "and ever later"
        here.change(job, lease_until=1)
        assert here.care().round() == 1
    assert [message["job"] for message in here.sent_again()] == [job.job_id] * 5
    assert here.world.stored_keys() == set()
    outcome = here.run(job)  # a worker that understands it
    assert outcome is not None
    assert outcome.job.status is JobStatus.SUCCEEDED


def test_a_key_that_is_kept_nowhere_comes_again_with_all_that_a_newer_release_wrote(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OUTDATED_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "OUTDATED_DELAY_S", 0)
    here = office()
    job = here.submit(extra_data={"api_key_comfy_org": "k"})
    here.run(newer(here, job))
    assert here.sent_again() == [json.loads(newer(here, job).to_text())]
    assert here.state(job).waits_in_queue


def test_a_key_that_is_kept_nowhere_waits_in_the_queue_the_longer_the_longer_it_has_waited(
    office: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OUTDATED_PAUSE_S", 0.0)
    delays: list[int] = []
    monkeypatch.setattr(JobQueue, "send", lambda _queue, _message, **how: delays.append(how["delay_s"]))
    here = office()
    for waited_s in (0, 20 * 60, 24 * 3600):
        job = here.submit(extra_data={"api_key_comfy_org": "k"})
        here.change(job, created_at=moment_text(datetime.now(UTC) - timedelta(seconds=waited_s)))
        here.run(newer(here, job))
        assert (here.state(job).keeper_due or 0) > now_s() + delays[-1], "until then the caretaker leaves it alone"
    assert delays == pytest.approx([module.OUTDATED_DELAY_S, 300, 900], rel=0.1)


def test_a_job_that_no_newer_worker_has_come_for_ends_when_queues_forget(office: Callable[..., Office]) -> None:
    here = office()
    job = here.submit()
    here.change(job, created_at="2026-01-01T00:00:00.000Z")
    here.run(newer(here, job))
    error = here.state(job).document().error
    assert error is not None
    assert (error.code, error.retryable) == ("worker_outdated", True)


def test_of_very_many_outputs_the_table_has_those_that_the_document_lists(office: Callable[..., Office]) -> None:
    outputs = tuple(made("text.txt", b"x", node_id=str(n)) for n in range(30))
    here = office(engine=FakeEngine(outputs=outputs), max_listed_outputs=5)
    here.journal = replace(here.journal, most_outputs=5)
    job = here.submit()
    assert here.run(job) is not None
    document = here.state(job).document()
    assert [output.node_id for output in document.outputs] == [str(n) for n in range(5)]
    assert document.outputs_total == 30
    items = [*here.table.query_all("#pk = :pk", {"pk": f"job#{job.job_id}"})]
    assert len([item for item in items if item["sk"].startswith("output#")]) <= 10


def test_a_line_whose_id_has_the_result_of_another_request_fails(office: Callable[..., Office]) -> None:
    here = office()
    first = here.submit()
    assert here.run(first) is not None
    (key,) = [key for key in here.world.stored_keys() if key.endswith("/result.json")]
    content = json.loads(here.world.stored(key))
    for batches, digest, status in (
        ({"many"}, content["request_sha256"], JobStatus.SUCCEEDED),
        ({"many"}, "of another request", JobStatus.FAILED),
        (None, "of another request", JobStatus.SUCCEEDED),
    ):
        job = here.submit()
        stands = json.dumps({**content, "outputs": [], "request_sha256": digest}).encode()
        here.world.s3.put_object(Bucket=OUT, Key=f"owners/team/{job.job_id}/result.json", Body=stands)
        if batches is not None:
            here.change(job, batches=batches)
        here.run(job)
        assert here.state(job).status is status
