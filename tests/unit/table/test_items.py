"""Items of the table: those of other releases are read, and nothing outside the table's rooms knows their keys."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Item, from_item
from comfy_serverless.batches.batch import Batch
from comfy_serverless.batches.ranges import Range
from comfy_serverless.jobs.document import JobStatus
from comfy_serverless.table.api_keys import ApiKey
from comfy_serverless.table.asset_item import Asset, Blob
from comfy_serverless.table.columns import keeper_of
from comfy_serverless.table.gate import Places
from comfy_serverless.table.job_item import STORED, JobEntry, JobItem, Preview, job_pk, job_update, outputs_of
from comfy_serverless.table.job_state import JobState
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.presigned_uploads import Upload
from comfy_serverless.table.turns import Turn
from comfy_serverless.table.usage_items import Counter, Usage
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.workflows.image_files import names_in, texts_in
from comfy_serverless.workflows.items import Head, VersionRow
from comfy_serverless.workflows.recheck import Found, Round
from tests.reach import meant
from tests.unit.jobs_table import aws, create_table
from tests.unit.table.written_items import AT, written_items
from tests.unit.table_clock import TableClock

FOLDER = Path("tests/fixtures/formats")
WORKERS = ("GenerateRole", "ExecutionRole", "Role")
FILES = sorted(FOLDER.glob("item_*.json"))
JOBS = [path for path in FILES if '"sk": {\n  "S": "job"\n' in path.read_text(encoding="utf-8")]
#: What no job is without, in any release.
NEEDED = {"pk", "sk", "id", "owner", "status", "created_at", "updated_at", "created_id", "request", "result"}
#: What an older release wrote and nobody read.
FORGOTTEN = {
    "is_dispatched": "job",
    "kind": "asset",
    "updated_at": "batch",
    "job_id": "idempotency",
    "is_told": "batch",
}
#: What this release writes beside it; the last one leaves it as it is.
ADDED = {
    "begun": "batch",
    "part_form": "batch",
    "line": "batch",
    "output_names": "job",
    "summary": "batch",
    "shown_json": "job",
}
READERS: dict[str, tuple[Callable[[Item], object], set[str]]] = {
    "asset": (Asset.from_item, {"id", "owner", "bucket", "key", "size_bytes", "created_at"}),
    "asset_of_job": (Asset.from_item, {"id", "owner", "bucket", "key", "size_bytes", "created_at"}),
    "blob": (Blob.from_item, {"key", "size_bytes"}),
    "api_key": (ApiKey.from_item, {"sk", "name", "owner_name", "created_at"}),
    "admin_key": (ApiKey.from_item, {"sk", "name", "owner_name", "created_at"}),
    "upload": (lambda item: Upload.from_item("u", item), {"owner_name", "size_bytes", "expires"}),
    "batch": (Batch.from_item, {"id", "owner_name", "source", "manifest", "size_bytes", "status", "created_at"}),
    "batch_range": (Range.from_item, {"start", "end", "offset"}),
    "webhook": (Webhook.from_item, {"url"}),
    "care": (Turn.from_item, {"begun", "first"}),
    "gate": (Places.from_item, set()),
    "workflow": (Head.from_item, {"pk", "sk", "latest"}),
    "workflow_version": (VersionRow.from_item, {"pk", "sk", "sha256"}),
    "usage": (Counter.from_item, {"pk", "sk"}),
    "usage_month": (Usage.from_item, set()),
    "checkup": (Found.from_item, {"begun"}),
    "checkup_round": (Round.from_item, {"stamp", "begun"}),
    "checkup_files": (names_in, set()),
    "checkup_file": (texts_in, {"content"}),
    "job_preview": (Preview.from_item, {"node_id", "content_type", "data_base64", "expires"}),
}


def stored(name: str) -> Item:
    return from_item(json.loads((FOLDER / f"item_{name}.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module", autouse=True)
def _when_they_were_written() -> Iterator[None]:
    """An item that has expired is gone for whoever reads the table."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        TableClock(monkeypatch, int(AT.timestamp()))
        yield


@pytest.fixture(scope="module")
def written() -> dict[str, dict[str, Any]]:
    with aws() as session:
        return written_items(session)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_written_is_what_was_written_before(path: Path, written: dict[str, dict[str, Any]]) -> None:
    """The same attributes of the same types; the values too, where they are not moments and random names."""
    name = path.stem.removeprefix("item_")
    before, now = stored(name), from_item(written[name])
    gone = set(before) - set(now)
    assert {FORGOTTEN[attribute] for attribute in gone} <= {name.partition("_")[0]}
    assert {ADDED[attribute] for attribute in set(now) - set(before)} <= {name.partition("_")[0]}
    kept = set(now) & set(before)
    assert {key: type(now[key]) for key in kept} == {key: type(before[key]) for key in kept}
    same = {"status", "labels", "runs", "is_rerunnable", "owner", "batches", "request", "result", "run"}
    same |= {"is_parked", "is_held", "is_missed", "undelivered", "output_places", "progress", "last_run"}
    assert now.get("webhook", {}) == {}, "it has an item of its own"
    assert {key: now[key] for key in same & set(now)} == {key: before[key] for key in same & set(now)}
    assert keeper_of(now.get("lease", "")) == keeper_of(before.get("lease", ""))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_is_read_with_every_column(path: Path) -> None:
    item = from_item(json.loads(path.read_text(encoding="utf-8")))
    state = JobState.from_item(item)
    again = state.to_item()
    if "lease" in again:  # which older releases wrote without a shard
        again["lease"], item["lease"] = keeper_of(again["lease"]), keeper_of(item["lease"])
    assert {name: item[name] for name in again} == again
    # What is not written again stands at its default.
    assert {name for name in set(item) - set(again) if item[name]} <= {"is_dispatched"}
    assert state.document().id == state.id


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_of_another_release_is_read(path: Path) -> None:
    item = from_item(json.loads(path.read_text(encoding="utf-8")))
    assert JobItem.from_item({**item, "of_tomorrow": {"a": [1]}}) == JobItem.from_item(item)
    for attribute in set(item) - NEEDED:
        state = JobState.from_item({name: value for name, value in item.items() if name != attribute})
        assert state.document().status is state.status
    bare = JobState.from_item({name: item[name] for name in NEEDED})
    assert (bare.runs, bare.labels, bare.is_rerunnable, bare.lease_ended) == (0, {}, True, False)


def test_jobs_say_what_their_items_say() -> None:
    said = {path.stem.removeprefix("item_job_"): JobState.from_item(stored(path.stem[5:])) for path in JOBS}
    assert {name for name, state in said.items() if state.is_over} == {
        "ended_with_outputs",
        "failed_with_webhook",
        "canceled",
    }
    assert {name for name, state in said.items() if state.is_parked} == {"parked"}
    assert {name for name, state in said.items() if state.is_of_batch} == {"parked", "of_batch"}
    assert {name for name, state in said.items() if state.waits_in_queue} == {"queued", "of_batch"}
    assert said["of_batch"].batches == {"b-1", "b-2"}
    assert (said["neglected"].is_held, said["neglected"].is_missed, said["neglected"].undelivered) == (True, False, 1)
    assert (said["sent_again"].sent_again, said["queued"].sent_again) == (2, 0)
    assert (said["given_back"].run, said["given_back"].last_run) == (None, "run-1")
    assert not said["running"].is_rerunnable
    assert (said["of_release"].release, said["of_release"].document().release_version) == ("next", "3f2a91c07b5e")
    assert {said["running"].release_version, said["running"].document().release_version} == {None}
    assert said["queued"].webhook == {"url": "https://example.com/", "secret": "whsec_x"}
    progress = said["running"].document().progress
    assert progress is not None
    assert progress.nodes_total == 2
    ended = said["ended_with_outputs"]
    assert [output.name for output in outputs_of(ended, [stored("job_output")])] == ["a.png"]
    assert outputs_of(ended, [{**stored("job_output"), "run": "another"}]) == ()


def test_no_item_that_a_worker_may_read_or_change_holds_a_secret(written: dict[str, dict[str, Any]]) -> None:
    """Custom nodes run with the workers' roles."""
    reached = set().union(*(meant(role)[what] for role in WORKERS for what in ("reads", "writes", "deletes")))
    found = {name: item for name, item in written.items() if f"{item['pk']['S'].partition('#')[0]}#" in reached}
    assert {"job_queued", "job_failed_with_webhook", "asset", "batch"} <= set(found)
    for name, item in found.items():
        text = json.dumps(item)
        assert "whsec_x" not in text, name
        assert "https://example.com/" not in text, f"{name}: an address of a webhook may hold one"
        assert not re.search(r'"\w*(secret|token|password|api_key)\w*"', text), name
    assert "whsec_x" in json.dumps(written["webhook"]), "it is where it should be"


def test_an_entry_of_a_list_is_read_from_what_the_index_has() -> None:
    item = stored("job_ended_with_outputs")
    entry = JobEntry.from_item({**item, "of_tomorrow": 1})
    assert (entry.id, entry.status, entry.labels) == ("ended_with_outputs", "succeeded", {"project": "fox"})
    bare = {name: value for name, value in item.items() if name not in {"completed_at", "labels"}}
    assert (JobEntry.from_item(bare).completed_at, JobEntry.from_item(bare).labels) == (None, {})


@pytest.mark.parametrize("name", READERS)
def test_other_items_of_another_release_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TableClock(monkeypatch, 0)
    (read, needed), item = READERS[name], stored(name)
    whole = read(item)
    assert whole is not None
    assert read({**item, "of_tomorrow": {"a": [1]}}) == whole
    for attribute in set(item) - needed:
        assert read({key: value for key, value in item.items() if key != attribute}) is not None
    assert read({key: item[key] for key in needed}) is not None


def test_what_is_unknown_stays_when_a_job_is_changed() -> None:
    with aws() as session:
        table, _ = create_table(session)
        jobs = JobStore(table, lease_s=30, max_runs=3)
        item = {**stored("job_queued"), "expires": 2**40, "of_tomorrow": {"a": [1]}}
        table.put(item)
        assert jobs.begin("queued", run="run-1").state is not None
        begun = table.get(job_pk("queued"), "job")
        assert begun is not None
        assert (begun["of_tomorrow"], begun["is_dispatched"], begun["runs"]) == ({"a": [1]}, True, 1)
        state = jobs.read("queued")
        assert state is not None
        assert (state.status, state.run) == (JobStatus.RUNNING, "run-1")


@pytest.mark.parametrize("damage", ["a state of tomorrow", "id", "status", "created_id", "request", "result"])
def test_a_neglected_job_that_cannot_be_read_costs_no_other_and_rests(damage: str) -> None:
    with aws() as session:
        table, _ = create_table(session)
        jobs = JobStore(table, lease_s=30, max_runs=3)
        table.put({**stored("job_neglected"), "lease_until": 2})
        damaged = {**stored("job_running"), "lease_until": 1}
        if damage == "a state of tomorrow":
            damaged["status"] = "of_tomorrow"
        else:
            del damaged[damage]
        table.put(damaged)
        assert [state.id for state in jobs.neglected(limit=10)] == ["neglected"]
        assert [state.id for state in jobs.neglected(limit=1)] == ["neglected"], "it does not stand first any more"


def test_a_job_keeps_the_version_that_its_message_had() -> None:
    assert JobState.from_item({**stored("job_queued"), "version": 2}).message.version == 2
    assert JobState.from_item(stored("job_queued")).message.version == 1


def test_a_change_names_columns_and_is_sent_with_the_names_of_the_table() -> None:
    change = job_update("1", assign={"keeper": "open"}, remove=["run"], condition="#keeper_due < :now").request()
    assert change["UpdateExpression"] == "SET #lease = :new_lease REMOVE #run"
    assert change["ConditionExpression"] == "#lease_until < :now"
    assert change["ExpressionAttributeNames"] == {"#lease": "lease", "#run": "run", "#lease_until": "lease_until"}
    with pytest.raises(KeyError):
        job_update("1", assign={"lease": "open"}, condition="")


def test_every_column_of_a_job_says_what_it_is() -> None:
    lines = Path("lambda/comfy_serverless/table/job_item.py").read_text(encoding="utf-8").splitlines()
    for column in fields(JobItem):
        (line,) = [line for line in lines[: lines.index("class JobEntry:")] if line.startswith(f"    {column.name}: ")]
        assert re.search(r"  # [\w`].{10}", line), f"{column.name} has no comment"
    assert set(STORED) == {column.name for column in fields(JobItem)}
    assert len(set(STORED.values())) == len(STORED)


#: Columns whose names say all, in any item.
PLAIN = {"id", "owner", "name", "created_at", "updated_at", "size_bytes", "content_type", "status"}


@pytest.mark.parametrize(
    "of", [Asset, Blob, ApiKey, Upload, Batch, Range, Webhook, Turn, Places, Head, VersionRow, Found, Round, Preview]
)
def test_every_column_of_other_items_says_what_it_is(of: type[Any]) -> None:
    lines, text = inspect.getsource(of).splitlines(), (inspect.getdoc(of) or "").partition("Attributes:")[2]
    for column in {field.name for field in fields(of)} - PLAIN:
        (line,) = [line for line in lines if line.startswith(f"    {column}: ")]
        assert re.search(r"  # .{10}", line) or re.search(rf"\b{column}\b", text), f"{column} is not explained"


def test_no_item_leaves_the_rooms_that_know_its_columns() -> None:
    """What can be seen of it: the type of items, and the functions that take them, are used nowhere else."""
    package = Path("lambda/comfy_serverless")
    batches = {package / "batches" / f"{name}.py" for name in ("batch", "lists", "ranges", "store")}
    stores = {package / "aws" / "dynamodb.py", *batches}
    workflows = {
        package / "workflows" / f"{name}.py"
        for name in ("items", "changes", "reader", "store", "recheck", "image_files")
    }
    inside = {*stores, *workflows, *(package / "table").glob("*.py")}
    for path in sorted({*package.rglob("*.py")} - inside):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "comfy_serverless.aws.dynamodb":
                names = {alias.name for alias in node.names}
                raw = {"Item", "Update", "put_write", "update_write", "delete_write", "to_item", "from_item"}
                assert not names & raw, f"{path} speaks of items"
            if isinstance(node, ast.Attribute):
                is_item = node.attr in {"from_item", "to_item", "query_all", "try_update", "transact"}
                assert not is_item, f"{path}:{node.lineno} handles an item"
