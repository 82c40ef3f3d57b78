"""Each job counts once, whatever crashes, is tried again or ends it: a model of the counters beside the store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.aws import dynamodb
from comfy_serverless.aws.dynamodb import Table, Update
from comfy_serverless.errors import Canceled, EngineCrashed
from comfy_serverless.jobs.document import Job, JobStatus, JobUrls
from comfy_serverless.table.job_state import JobState, NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.usage import UsageStore
from comfy_serverless.table.usage_items import SHARDS, Account, Usage, counted, total
from tests.unit.jobs_table import aws, create_table
from tests.unit.table_clock import TableClock

NOW = datetime(2026, 11, 29, 23, 59, tzinfo=UTC)
FIRST, LAST = date(2026, 1, 1), date(2099, 12, 31)
OWNERS = ("ana", "bob")
#: Worlds share one table: making one takes longer than all that is done in it.
NUMBERS = itertools.count()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    TableClock(monkeypatch, int(NOW.timestamp()))
    with aws() as session:
        yield create_table(session)[0]


def document(job_id: str, *, cost_usd: float | None = 0.25, status: JobStatus = JobStatus.SUCCEEDED) -> Job:
    return Job(
        id=job_id,
        status=status,
        created_at=NOW,
        completed_at=NOW,
        expires_at=NOW,
        urls=JobUrls.of(job_id),
        cost_usd=cost_usd,
        timings_ms={"total": 3000, "queued": 1000},
        metrics={"output_bytes": 7},
        outputs_total=2,
    )


class World:
    """Jobs of two owners, faults of the table, and what should have been counted."""

    def __init__(self, table: Table) -> None:
        self.jobs = JobStore(table, lease_s=30, max_runs=3)
        self.usage = UsageStore(table)
        number = next(NUMBERS)
        self.owners = {name: f"{name}-{number}" for name in OWNERS}
        self.expected: dict[str, Usage] = dict.fromkeys(self.owners.values(), Usage())
        self._table = table

    def submit(self, owner: str) -> JobState:
        job_id = f"job-{next(NUMBERS)}"
        new = NewJob(job_id=job_id, owner=owner, request_uri="s3://a/b", result_uri="s3://a/c", key_id=f"key-{owner}")
        return self.jobs.submit(new)

    def end(self, owner: str, way: str, faults: list[str]) -> None:
        """End one job in a way, again after each fault, as workers, the caretaker and callers do."""
        state = self.submit(owner)
        job = document(state.id, status=JobStatus.FAILED if way == "fails" else JobStatus.SUCCEEDED)
        if way in ("finishes", "fails", "lost"):
            state = self.jobs.begin(state.id, run="run-1").state or state
        if way == "lost":  # another run takes it, and the first one comes too late
            current = self.jobs.read_alone(state.id)
            assert current is not None
            assert self.jobs.take_over(current, run="run-2")
            assert not self._finish(state, job, run="run-1", faults=[])
        for again in range(2):  # whoever has lost the answer asks again
            self._end_once(state, job, way, [] if again else faults)
        has_run = way in ("finishes", "fails", "lost")
        self.expected[owner] += Usage.of(job) if has_run else Usage(jobs=1, failed=int(way == "given up"))

    def _end_once(self, state: JobState, job: Job, way: str, faults: list[str]) -> None:
        match way:
            case "finishes" | "fails":
                self._finish(state, job, run="run-1", faults=faults)
            case "lost":
                self._finish(state, job, run="run-2", faults=faults)
            case "canceled":
                self._whatever(lambda: self.jobs.cancel(self.jobs.read(state.id) or state), faults)
            case "given up":
                self._whatever(lambda: self.jobs.fail(state, EngineCrashed("lost")), faults)
            case "refused":
                refused = document(state.id, status=JobStatus.CANCELED, cost_usd=None)
                bare = refused.model_copy(update={"timings_ms": {}, "metrics": {}, "outputs_total": None})
                self._whatever(lambda: self.jobs.refuse(state, bare), faults)

    def _finish(self, state: JobState, job: Job, *, run: str, faults: list[str]) -> bool:
        done: list[bool] = []
        self._whatever(
            lambda: done.append(
                self.jobs.finish(state.id, job, run=run, webhook=False, places=(), account=state.account)
            ),
            faults,
        )
        return bool(done and done[-1])

    def _whatever(self, act: Any, faults: list[str]) -> None:
        with faulty(self._table, faults):
            try:
                act()
            except (ConnectionClosedError, ClientError):
                return  # the caller comes again

    def counted(self, owner: str) -> Usage:
        return total(counter.usage for counter in self.usage.counters(owner, FIRST, LAST))


def faulty(table: Table, faults: list[str]) -> Any:
    """The table's transactions fail so, one after the other: before they are done, or after."""
    left, transact = list(faults), table._client.transact_write_items

    def fail(**request: Any) -> Any:
        fault = left.pop(0) if left else ""
        if fault == "conflict":
            told: Any = {
                "Error": {"Code": "TransactionCanceledException"},
                "CancellationReasons": [{"Code": "TransactionConflict"}],
            }
            raise ClientError(told, "TransactWriteItems")
        if fault == "unsent":
            raise ConnectionClosedError(endpoint_url="x")
        answer = transact(**request)
        if fault == "unheard":
            raise ConnectionClosedError(endpoint_url="x")
        return answer

    return patch.object(table._client, "transact_write_items", fail)


WAYS = st.sampled_from(["finishes", "fails", "lost", "canceled", "given up", "refused"])
FAULTS = st.lists(st.sampled_from(["conflict", "unsent", "unheard"]), max_size=3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(st.tuples(st.sampled_from(OWNERS), WAYS, FAULTS), max_size=4))
def test_each_job_counts_once_whatever_happens(table: Table, told: list[tuple[str, str, list[str]]]) -> None:
    with patch.object(dynamodb, "_pause", return_value=None):
        world = World(table)
        for name, way, faults in told:
            world.end(world.owners[name], way, faults)
        for owner in world.owners.values():
            assert world.counted(owner) == world.expected[owner]
            spent = world.usage.spent_nanousd(owner, f"key-{owner}")
            assert spent == (world.expected[owner].nanousd or 0)


def test_a_conflict_is_tried_again_at_once_and_one_that_lasts_costs_the_sum_and_no_outcome(table: Table) -> None:
    world = World(table)
    with patch.object(dynamodb, "_pause", return_value=None) as pause:
        state, other = world.submit("ana"), world.submit("ana")
        with faulty(table, ["conflict"] * 3):
            assert world.jobs.fail(state, Canceled("no"))
        assert world.counted("ana") == Usage(jobs=1)
        pause.reset_mock()
        with faulty(table, ["conflict"] * 20):
            assert world.jobs.fail(other, Canceled("no"))
        assert pause.call_count == len(dynamodb._OUT_OF_STEP_S)
    read = world.jobs.read_alone(other.id)
    assert read is not None
    assert read.is_over
    assert world.counted("ana") == Usage(jobs=1)


@pytest.mark.parametrize("operation", ["update_item", "put_item", "delete_item"])
def test_a_plain_write_beside_a_transaction_is_tried_again(table: Table, operation: str) -> None:
    writes: dict[str, Callable[[], object]] = {
        "update_item": lambda: table.update(Update(pk="job#1", sk="job", assign={"a": 1})),
        "put_item": lambda: table.put({"pk": "job#1", "sk": "job", "a": 1}),
        "delete_item": lambda: table.delete("job#1", "job"),
    }
    write, left = getattr(table._client, operation), [1, 1]

    def fail(**request: Any) -> Any:
        if left:
            left.pop()
            raise ClientError({"Error": {"Code": "TransactionConflictException"}}, operation)
        return write(**request)

    with patch.object(table._client, operation, fail), patch.object(dynamodb, "_pause", return_value=None):
        writes[operation]()
    assert left == []


def test_jobs_are_spread_over_shards_and_each_stays_on_its_own() -> None:
    account = Account(owner="ana", key_id="k", workflow="poster")
    keys = [
        str(write["Update"]["Key"]["sk"]["S"]) for n in range(200) for write in counted(str(n), document("1"), account)
    ]
    assert {key.rpartition("#")[2] for key in keys} == {f"{shard:02}" for shard in range(SHARDS)}
    assert {key.rpartition("#")[0] for key in keys} == {"2026-11-29#poster#k", "month#2026-11#k"}
    assert counted("1", document("1"), account) == counted("1", document("1"), account)


def test_a_job_without_a_key_has_no_month_and_an_unknown_price_is_no_zero() -> None:
    (write,) = counted("1", document("1", cost_usd=None), Account(owner="drops"))
    assert write["Update"]["Key"]["sk"]["S"].startswith("2026-11-29###")
    assert ":add_nanousd" not in write["Update"]["ExpressionAttributeValues"]
    assert Usage() + Usage(nanousd=None) == Usage()
    assert (Usage(nanousd=1) + Usage()).nanousd == 1


@pytest.mark.parametrize("code", ["AccessDeniedException", "TransactionCanceledException"])
def test_an_end_that_cannot_be_counted_is_written_all_the_same(table: Table, code: str) -> None:
    world = World(table)
    state = world.submit("ana")
    world.jobs.begin(state.id, run="run-1")
    refused = ClientError({"Error": {"Code": code}}, "TransactWriteItems")
    with patch.object(Table, "transact", side_effect=refused):
        account = state.account
        for run, is_ours in (("run-0", False), ("run-1", True), ("run-1", False)):
            ended = world.jobs.finish(state.id, document(state.id), run=run, webhook=False, places=(), account=account)
            assert ended is is_ours
    read = world.jobs.read_alone(state.id)
    assert read is not None
    assert read.status is JobStatus.SUCCEEDED


def test_an_end_of_which_nobody_knows_whether_it_is_written_is_not_written_again(table: Table) -> None:
    world = World(table)
    state = world.submit("ana")
    world.jobs.begin(state.id, run="run-1")
    unknown = ClientError({"Error": {"Code": "InternalServerError"}}, "TransactWriteItems")
    with patch.object(Table, "transact", side_effect=unknown), pytest.raises(ClientError):
        world.jobs.finish(state.id, document(state.id), run="run-1", webhook=False, places=(), account=state.account)
    read = world.jobs.read_alone(state.id)
    assert read is not None
    assert read.status is JobStatus.RUNNING
