"""A manifest through the whole service on this machine, while ingest and workers are killed at random."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.batches.store import BatchStore
from demo.traces import ordered, trace_of_a_line
from local.aws.collector import Collector
from local.aws.processes import clean_environment
from local.aws.template import TABLE, name_of
from local.dev import DevStack
from tests.integration.test_dev_stack import small

pytestmark = pytest.mark.timeout(1800)

#: The thousand of the README by hand: MANIFEST_LINES=1000.
BAD = 10
GOOD = int(os.environ.get("MANIFEST_LINES", "100")) - BAD


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[DevStack]:
    environment = {"LEASE_S": "3", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    with DevStack(log_folder=tmp_path_factory.mktemp("dev"), environment=environment) as started:
        started.describe()
        yield started
        assert started.aws.usage().denials == [], "template.yaml allows all that functions do"


def test_a_manifest_has_exact_counts_whatever_is_killed(stack: DevStack, tmp_path: Path) -> None:
    lines = [json.dumps({"workflow": small(number)}) for number in range(GOOD)]
    chance = random.Random(3)
    for number in range(BAD):
        lines.insert(chance.randrange(len(lines)), ["{", "[]", "nonsense", '{"workflow": 1}'][number % 4])
    is_over = threading.Event()
    killer = threading.Thread(target=kill_at_random, args=(stack, chance, is_over))
    manifest = tmp_path / "thousand.jsonl"
    manifest.write_text("\n".join(lines))
    killer.start()
    try:
        run(stack, "submit", str(manifest), "--watch", "--force", code=1)
    finally:
        is_over.set()
        killer.join()
    summary, rows = report_of(stack, run(stack, "status", "thousand", code=1)["report"])
    assert (summary["lines"], summary["bad_lines"], summary["statuses"]) == (GOOD + BAD, BAD, {"succeeded": GOOD})
    assert Counter(row["status"] for row in rows) == {"succeeded": GOOD, "bad": BAD}
    assert len({row["job_id"] for row in rows if row["job_id"]}) == GOOD
    results = [row["result"] for row in rows if row["status"] == "succeeded"]
    for result in random.Random(1).sample(results, 20):
        stored = read(stack, result)
        assert (stored["status"], len(stored["outputs"])) == ("succeeded", 1)


def test_a_lines_spans_are_one_tree_and_its_picture_has_a_thumbnail(stack: DevStack, collector: Collector) -> None:
    spans = trace_of_a_line(stack, collector, name="traced")
    rows = ordered(spans)
    depths = {span.name: depth for depth, span in rows}
    assert depths.keys() >= {"submit line", "run job", "execute", "upload", "thumbnail", "store result"}
    assert [span.name for depth, span in rows if depth == 0] == ["submit line"]
    assert {depths[name] for name in ("wait in queue", "run job")} == {1}
    assert {depths[name] for name in ("execute", "upload", "thumbnail", "store result")} == {2}
    assert {depths[name] for name in ("EmptyImage", "ImageBlur", "ImageInvert", "SaveImage")} == {3}
    assert {span.service for span in spans} == {"ingest", "generate"}
    told = b"".join(collector.requests)
    for secret in (b"s3://", b"traced_0", b"AWS", b"secret", b"X-Amz"):
        assert secret not in told
    job_id = next(span for span in spans if span.name == "run job").attributes["comfy.job_id"]
    s3, bucket = stack.aws.client(), name_of("OutputBucket")
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"] if job_id in entry["Key"]]
    (thumbnail,) = [key for key in keys if "/thumbs/" in key]
    picture = Image.open(io.BytesIO(s3.get_object(Bucket=bucket, Key=thumbnail)["Body"].read()))
    assert (picture.format, picture.size) == ("WEBP", (384, 384))
    (original,) = [key for key in keys if key.endswith(".png")]
    whole = Image.open(io.BytesIO(s3.get_object(Bucket=bucket, Key=original)["Body"].read()))
    assert "prompt" in whole.info, "ComfyUI writes the workflow into its pictures"
    assert not {"prompt", "workflow", "exif", "xmp"} & picture.info.keys()


def test_a_folder_of_photos_becomes_a_folder_of_named_results(stack: DevStack, tmp_path: Path) -> None:
    photos, results = tmp_path / "photos", tmp_path / "results"
    photos.mkdir()
    for name, colour in (("fox 1.png", "red"), ("owl#2.png", "blue"), ("bär.png", "green")):
        Image.new("RGB", (64, 48), colour).save(photos / name)
    graph = json.loads((Path(__file__).parents[2] / "workflows" / "thumbnail.json").read_text())
    (tmp_path / "small.json").write_text(json.dumps(graph))
    shown = run(
        stack,
        *("run", str(tmp_path / "small.json"), "--each", str(photos / "*.png"), "--set", "ImageScale.width=32"),
        *("--label", "of=autumn", "--name", "small", "--manifest", str(tmp_path / "small.jsonl"), "--watch"),
    )
    assert (shown["succeeded"], shown["lines_total"], shown["status"]) == (3, 3, "completed")
    template = ("--out", str(results), "--name", "{metadata.of}/{input}")
    first = run(stack, "download", "small", *template)
    assert [file["is_new"] for file in first["files"]] == [True] * 3
    names = {path.relative_to(results).as_posix() for path in results.rglob("*.png")}
    assert names == {"autumn/fox 1.png", "autumn/owl_2.png", "autumn/bär.png"}
    for name, pixel in (("fox 1", (255, 0, 0)), ("owl_2", (0, 0, 255)), ("bär", (0, 128, 0))):
        with Image.open(results / "autumn" / f"{name}.png") as picture:
            assert (picture.width, picture.convert("RGB").getpixel((5, 5))) == (32, pixel)
    again = run(stack, "sheet", "small", "--out", str(results))
    assert [file["is_new"] for file in again["files"]] == [False] * 3
    assert again["drawn"] == [str(results / "gallery.html"), str(results / "contact-sheet.png")]
    assert "small" in [batch["name"] for batch in run(stack, "ls")["batches"]]


def test_photos_become_results_with_a_key_alone(stack: DevStack, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in (("fox 1.png", "red"), ("bär.png", "green")):
        Image.new("RGB", (64, 48), colour).save(photos / name)
    graph = json.loads((Path(__file__).parents[2] / "workflows" / "thumbnail.json").read_text())
    (tmp_path / "own.json").write_text(json.dumps(graph))
    shown = run_with_a_key(
        stack,
        *("run", str(tmp_path / "own.json"), "--each", str(photos / "*.png"), "--set", "ImageScale.width=32"),
        *("--label", "of=autumn", "--name", "keyed", "--manifest", str(tmp_path / "keyed.jsonl"), "--watch"),
    )
    assert (shown["succeeded"], shown["lines_total"], shown["status"]) == (2, 2, "completed")
    results = tmp_path / "results"
    run_with_a_key(stack, "sheet", "keyed", "--out", str(results), "--name", "{metadata.of}/{input}")
    for name, pixel in (("fox 1", (255, 0, 0)), ("bär", (0, 128, 0))):
        with Image.open(results / "autumn" / f"{name}.png") as picture:
            assert (picture.width, picture.convert("RGB").getpixel((5, 5))) == (32, pixel)
    assert (results / "gallery.html").is_file()
    assert "keyed" in [batch["name"] for batch in run_with_a_key(stack, "ls")["batches"]]


def run_with_a_key(stack: DevStack, *arguments: str, code: int = 0) -> Any:
    """The command line where no credentials of AWS, and no name of a stack, are known."""
    variables = {name: stack.client_variables[name] for name in ("COMFY_BASE_URL", "COMFY_API_KEY")}
    return ended(arguments, {**clean_environment(), **variables}, code=code)


def kill_at_random(stack: DevStack, chance: random.Random, is_over: threading.Event) -> None:
    """Three times the workers, and three times the processes of all functions: ingest is one of them.

    Not before the batch is known: a drop whose reading is killed comes again when its message is visible, in hours.
    """
    batches = BatchStore(Table(stack.aws.dynamodb(), TABLE))
    bucket = stack.stack.environment["ALLOWED_INPUT_BUCKETS"].split(",")[0]
    while batches.newest(f"s3://{bucket}/batches/thousand.jsonl") is None:
        if is_over.wait(0.1):
            return
    for _ in range(3):
        if is_over.wait(chance.uniform(2, 6)):
            return
        stack.kill_workers()
        if is_over.wait(chance.uniform(1, 3)):
            return
        stack.functions.kill()


def run(stack: DevStack, *arguments: str, code: int = 0) -> Any:
    """The command line, as in another terminal; `code` is the exit code that it must have."""
    return ended(arguments, {**clean_environment(), **stack.client_variables}, code=code)


def ended(arguments: tuple[str, ...], environment: dict[str, str], *, code: int) -> Any:
    command = [sys.executable, "-m", "comfy_serverless.cli", "batch", *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def report_of(stack: DevStack, address: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    summary = read(stack, address)
    table = summary["table"].removeprefix("s3://").partition("/")
    content = stack.aws.client().get_object(Bucket=table[0], Key=table[2])["Body"].read().decode()
    return summary, list(csv.DictReader(io.StringIO(content)))


def read(stack: DevStack, address: str) -> dict[str, Any]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    document: dict[str, Any] = json.loads(stack.aws.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    return document
