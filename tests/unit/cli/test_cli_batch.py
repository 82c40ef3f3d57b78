"""`comfy-serverless batch`, as a person uses it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.batches.store import BatchStatus
from comfy_serverless.cli import batch as cli_batch
from comfy_serverless.cli.stack import Stack
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.jobs.sources import DroppedObject
from tests.unit.batch_world import DROPS, World, manifest
from tests.unit.jobs_table import aws


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    with aws() as session:
        here = World(session)
        stack = Stack(here.batches, here.s3, DROPS, JobQueue(here.sqs, here.urls["manifests"]))
        monkeypatch.setattr(Stack, "of", staticmethod(lambda name: stack))
        yield here


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli_batch.add_parser(parser.add_subparsers(dest="command"))
    action, *rest = arguments
    return cli_batch.run(parser.parse_args(["batch", action, "--stack", "s", *rest]))


def take(world: World, name: str) -> None:
    """Have `ingest` take the manifest, as S3's event does on this machine."""
    key = f"batches/{name}.jsonl"
    version = world.s3.head_object(Bucket=DROPS, Key=key)["ETag"].strip('"')
    world.drops.begin_batch(DroppedObject(address=S3Address(DROPS, key), version=version))


def test_a_batch_from_the_file_to_its_report_and_again(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(manifest(8, bad=2))
    assert run("submit", str(file)) == 0
    take(world, "many")
    world.read_all()
    capsys.readouterr()
    assert run("status", "many", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["status"], facts["lines"], facts["bad"], facts["read"]) == ("running", 10, 2, "100 %")
    world.work(failing=4)
    batch = world.batches.newest(f"s3://{DROPS}/batches/many.jsonl")
    assert batch is not None
    world.look(batch)
    assert run("status", "many") == 0
    printed = capsys.readouterr().out
    assert "completed" in printed
    assert "report.json" in printed
    assert run("retry", "many") == 0
    take(world, "many-again")
    world.read_all()
    assert len(world.work()) == 2


def test_a_batch_is_not_taken_for_the_one_of_the_same_name_before(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nightly.jsonl"
    file.write_bytes(manifest(3))
    run("submit", str(file))
    take(world, "nightly")
    world.read_all()
    world.work()
    before = world.batches.newest(f"s3://{DROPS}/batches/nightly.jsonl")
    assert before is not None
    assert world.look(before).report is not None
    file.write_bytes(manifest(5, first=100))
    monkeypatch.setattr(cli_batch, "WATCH_EVERY_S", 0.0)
    steps = iter([lambda: take(world, "nightly"), world.read_all, world.work, lambda: look_at_newest(world)])
    monkeypatch.setattr(cli_batch.time, "sleep", lambda _seconds: next(steps)())
    capsys.readouterr()
    assert run("submit", str(file), "--watch", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["lines"], facts["jobs"]) == (5, {"succeeded": 5})
    assert facts["batch"] != before.id


def test_an_unchanged_manifest_is_named_as_the_batch_it_is_already(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nightly.jsonl"
    file.write_bytes(manifest(3))
    run("submit", str(file))
    take(world, "nightly")
    world.read_all()
    world.work()
    look_at_newest(world)
    monkeypatch.setattr(cli_batch.time, "sleep", lambda _seconds: pytest.fail("there is nothing to wait for"))
    standing = world.batches.newest(f"s3://{DROPS}/batches/nightly.jsonl")
    assert standing is not None
    capsys.readouterr()
    assert run("submit", str(file), "--watch", "--json") == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert (facts["batch"], facts["jobs"]) == (standing.id, {"succeeded": 3})
    assert f"is the batch {standing.id} already" in printed.err


def look_at_newest(world: World) -> None:
    batch = world.batches.newest(f"s3://{DROPS}/batches/nightly.jsonl")
    assert batch is not None
    world.look(batch)


def test_bad_lines_are_told_before_the_end(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(manifest(3, bad=5))
    run("submit", str(file))
    take(world, "many")
    world.read_all()
    capsys.readouterr()
    run("status", "many")
    printed = capsys.readouterr().out
    assert printed.count("bad line ") == cli_batch.BAD_LINES_SHOWN
    assert "at line " in printed
    assert "report" not in printed


def test_a_batch_is_paused_resumed_and_canceled(world: World, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(manifest(5))
    run("submit", str(file), "--name", "five")
    take(world, "five")
    world.read_all()
    run("pause", "five")
    assert world.work() == []
    assert world.messages("manifests") != []
    run("resume", "five")
    for message in world.messages("manifests"):
        world.keeper.resume(message["batch"], start=message.get("start", 0), until=float("inf"))
    assert len(world.work(some=2)) == 2
    run("cancel", "five")
    batch = world.batches.newest(f"s3://{DROPS}/batches/five.jsonl")
    assert batch is not None
    assert batch.status is BatchStatus.CANCELED
    with pytest.raises(InvalidRequest, match="it is canceled"):
        run("pause", "five")


def test_what_cannot_be_is_said(world: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no batch 'none'"):
        run("status", "none")
    with pytest.raises(NotFound, match="no file"):
        run("submit", str(tmp_path / "none.jsonl"))
    with pytest.raises(InvalidRequest, match="--name"):
        run("submit", str(tmp_path / "with space.jsonl"))


def test_help_teaches_and_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    parser = argparse.ArgumentParser()
    cli_batch.add_parser(parser.add_subparsers(dest="command"))
    with pytest.raises(SystemExit):
        parser.parse_args(["batch", "--help"])
    printed: Any = capsys.readouterr().out
    assert "retry" in printed
    assert max(map(len, printed.splitlines())) <= 120
