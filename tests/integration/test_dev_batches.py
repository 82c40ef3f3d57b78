"""A manifest through the whole service on this machine, while ingest and workers are killed at random."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from local.dev import DevStack
from tests.integration.test_dev_stack import small

pytestmark = pytest.mark.timeout(600)

#: The thousand of the README by hand: MANIFEST_LINES=1000.
BAD = 10
GOOD = int(os.environ.get("MANIFEST_LINES", "100")) - BAD


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevStack]:
    environment = {"LEASE_S": "3"}
    with DevStack(log_folder=tmp_path_factory.mktemp("dev"), environment=environment) as started:
        yield started
        assert started.aws.usage().denials == [], "template.yaml allows all that functions do"


def test_a_manifest_has_exact_counts_whatever_is_killed(stack: DevStack) -> None:
    lines = [json.dumps({"workflow": small(number)}) for number in range(GOOD)]
    chance = random.Random(3)
    for number in range(BAD):
        lines.insert(chance.randrange(len(lines)), ["{", "[]", "nonsense", '{"workflow": 1}'][number % 4])
    is_over = threading.Event()
    killer = threading.Thread(target=kill_at_random, args=(stack, chance, is_over))
    bucket = stack.stack.environment["ALLOWED_INPUT_BUCKETS"].split(",")[0]
    stack.aws.client().put_object(Bucket=bucket, Key="batches/thousand.jsonl", Body="\n".join(lines).encode())
    killer.start()
    try:
        summary, rows = report_of(stack, "thousand")
    finally:
        is_over.set()
        killer.join()
    assert (summary["lines"], summary["bad_lines"], summary["statuses"]) == (GOOD + BAD, BAD, {"succeeded": GOOD})
    assert Counter(row["status"] for row in rows) == {"succeeded": GOOD, "bad": BAD}
    assert len({row["job_id"] for row in rows if row["job_id"]}) == GOOD
    results = [row["result"] for row in rows if row["status"] == "succeeded"]
    for result in random.Random(1).sample(results, 20):
        stored = read(stack, result)
        assert (stored["status"], len(stored["outputs"])) == ("succeeded", 1)


def kill_at_random(stack: DevStack, chance: random.Random, is_over: threading.Event) -> None:
    """Three times the workers, and three times the processes of all functions: ingest is one of them."""
    for _ in range(3):
        if is_over.wait(chance.uniform(2, 6)):
            return
        stack.kill_workers()
        if is_over.wait(chance.uniform(1, 3)):
            return
        stack.functions.kill()


def report_of(stack: DevStack, name: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    bucket = stack.stack.environment["OUTPUT_BUCKET"]
    end = time.monotonic() + 500
    while True:
        found = stack.aws.client().list_objects_v2(Bucket=bucket, Prefix=f"batches/{name}-").get("Contents", [])
        keys = [entry["Key"] for entry in found if entry["Key"].endswith(".report.json")]
        if keys:
            break
        assert time.monotonic() < end, "there is no report"
        time.sleep(1)
    summary = read(stack, f"s3://{bucket}/{keys[0]}")
    table = summary["table"].removeprefix("s3://").partition("/")
    content = stack.aws.client().get_object(Bucket=table[0], Key=table[2])["Body"].read().decode()
    return summary, list(csv.DictReader(io.StringIO(content)))


def read(stack: DevStack, address: str) -> dict[str, Any]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    document: dict[str, Any] = json.loads(stack.aws.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    return document
