"""The states of a job in the table: who may change them, and what it costs."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import WebhookQueue
from comfy_serverless.errors import AssetUnavailable, EngineCrashed, IdempotencyKeyReuse, NodeExecutionError
from comfy_serverless.jobs.document import Job, JobError, JobStatus, JobUrls, Output, Progress
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.table import care as care_module
from comfy_serverless.table import jobs as module
from comfy_serverless.table import waiting_jobs
from comfy_serverless.table.care import Care
from comfy_serverless.table.columns import IDEMPOTENCY_S
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.table.job_state import Claim, JobExists, JobState, LeaseLost, NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.webhook_item import Webhook
from tests.unit.jobs_table import REGION, aws, create_table
from tests.unit.table_clock import TableClock

REQUEST = "s3://assets/requests/team/1.json"
RESULTS = "results"


class World:
    """A store, its queues, and a clock that can be set forward."""

    def __init__(self, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        table, self.calls = create_table(session)
        self.store = JobStore(table, lease_s=30, max_runs=3)
        self.sqs = session.client("sqs")
        urls = [self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "webhooks")]
        self.queue = Queues.at(urls[0], None, sqs=self.sqs)
        self.queue_url = urls[0]
        self.webhooks = WebhookQueue(self.sqs, urls[1])
        self.s3 = session.client("s3")
        self.s3.create_bucket(Bucket=RESULTS, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.care = Care(self.store, self.queue, self.webhooks, self.s3)
        self.clock = TableClock(monkeypatch)

    def submit(self, **fields: Any) -> str:
        job_id = str(fields.pop("job_id", uuid.uuid4()))
        self.store.submit(new_job(job_id, **fields))
        self.store.dispatched(job_id)
        return job_id

    def begin(self, job_id: str, run: str = "run-1") -> JobState:
        begun = self.store.begin(job_id, run=run)
        assert begun.claim is Claim.RUN
        assert begun.state is not None
        return begun.state

    def read(self, job_id: str) -> JobState:
        state = self.store.read(job_id)
        assert state is not None
        return state

    def later(self, seconds: float) -> None:
        self.clock.later(seconds)

    def messages(self, url: str) -> list[str]:
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [message["Body"] for message in answer.get("Messages", [])]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with aws() as session:
        yield World(session, monkeypatch)


def new_job(job_id: str, **fields: Any) -> NewJob:
    owner = fields.pop("owner", "team")
    result_uri = f"s3://{RESULTS}/owners/{owner}/{job_id}/result.json"
    return NewJob(job_id=job_id, owner=owner, request_uri=REQUEST, result_uri=result_uri, **fields)


def ended(job_id: str, *, outputs: tuple[Output, ...] = (), error: JobError | None = None) -> Job:
    now = datetime.now(UTC)
    return Job(
        id=job_id,
        status=JobStatus.FAILED if error else JobStatus.SUCCEEDED,
        created_at=now,
        started_at=now,
        completed_at=now,
        expires_at=now + timedelta(days=30),
        outputs=outputs,
        error=error,
        urls=JobUrls.of(job_id),
        warnings=("one thing",),
    )


def output(name: str) -> Output:
    return Output(
        node_id="9",
        name=name,
        type="image",
        content_type="image/png",
        size_bytes=5,
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        job_id="x",
        s3_uri=f"s3://results/owners/team/x/9/{name}",
        sha256="0" * 64,
    )


def test_a_job_goes_from_queued_to_succeeded_and_shows_everything_on_the_way(world: World) -> None:
    job_id = world.submit(labels={"batch": "7"})
    assert world.read(job_id).document().status is JobStatus.QUEUED
    state = world.begin(job_id)
    progress = Progress(value=0.5, nodes_done=1, nodes_total=2)
    assert world.store.report(job_id, run="run-1", progress=progress) is JobStatus.RUNNING
    world.store.put_outputs(state, [(0, output("a.png"))], run="run-1")
    running = world.read(job_id).document()
    assert (running.status, running.progress) == (JobStatus.RUNNING, progress)
    assert [made.name for made in running.outputs] == ["a.png"]
    assert running.started_at is not None
    world.store.put_outputs(state, [(1, output("b.png"))], run="run-1")
    assert world.store.finish(
        job_id, ended(job_id, outputs=(output("b.png"), output("a.png"))), run="run-1", webhook=False, places=(1, 0)
    )
    job = world.read(job_id).document()
    assert (job.status, job.warnings) == (JobStatus.SUCCEEDED, ("one thing",))
    assert [made.name for made in job.outputs] == ["b.png", "a.png"], "in the order of the result"


def test_reading_a_job_with_its_outputs_is_one_read_and_submitting_is_three_writes(world: World) -> None:
    before = Counter(world.calls)
    job_id = world.submit(idempotency_key="once")
    assert Counter(world.calls) - before == {"TransactWriteItems": 1, "UpdateItem": 1}  # job, key; dispatched
    state = world.begin(job_id)
    world.store.put_outputs(state, [(number, output(f"{number}.png")) for number in range(10)], run="run-1")
    before = Counter(world.calls)
    assert len(world.read(job_id).outputs) == 10
    assert Counter(world.calls) - before == {"Query": 1}


def test_an_idempotency_key_is_single_use_for_a_day_and_free_again_if_nothing_was_submitted(world: World) -> None:
    world.submit(idempotency_key="once")
    with pytest.raises(IdempotencyKeyReuse):
        world.submit(idempotency_key="once")
    again = new_job("other", owner="other-team", idempotency_key="once")
    world.store.submit(again)  # another owner's key is another key
    world.store.withdraw(again)
    assert world.store.read("other") is None
    world.store.submit(again)
    world.later(IDEMPOTENCY_S + 10)
    world.submit(idempotency_key="once")


def test_an_id_is_one_job(world: World) -> None:
    world.submit(job_id="mine")
    with pytest.raises(JobExists):
        world.submit(job_id="mine", idempotency_key="new")
    world.submit(idempotency_key="new")  # which was not used up


def test_the_id_of_a_job_that_is_forgotten_is_free_before_the_table_deletes_it(world: World) -> None:
    """DynamoDB does that up to some days later, and as long nobody is told that the id is taken."""
    world.submit(job_id="mine", labels={"was": "before"})
    old = world.store._table.get("job#mine", "job")
    assert old is not None
    output = {"pk": "job#mine", "sk": "output#0000", "run": 0, "output": "{}", "expires": 1}
    for item in ({**old, "expires": 1}, output):
        world.store._table.put(item)
    assert world.store.read("mine") is None
    world.submit(job_id="mine", labels={"is": "after"})
    state = world.read("mine")
    assert (state.labels, state.outputs) == ({"is": "after"}, ())
    with pytest.raises(JobExists):
        world.submit(job_id="mine")


def test_two_workers_cannot_both_own_a_job(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    assert world.store.begin(job_id, run="run-2").claim is Claim.LEAVE
    assert world.store.begin("unheard-of", run="run-2").claim is Claim.LEAVE


def test_a_worker_that_was_lost_is_followed_by_another_and_what_it_says_later_changes_nothing(world: World) -> None:
    job_id = world.submit()
    state = world.begin(job_id)
    world.store.put_outputs(state, [(0, output("old.png"))], run="run-1")
    world.later(32)
    assert world.begin(job_id, "run-2").runs == 2
    with pytest.raises(LeaseLost):
        world.store.report(job_id, run="run-1", progress=None)
    assert not world.store.finish(job_id, ended(job_id), run="run-1", webhook=False, places=())
    assert not world.store.give_back(job_id, run="run-1")
    assert world.read(job_id).status is JobStatus.RUNNING
    assert world.read(job_id).outputs == (), "what the lost run made does not count"


def test_a_begin_whose_answer_was_lost_is_still_a_begin(world: World) -> None:
    job_id = world.submit()
    assert world.begin(job_id).runs == world.begin(job_id).runs == 1


def test_what_a_lost_run_writes_late_hides_nothing_of_the_one_that_counts(world: World) -> None:
    job_id = world.submit()
    lost = world.begin(job_id)
    world.later(32)
    state = world.begin(job_id, "run-2")
    world.store.put_outputs(state, [(0, output("a.png"))], run="run-2")
    assert world.store.finish(
        job_id, ended(job_id, outputs=(output("a.png"),)), run="run-2", webhook=False, places=(0,)
    )
    world.store.put_outputs(lost, [(0, output("a.png"))], run="run-1")
    assert [made.name for made in world.read(job_id).document().outputs] == ["a.png"]


def test_what_has_ended_stays_as_it_ended(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    assert world.store.finish(job_id, ended(job_id), run="run-1", webhook=False, places=())
    failed = ended(job_id, error=JobError.of(NodeExecutionError("late")))
    assert not world.store.finish(job_id, failed, run="run-1", webhook=False, places=())
    with pytest.raises(LeaseLost):
        world.store.report(job_id, run="run-1", progress=None)
    assert world.store.begin(job_id, run="run-2").claim is Claim.LEAVE
    assert world.store.cancel(world.read(job_id)).status is JobStatus.SUCCEEDED
    world.later(1_000_000)
    assert world.care.round() == 0


def test_a_waiting_job_is_canceled_at_once_and_a_running_one_when_its_worker_reports(world: World) -> None:
    waiting, running = world.submit(), world.submit()
    canceled = world.store.cancel(world.read(waiting))
    assert canceled.document().status is JobStatus.CANCELED
    assert canceled.document().completed_at is not None
    assert world.store.begin(waiting, run="run-1").claim is Claim.LEAVE
    world.begin(running)
    assert world.store.cancel(world.read(running)).status is JobStatus.CANCELING
    assert world.store.cancel(world.read(running)).status is JobStatus.CANCELING
    assert world.store.report(running, run="run-1", progress=None) is JobStatus.CANCELING


def test_a_cancel_that_meets_the_end_of_the_job_answers_the_end(world: World) -> None:
    job_id = world.submit()
    seen = world.read(job_id)
    world.begin(job_id)
    assert world.store.cancel(seen).status is JobStatus.CANCELING, "it had begun meanwhile"
    assert world.store.finish(job_id, ended(job_id), run="run-1", webhook=False, places=())
    assert world.read(job_id).status is JobStatus.SUCCEEDED


def test_a_job_given_back_is_run_again_and_canceled_before_that_is_over(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    assert world.store.give_back(job_id, run="run-1", counts=False)
    assert world.begin(job_id, "run-2").runs == 1, "a worker that was only shut down does not count"
    assert world.store.give_back(job_id, run="run-2")
    assert world.begin(job_id, "run-3").runs == 2
    world.store.cancel(world.read(job_id))
    assert world.store.give_back(job_id, run="run-3")
    begun = world.store.begin(job_id, run="run-4")
    assert begun.claim is Claim.CANCELED


def test_the_last_run_knows_that_it_is_the_last(world: World) -> None:
    job_id = world.submit()
    lasts = []
    for number in range(3):
        lasts.append(world.store.begin(job_id, run=f"run-{number}").is_last)
        world.store.give_back(job_id, run=f"run-{number}")
    assert lasts == [False, False, True]


def test_a_job_whose_worker_vanished_is_sent_again_and_fails_after_the_last_run(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = world.submit()
    for run in range(3):
        world.begin(job_id, f"run-{run}")
        world.later(32)
        assert world.care.round() == 1
        assert world.care.round() == 0, "once a round"
        sent = world.messages(world.queue_url)
        assert len(sent) == (1 if run < 2 else 0)
    metric = next(json.loads(line) for line in capsys.readouterr().out.splitlines() if '"Failures"' in line)
    assert (metric["service"], metric["code"], metric["Failures"]) == ("generate", EngineCrashed.code, [1.0])
    job = world.read(job_id).document()
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.retryable) == (EngineCrashed.code, True)
    assert "3 times" in job.error.message


def test_a_job_with_a_key_that_is_kept_nowhere_is_not_run_again(world: World) -> None:
    job_id = world.submit(is_rerunnable=False)
    world.begin(job_id)
    world.later(32)
    world.care.round()
    assert world.read(job_id).status is JobStatus.FAILED
    assert world.messages(world.queue_url) == []


def test_a_job_with_a_key_that_was_sent_and_not_marked_as_sent_waits_for_its_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    world.store.submit(new_job("keyed", is_rerunnable=False))
    world.queue.send(JobMessage(job_id="keyed", address=S3Address.parse(REQUEST)))
    for _ in range(3):
        world.later(module.DISPATCH_S + care_module.MISSED_S)
        world.care.round()
        assert world.read("keyed").status is JobStatus.QUEUED, "its message waits"
    assert len(world.messages(world.queue_url)) == 1
    world.care.round()
    assert world.read("keyed").status is JobStatus.QUEUED, "who has taken the message may be about to begin"
    world.later(care_module.MISSED_S + 1)
    world.care.round()
    error = world.read("keyed").document().error
    assert error is not None
    assert "no worker has begun the job" in error.message


def test_a_job_that_cannot_be_looked_after_costs_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [world.submit() for _ in range(3)]
    for number, job_id in enumerate(ids):
        world.begin(job_id, f"run-{number}")
    attend = Care.attend

    def fail_for_the_first(care: Care, state: JobState) -> None:
        if state.id == ids[0]:
            raise AssetUnavailable("S3 is away")
        attend(care, state)

    monkeypatch.setattr(Care, "attend", fail_for_the_first)
    world.later(32)
    with pytest.raises(AssetUnavailable):
        world.care.round()
    assert len(world.messages(world.queue_url)) == 2


def test_a_job_given_back_whose_answer_was_lost_is_given_back(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    assert world.store.give_back(job_id, run="run-1", counts=False)
    assert world.store.give_back(job_id, run="run-1", counts=False), "the SDK asks again"
    assert world.read(job_id).runs == 0


@pytest.mark.parametrize("loses", ["give back", "vanish"])
def test_what_a_job_has_made_is_still_its_own_when_it_is_canceled_between_two_runs(world: World, loses: str) -> None:
    job_id = world.submit()
    state = world.begin(job_id)
    world.store.put_outputs(state, [(0, output("a.png"))], run="run-1")
    if loses == "give back":
        assert world.store.give_back(job_id, run="run-1")
    else:
        world.later(32)
        world.care.round()
    assert world.read(job_id).outputs == (), "the next run makes it anew"
    world.store.cancel(world.read(job_id))
    job = world.read(job_id).document()
    assert (job.status, [made.name for made in job.outputs]) == (JobStatus.CANCELED, ["a.png"])


def test_ten_thousand_outputs_and_a_long_document_fit_into_an_item(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    error = JobError.of(NodeExecutionError("x" * 30_000, details={f"d{n}": "y" * 19_000 for n in range(30)}))
    places = range(10_000)
    assert world.store.finish(job_id, ended(job_id, error=error), run="run-1", webhook=False, places=places)
    item = world.store._table.get(f"job#{job_id}", "job")
    assert len(json.dumps(item)) < 400 * 1024


def test_times_of_an_ended_job_count_from_its_submission(world: World) -> None:
    submitted = datetime.now(UTC) - timedelta(minutes=5)
    job_id = world.submit(created_at=submitted)
    world.begin(job_id)
    assert world.store.finish(job_id, ended(job_id), run="run-1", webhook=False, places=())
    job = world.read(job_id).document()
    assert job.expires_at - job.created_at == timedelta(days=30)
    assert abs(job.created_at - submitted) < timedelta(seconds=1)
    queue_ms = (job.metrics or {})["queue_ms"]
    assert queue_ms is not None
    assert 299_000 < queue_ms < 310_000


def test_a_job_sent_again_waits_in_a_long_queue_without_being_sent_once_more(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    world.later(32)
    for _ in range(5):
        world.care.round()
        world.later(module.DISPATCH_S + 1)
    assert len(world.messages(world.queue_url)) == 1
    assert world.begin(job_id, "run-2").runs == 2


def test_a_job_that_waits_to_be_run_again_is_canceled_at_once(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    world.store.give_back(job_id, run="run-1")
    world.store.dispatched(job_id)
    assert world.store.cancel(world.read(job_id)).status is JobStatus.CANCELED
    assert world.store.begin(job_id, run="run-2").claim is Claim.LEAVE


def test_a_webhook_is_called_once_however_often_the_job_is_canceled(world: World) -> None:
    job_id = world.submit(webhook=Webhook(url="https://example.com"))
    for _ in range(3):
        world.care.call_webhook(world.store.cancel(world.read(job_id)))
    assert len(world.messages(world.webhooks.url or "")) == 1


def test_a_job_whose_message_was_never_sent_is_sent(world: World) -> None:
    world.store.submit(new_job("unsent"))
    assert world.care.round() == 0, "its submit may still be under way"
    world.later(module.DISPATCH_S + 1)
    assert world.care.round() == 1
    assert len(world.messages(world.queue_url)) == 1
    assert world.care.round() == 0


def test_a_job_that_no_worker_took_expires_with_its_message(world: World) -> None:
    job_id = world.submit()
    world.later(module.QUEUE_RETENTION_S + 1)
    assert world.care.round() == 1
    job = world.read(job_id).document()
    assert job.status is JobStatus.EXPIRED
    assert job.error is not None
    assert "submit it again" in job.error.message


def test_a_job_whose_message_a_worker_took_and_died_before_it_began_is_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    job_id = world.submit()
    world.queue.send(JobMessage(job_id=job_id, address=S3Address.parse(REQUEST)))
    world.later(waiting_jobs.IN_QUEUE_S + 1)
    assert world.care.round() == 0, "it waits with the others"
    assert len(world.messages(world.queue_url)) == 1  # taken, and not begun
    assert world.care.round() == 1
    assert len(world.messages(world.queue_url)) == 1
    assert world.begin(job_id).runs == 1


def test_while_a_gpu_is_sought_a_hidden_message_is_believed_and_a_job_with_a_key_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    slow = Queues.at(world.queue_url, None, sqs=world.sqs, is_slow=True)
    care = Care(world.store, slow, world.webhooks, world.s3)
    world.store.submit(new_job("keyed", is_rerunnable=False))
    world.store.dispatched("keyed")
    plain = world.submit()
    for job_id in ("keyed", plain):
        slow.send(JobMessage(job_id=job_id, address=S3Address.parse(REQUEST)))
    assert len(world.messages(world.queue_url)) == 2  # Lambda has them, and no machine yet
    world.later(waiting_jobs.IN_QUEUE_S + 1)
    care.round()
    assert world.messages(world.queue_url) == [], "nothing is sent twice"
    for _ in range(6):
        world.later(care_module.HELD_S + 1)
        care.round()
    assert {json.loads(text)["job"] for text in world.messages(world.queue_url)} == {plain}, "its worker may have died"
    assert world.read("keyed").status is JobStatus.QUEUED
    world.store.cancel(world.read(plain))
    empty = Queues.at(world.sqs.create_queue(QueueName="empty")["QueueUrl"], None, sqs=world.sqs, is_slow=True)
    for _ in range(3):
        world.later(care_module.HELD_S + 1)
        Care(world.store, empty, world.webhooks, world.s3).round()
    assert world.read("keyed").status is JobStatus.FAILED, "now its message is nowhere"


def test_a_cancel_whose_worker_vanished_is_confirmed_by_the_caretaker(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    world.store.cancel(world.read(job_id))
    world.later(32)
    world.care.round()
    assert world.read(job_id).status is JobStatus.CANCELED


def test_a_webhook_is_owed_until_its_queue_has_it(world: World) -> None:
    job_id = world.submit(webhook=Webhook(url="https://example.com", secret="whsec_x"))
    world.begin(job_id)
    world.store.finish(job_id, ended(job_id), run="run-1", webhook=True, places=())
    # the worker dies here
    world.later(module.DISPATCH_S + 1)
    assert world.care.round() == 1
    assert len(world.messages(world.webhooks.url or "")) == 1
    world.later(1_000_000)
    assert world.care.round() == 0
    assert "whsec" not in world.read(job_id).document().model_dump_json()


def test_who_may_change_a_job_is_not_told_its_webhooks_secret(world: World) -> None:
    job_id = world.submit(webhook=Webhook(url="https://example.com/?token=hidden", secret="whsec_hidden"))
    client: Any = world.store._table._client
    key = {"pk": {"S": f"job#{job_id}"}, "sk": {"S": "job"}}
    changed = client.update_item(
        TableName=world.store._table.name, Key=key, UpdateExpression="REMOVE nothing", ReturnValues="ALL_NEW"
    )
    assert changed["Attributes"]["webhook"] == {"M": {}}
    assert "hidden" not in json.dumps(changed)


def test_a_webhook_ends_with_its_job_and_is_taken_back_with_it(world: World) -> None:
    hook = Webhook(url="https://example.com", secret="whsec_x")
    job_id = world.submit(webhook=hook)
    item = world.store._table.get(f"webhook#{job_id}", "webhook")
    assert item is not None
    assert item["expires"] == world.read(job_id).expires
    assert world.store.webhook_of(world.read(job_id)) == hook
    unsent = new_job("taken-back", webhook=hook)
    world.store.submit(unsent)
    world.store.withdraw(unsent)
    assert world.store._table.get("webhook#taken-back", "webhook") is None
    with pytest.raises(JobExists):
        world.store.submit(new_job(job_id, webhook=Webhook(url="https://another.example")))
    assert world.store.webhook_of(world.read(job_id)) == hook


def test_jobs_are_listed_newest_first_in_pages_by_label_and_state(world: World) -> None:
    start = datetime.now(UTC)
    ids = [
        world.submit(labels={"even": str(number % 2 == 0)}, created_at=start + timedelta(seconds=number))
        for number in range(7)
    ]
    world.store.submit(new_job("foreign", owner="other"))
    seen: list[str] = []
    before: str | None = None
    sizes = []
    while True:
        entries, before = world.store.page("team", labels={}, status=None, limit=3, before=before)
        sizes.append(len(entries))
        seen += [entry.id for entry in entries]
        if before is None:
            break
    assert (seen, sizes) == (ids[::-1], [3, 3, 1])
    entries, end = world.store.page("team", labels={"even": "True"}, status=None, limit=4, before=None)
    assert ([entry.id for entry in entries], end) == ([ids[6], ids[4], ids[2], ids[0]], None)
    world.begin(ids[5])
    entries, end = world.store.page("team", labels={"even": "False"}, status="running", limit=4, before=None)
    assert [entry.id for entry in entries] == [ids[5]]
    assert world.store.open_jobs("team") == 7
    world.store.cancel(world.read(ids[0]))
    assert world.store.open_jobs("team") == 6


@pytest.mark.parametrize("microseconds", [0, 1, 999_999])
def test_lists_and_counts_forget_a_job_at_the_moment_that_reads_do(world: World, microseconds: int) -> None:
    """The indexes do not have when a job expires, and DynamoDB deletes it up to days later."""
    created_at = datetime.now(UTC).replace(microsecond=microseconds)
    state = world.store.submit(new_job("old", created_at=created_at))
    assert state.expires is not None

    def listed() -> list[str]:
        entries, _ = world.store.page("team", labels={}, status=None, limit=9, before=None)
        return [entry.id for entry in entries]

    world.later(state.expires - 1 - world.clock.now_s)
    assert (listed(), world.store.open_jobs("team")) == (["old"], 1)
    assert world.store.read("old") is not None
    world.later(1)
    assert world.store.read("old") is None
    assert (listed(), world.store.open_jobs("team")) == ([], 0)
    assert world.store.page("team", labels={}, status=None, limit=9, before=state.created_id) == ([], None)


def test_a_failure_with_endless_details_fits_into_an_item(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    error = JobError.of(NodeExecutionError("x" * 30_000, details={f"d{n}": "y" * 19_000 for n in range(30)}))
    assert world.store.finish(job_id, ended(job_id, error=error), run="run-1", webhook=False, places=())
    told = world.read(job_id).document().error
    assert told is not None
    assert told.code == "node_execution_error"


def test_outputs_are_assets_of_the_owner(world: World) -> None:
    job_id = world.submit()
    state = world.begin(job_id)
    made = output("a.png")
    world.store.put_outputs(state, [(0, made)], run="run-1")
    item = world.store._table.get(f"asset#{made.id}", "asset")
    assert item is not None
    assert (item["owner"], item["job_id"], item["key"]) == ("team", job_id, "owners/team/x/9/a.png")


def test_the_newest_preview_is_read_with_the_events_only(world: World) -> None:
    job_id = world.submit()
    world.begin(job_id)
    world.store.put_preview(job_id, node_id="3", content_type="image/jpeg", data_base64="AAAA")
    assert world.read(job_id).preview is None
    state = world.store.read_with_preview(job_id)
    assert state is not None
    assert state.preview is not None
    assert state.preview.node_id == "3"
