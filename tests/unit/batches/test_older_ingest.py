"""A release that knows no batches of the API leaves them alone: its own `ingest` follows orders about them here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.api import batch_submission
from comfy_serverless.api.auth import Caller
from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.ranges import ranges_for
from comfy_serverless.jobs.lines import manifest_address
from tests.releases import LAST, unpack
from tests.unit.jobs_table import NAME, REGION
from tests.unit.owned_batches import ASSETS, RESULTS, Batches, batches_world, line

INGEST = """
import json, os, sys
import boto3
from moto import mock_aws
asked = json.load(sys.stdin)
class Context:
    def get_remaining_time_in_millis(self): return 900_000
with mock_aws():
    made, s3, sqs = boto3.client("dynamodb"), boto3.client("s3"), boto3.client("sqs")
    made.create_table(BillingMode="PAY_PER_REQUEST", **asked["table"])
    for bucket in asked["buckets"]:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": os.environ["AWS_REGION"]})
    for bucket, key, text in asked["objects"]:
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode())
    for name in ("MANIFEST", "JOB", "BATCH"):
        os.environ[f"{name}_QUEUE_URL"] = sqs.create_queue(QueueName=name)["QueueUrl"]
    for item in asked["items"]:
        made.put_item(TableName=asked["table"]["TableName"], Item=item)
    from comfy_serverless.handlers.ingest import handler
    records = [{"messageId": str(at), "body": json.dumps(body)} for at, body in enumerate(asked["orders"])]
    failed = handler({"Records": records}, Context())["batchItemFailures"]
    left = [one["Key"] for bucket in asked["buckets"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    items = made.scan(TableName=asked["table"]["TableName"])["Items"]
    json.dump({"failed": failed, "items": items, "objects": sorted(left)}, sys.stdout)
"""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    with batches_world(monkeypatch) as world:
        yield world


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(LAST, tmp_path_factory.mktemp("release"))


def follow(world: Batches, orders: list[dict[str, Any]], packages: Path) -> dict[str, Any]:
    """What an older `ingest` makes of the world by these orders; the world itself stays as it is."""
    known: Mapping[str, Any] = world.services.table._client.describe_table(TableName=NAME)["Table"]
    names = ("IndexName", "KeySchema", "Projection")
    objects = [(ASSETS, one["Key"]) for one in world.s3.list_objects_v2(Bucket=ASSETS).get("Contents", [])]
    asked = {
        "table": {
            **{name: known[name] for name in ("TableName", "KeySchema", "AttributeDefinitions")},
            "GlobalSecondaryIndexes": [
                {name: index[name] for name in names} for index in known["GlobalSecondaryIndexes"]
            ],
        },
        "buckets": [ASSETS, RESULTS],
        "objects": [(*at, world.s3.get_object(Bucket=at[0], Key=at[1])["Body"].read().decode()) for at in objects],
        "items": world.all_items(),
        "orders": orders,
    }
    ran = subprocess.run(
        [sys.executable, "-c", INGEST],
        input=json.dumps(asked),
        env={
            **os.environ,
            "PYTHONPATH": str(packages),
            "JOBS_TABLE": NAME,
            "ASSETS_BUCKET": ASSETS,
            "OUTPUT_BUCKET": RESULTS,
            "AWS_DEFAULT_REGION": REGION,
        },
        cwd=packages,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def orders_about(batch: Batch) -> list[dict[str, Any]]:
    """All that anybody orders of a batch."""
    about = {"batch": batch.id}
    return [about, {**about, "start": 0}, {**about, "start": 0, "resume": True}, about]


def sorted_items(items: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


def test_an_older_ingest_neither_reads_nor_ends_a_batch_of_the_api(
    world: Batches, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.post({"name": "sent", "lines": [line(1), line(2)]}).status == 201
    monkeypatch.setattr(batch_submission, "MAX_SENT_BYTES", 10)
    upload = world.upload("many.jsonl", json.dumps(line(3)).encode())
    assert world.post({"name": "uploaded", "upload_id": upload}).status == 201
    sent, uploaded = world.batch("sent"), world.batch("uploaded")
    assert uploaded.take_from is not None
    before = world.all_items()

    after = follow(world, [*orders_about(sent), *orders_about(uploaded)], older)

    assert after["failed"] == [], "an order that failed would come again, and ring an alarm"
    assert sorted_items(after["items"]) == sorted_items(before)
    assert not [key for key in after["objects"] if "report" in key]
    monkeypatch.undo()
    world.look("sent")
    world.look("uploaded")
    world.look("uploaded")
    assert len(world.work()) == 3, "and the newer one goes on as if nothing had been"


def test_a_dropped_batch_that_runs_again_over_the_api_is_left_alone_too(world: Batches, older: Path) -> None:
    first = dropped(world, "photos-0123456789abcdef0123", b"")
    ended = replace(first, report=f"s3://{RESULTS}/batches/photos.report.json")
    again = replace(
        batch_submission._again(ended, "all", Caller(owner="team"), world.services), take_from=ended.report, only="all"
    )
    assert (again.name, again.take_from) == (None, ended.report)
    world.services.batches.announce(again, [], idempotency_key=None)
    before = world.all_items()
    assert sorted_items(follow(world, orders_about(again), older)["items"]) == sorted_items(before)


def test_an_older_ingest_still_reads_what_was_dropped(world: Batches, older: Path) -> None:
    batch = dropped(world, "photos-0123456789abcdef0123", json.dumps(line(1)).encode())
    after = follow(world, [{"batch": batch.id, "start": 0}], older)
    assert after["failed"] == []
    assert [item["id"]["S"] for item in after["items"] if item["sk"]["S"] == "job"]


def dropped(world: Batches, batch_id: str, content: bytes) -> Batch:
    """A manifest that `ingest` has taken."""
    copy = manifest_address(ASSETS, batch_id)
    world.s3.put_object(Bucket=ASSETS, Key=copy.key, Body=content)
    batch = Batch(
        id=batch_id,
        owner="team",
        source="s3://drops/batches/photos.jsonl",
        manifest=str(copy),
        size_bytes=len(content),
        status=BatchStatus.RUNNING,
        created_at=now_text(),
    )
    assert world.services.batches.create(batch, ranges_for(len(content)))
    return batch
