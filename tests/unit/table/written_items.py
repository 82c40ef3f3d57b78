"""Each kind of item, as the stores write it: what `tests/fixtures/formats/item_*.json` was made of."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.ranges import BadLine
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.jobs.declarations import DeclarationsReader, DeclarationsWriter
from comfy_serverless.jobs.document import Job, JobError, JobStatus, JobUrls, Output, Progress
from comfy_serverless.table.api_keys import ApiKeyStore, BudgetAction
from comfy_serverless.table.asset_names import digest_of
from comfy_serverless.table.assets import AssetStore, Naming
from comfy_serverless.table.event_keys import EventKeys
from comfy_serverless.table.gate import PlaceStore
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.table.presigned_uploads import UploadStore
from comfy_serverless.table.usage_items import Account
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.reader import WorkflowReader
from comfy_serverless.workflows.recheck import Recheck
from comfy_serverless.workflows.store import WorkflowStore
from comfy_serverless.workflows.version import Version
from tests.unit.jobs_table import REGION, create_table

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
MANIFEST = "s3://assets/requests/batches/b-1.jsonl"
KEY = "csk_only-an-example"


def written_items(session: Any) -> dict[str, dict[str, Any]]:
    """The items by the names of their files, in DynamoDB's own notation."""
    table, _ = create_table(session)
    jobs = JobStore(table, lease_s=30, max_runs=3)
    for write in _JOBS:
        write(jobs)
    _of_release(JobStore(table, lease_s=30, max_runs=3, release_version="3f2a91c07b5e"))
    s3 = session.client("s3")
    s3.create_bucket(Bucket="assets", CreateBucketConfiguration={"LocationConstraint": REGION})
    assets = AssetStore(table, s3, bucket="assets")
    naming = Naming(file_path="photo.png", content_type="image/png", tags=("input",), expires_in_s=3600)
    assets.store("team", io.BytesIO(b"bytes"), digest_of(io.BytesIO(b"bytes")), naming)
    assets.claim_key("team", "upload-1")
    UploadStore(assets).begin("team", naming, size_bytes=5, expected=None)
    keys = ApiKeyStore(table)
    key = keys.register(KEY, name="ci", owner="team", expires_in_s=3600, max_in_flight=5, requests_per_minute=60)
    told: dict[str, Any] = {"budget_nanousd": 20_000_000_000, "budget_action": BudgetAction.REFUSE}
    keys.register("csk_of-an-admin", name="boss", owner="ops", is_admin=True, **told)
    keys.count_request(key.id, limit=60)
    keys.revoke("ci")
    _write_batch(BatchStore(table))
    _push_workflow(WorkflowStore(table, s3, "assets"))
    EventKeys(table).today()
    _check_workflows(table, s3, keys)
    places = PlaceStore(table, "stack-gpu")
    assert places.replace(places.read(), {"queued": 1_795_917_900})
    client: Any = table._client
    found = client.scan(TableName=table.name)["Items"]
    return {name: item for item in found if (name := _name_of(item["pk"]["S"], item["sk"]["S"])) is not None}


def _name_of(pk: str, sk: str) -> str | None:
    match pk.partition("#")[0], sk.partition("#")[0], pk.rpartition("#")[2]:
        case "webhook", _, job_id if job_id != "queued":
            return None
        case "job", "job", job_id:
            return f"job_{job_id}"
        case "job", part, "ended_with_outputs":
            return f"job_{part}"
        case "asset", _, asset_id if asset_id == _output().id:
            return "asset_of_job"
        case "batch", ("newest" | "bad") as part, _:
            return {"newest": "batch_newest", "bad": "batch_bad_line"}[part]
        case "batch", "range", _:
            return "batch_range" if sk.endswith("#" + "0" * 15) else None
        case "batches", part, _:
            return "batch_name_of_owner" if part == "name" else "batch_of_owner"
        case "workflows", part, _:
            return "workflow_count" if not part else f"workflow{'_version' if '#' in sk else ''}"
        case "usage", part, _:
            return "usage_month" if part == "month" else "usage" if "#poster#" in sk else None
        case (("care" | "checkup"), ("workflows" | "files" | "file") as part, _):
            return f"checkup_{'round' if part == 'workflows' else part}"
        case kind, *_:
            return {"keys": "api_key", "admins": "admin_key"}.get(kind, kind)


def _push_workflow(workflows: WorkflowStore) -> None:
    graph = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}}}
    told: dict[str, Any] = {"description": "A poster", "note": "wider", "created_by": "ci", "release": "blue"}
    version = Version(name="poster", number=0, owner="team", graph=graph, created_at="2026-11-29T12:00:00.000Z", **told)
    workflows.push(version)
    workflows.move("team", "poster", "staging", {1: 90}, by="ann")


def _check_workflows(table: Table, s3: Any, keys: ApiKeyStore) -> None:
    """As the caretaker does, by what workers declare: not one class."""
    DeclarationsWriter(s3, "assets", "nodes", "blue").write({"Other": {"input": {}}})
    declarations = DeclarationsReader(s3, "assets", lambda: "nodes", lambda: "blue")
    reader = WorkflowReader(table, s3, "assets")
    with tempfile.TemporaryDirectory() as folder:
        graph = {"1": {"class_type": "Other", "inputs": {}, "_meta": {"title": "Other"}}}
        (Path(folder) / "other.json").write_text(json.dumps(graph))
        files = Finder(None, Path(folder), declarations.newest)
        checks = Recheck(table=table, keys=keys, reader=reader, named=files, declarations=declarations, lost=lambda: ())
        assert checks.go_on(until=float("inf")) == 2


def _queued(jobs: JobStore) -> None:
    jobs.submit(_new("queued", idempotency_key="once", webhook=Webhook(url="https://example.com/", secret="whsec_x")))
    jobs.dispatched("queued")


def _running(jobs: JobStore) -> None:
    jobs.submit(_new("running", is_rerunnable=False))
    jobs.begin("running", run="run-1")
    jobs.report("running", run="run-1", progress=Progress(value=0.5, nodes_done=1, nodes_total=2))


def _canceling(jobs: JobStore) -> None:
    jobs.submit(_new("canceling"))
    state = jobs.begin("canceling", run="run-1").state
    assert state is not None
    jobs.cancel(state)


def _given_back(jobs: JobStore) -> None:
    jobs.submit(_new("given_back"))
    jobs.begin("given_back", run="run-1")
    jobs.give_back("given_back", run="run-1")


def _ended(jobs: JobStore) -> None:
    job_id = "ended_with_outputs"
    jobs.submit(_new(job_id))
    state = jobs.begin(job_id, run="run-1").state
    assert state is not None
    jobs.put_preview(job_id, node_id="3", content_type="image/png", data_base64="AAAA")
    jobs.put_outputs(state, [(0, _output())], run="run-1")
    document = _document(job_id, outputs=(_output(),)).model_copy(update={"cost_usd": 0.25})
    account = Account(owner="team", key_id="0123456789ab", workflow="poster")
    jobs.finish(job_id, document, run="run-1", webhook=False, places=(0,), account=account)


def _failed(jobs: JobStore) -> None:
    jobs.submit(_new("failed_with_webhook", webhook=Webhook(url="https://example.com/")))
    jobs.begin("failed_with_webhook", run="run-1")
    error = JobError.of(NodeExecutionError("no", details={"node_id": "3"}))
    jobs.finish(
        "failed_with_webhook", _document("failed_with_webhook", error=error), run="run-1", webhook=True, places=()
    )


def _canceled(jobs: JobStore) -> None:
    jobs.cancel(jobs.submit(_new("canceled")))


def _neglected(jobs: JobStore) -> None:
    state = jobs.submit(_new("neglected"))
    jobs.renew(state, for_s=60, assign={"is_held": True, "is_missed": False, "undelivered": 1})


def _sent_again(jobs: JobStore) -> None:
    jobs.submit(_new("sent_again"))
    jobs.dispatched("sent_again")
    state = jobs.read_alone("sent_again")
    assert state is not None
    assert jobs.take_turn(state)
    jobs.renew(state, for_s=60, assign={"keeper": "open", "sent_again": 2})


def _of_release(jobs: JobStore) -> None:
    """The check of a release, at a worker that tells what its image was built from."""
    jobs.submit(_new("of_release", is_rerunnable=False, release="next"))
    jobs.begin("of_release", run="run-1")


def _of_batch(jobs: JobStore) -> None:
    jobs.submit_of_batch(_new("of_batch", batch="b-1"))
    jobs.submit_of_batch(_new("of_batch", batch="b-2"))


def _parked(jobs: JobStore) -> None:
    jobs.submit_of_batch(_new("parked", batch="b-1"))
    jobs.park("parked", batches=frozenset({"b-1"}))


_JOBS: tuple[Callable[[JobStore], None], ...] = (
    _queued,
    _running,
    _canceling,
    _given_back,
    _ended,
    _failed,
    _canceled,
    _neglected,
    _sent_again,
    _of_batch,
    _parked,
)


def _write_batch(batches: BatchStore) -> None:
    batch = Batch(
        id="b-1",
        owner="drops",
        source="s3://drops/batches/many.jsonl",
        manifest=MANIFEST,
        size_bytes=200,
        status=BatchStatus.RUNNING,
        created_at="2026-11-29T12:00:00.000Z",
    )
    batches.create(batch, [(0, 100), (100, 200)])
    batches.read_by("b-1", "arn:aws:states:eu-central-1:0:execution:batches:1")
    first = batches.ranges("b-1")[0]
    batches.mark_read(
        batch,
        first,
        replace(first, offset=100, lines=2, bad=1, begun=2),
        [BadLine(offset=50, line=2, message="no workflow")],
    )
    batches.mark_reported("b-1", first, form=2)
    batches.begin_advance("b-1")
    batches.complete(
        batch, "s3://results/batches/b-1.report.json", status=BatchStatus.COMPLETED, summary={"counts": {"bad": 1}}
    )


def _new(job_id: str, **fields: Any) -> NewJob:
    address = f"s3://assets/requests/team/{job_id}.json"
    result = f"s3://results/owners/team/{job_id}/result.json"
    return NewJob(
        job_id=job_id,
        owner="team",
        request_uri=address,
        result_uri=result,
        labels={"project": "fox"},
        created_at=AT,
        **fields,
    )


def _document(job_id: str, *, outputs: tuple[Output, ...] = (), error: JobError | None = None) -> Job:
    return Job(
        id=job_id,
        status=JobStatus.FAILED if error else JobStatus.SUCCEEDED,
        created_at=AT,
        started_at=AT,
        completed_at=AT,
        expires_at=AT,
        outputs=outputs,
        error=error,
        urls=JobUrls.of(job_id),
        warnings=("one thing",),
    )


def _output() -> Output:
    return Output(
        node_id="9",
        name="a.png",
        type="image",
        content_type="image/png",
        size_bytes=5,
        id="0a64e2b7-4d3c-5ad5-9d2c-6b2f6f0d1c11",
        job_id="ended_with_outputs",
        s3_uri="s3://results/owners/team/ended_with_outputs/9/a.png",
        sha256="0" * 64,
    )
