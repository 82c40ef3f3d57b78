"""`comfy-serverless batch`, as a person uses it."""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.s3 import Pin, S3Address
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.cli import batch as cli_batch
from comfy_serverless.cli.batches import telling
from comfy_serverless.cli.stack import Stack
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound
from comfy_serverless.jobs.sources import DroppedObject
from tests.unit.batch_world import DROPS, World, manifest
from tests.unit.jobs_table import aws

#: S3 numbers each writing of a key.
WRITINGS = itertools.count(1)


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


def take(world: World, name: str) -> Batch:
    """Have `ingest` take the manifest, as S3's event does."""
    key = f"batches/{name}.jsonl"
    etag = world.s3.head_object(Bucket=DROPS, Key=key)["ETag"].strip('"')
    dropped = DroppedObject(address=S3Address(DROPS, key), version=f"{next(WRITINGS)}", pin=Pin(etag=etag))
    return world.drops.begin_batch(dropped)


def test_a_batch_from_the_file_to_its_report_and_again(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(manifest(8, bad=2))
    assert run("submit", str(file), "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bad"] == 2
    take(world, "many")
    world.read_all()
    assert run("status", "many", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["status"], facts["lines"], facts["bad"], facts["is_read"]) == ("running", 10, 2, True)
    world.work(failing=4)
    look_at_newest(world, "many")
    assert run("status", "many") == 1
    printed = capsys.readouterr().out
    assert "lines      10: 6 succeeded, 2 failed, 2 bad" in printed
    assert "report.json" in printed
    assert run("retry", "many") == 0
    told = capsys.readouterr().err
    assert "2 lines left out: node_execution_error: the same line would fail again." in told
    assert "2 lines left out: no request" in told
    assert "nothing to run again" in told
    assert run("retry", "many", "--only", "all", "--json") == 0
    assert json.loads(capsys.readouterr().out)["lines"] == 2
    take(world, "many-again")
    world.read_all()
    assert len(world.work()) == 2


def test_bad_lines_hide_no_line_that_failed(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(world, tmp_path, b"no\n" * 4 + manifest(8), "--force")
    world.work(failing=1)
    look_at_newest(world, "many")
    assert run("status", "many") == 3
    printed = capsys.readouterr().out
    assert printed.count("failed     line ") == 3
    assert "and 1 more" in printed, "bad lines"
    assert "in all 8 node_execution_error" in printed


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
    steps: Iterator[Callable[[], object]] = iter(
        [lambda: take(world, "nightly"), world.read_all, world.work, lambda: look_at_newest(world)]
    )
    monkeypatch.setattr(time, "sleep", lambda _seconds: next(steps)())
    capsys.readouterr()
    assert run("submit", str(file), "--watch", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["lines"], facts["succeeded"]) == (5, 5)
    assert facts["batch"] != before.id


def test_an_unchanged_manifest_that_is_dropped_again_is_a_new_batch_of_the_same_jobs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nightly.jsonl"
    file.write_bytes(manifest(3))
    run("submit", str(file))
    first = take(world, "nightly")
    world.read_all()
    assert len(world.work()) == 3
    look_at_newest(world)
    capsys.readouterr()

    def pass_time(_seconds: float) -> None:
        if world.batches.newest(f"s3://{DROPS}/batches/nightly.jsonl") == world.batches.get(first.id):
            take(world, "nightly")
            world.read_all()
            assert world.work() == []
        look_at_newest(world)

    monkeypatch.setattr(time, "sleep", pass_time)
    assert run("submit", str(file), "--watch", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["batch"] != first.id
    assert facts["succeeded"] == 3


@pytest.mark.parametrize("name", ["photos.jsonl.gz", "photos.ndjson", "photos.JSONL", "photos.ndjson.gz"])
def test_a_manifest_of_any_ending_is_known_by_its_name(world: World, tmp_path: Path, name: str) -> None:
    content = manifest(3)
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert run("submit", str(file)) == 0
    batch = take(world, "photos")
    assert batch.size_bytes == len(content)
    assert run("status", "photos") == 0
    world.read_all()
    assert len(world.work()) == 3


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["submit", "dry run"])
def test_what_is_no_manifest_is_told_that_before_its_name_is_judged(
    world: World, tmp_path: Path, options: tuple[str, ...]
) -> None:
    picture, folder, lines = tmp_path / "my.photo.png", tmp_path / "photos", tmp_path / "my.photos.jsonl"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 99)
    folder.mkdir()
    lines.write_bytes(manifest(1))
    for file, why in ((picture, "its content is image/png"), (folder, "is a folder"), (lines, "give --name")):
        with pytest.raises(ComfyError, match=why):
            run("submit", str(file), *options)
    assert "Contents" not in world.s3.list_objects_v2(Bucket=DROPS)


def look_at_newest(world: World, name: str = "nightly") -> None:
    batch = world.batches.newest(f"s3://{DROPS}/batches/{name}.jsonl")
    assert batch is not None
    world.look(batch)


def test_bad_lines_are_told_before_the_end(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(manifest(3, bad=5))
    run("submit", str(file), "--force")
    take(world, "many")
    world.read_all()
    capsys.readouterr()
    assert run("status", "many") == 0
    printed = capsys.readouterr().out
    bad = [number for number, line in enumerate(file.read_text().splitlines(), start=1) if not line.endswith("}}")]
    for number in bad[: telling.SHOWN]:
        assert f"bad        line {number}: " in printed
    assert "and 2 more" in printed
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
    with pytest.raises(NotFound, match="no file"):
        run("submit", str(tmp_path / "with space.jsonl"))
    begin(world, tmp_path, manifest(1))
    with pytest.raises(NotFound, match="has not ended"):
        run("download", "many")


def test_help_teaches_and_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    parser = argparse.ArgumentParser()
    cli_batch.add_parser(parser.add_subparsers(dest="command"))
    with pytest.raises(SystemExit):
        parser.parse_args(["batch", "--help"])
    printed: Any = capsys.readouterr().out
    assert "retry" in printed
    assert max(map(len, printed.splitlines())) <= 120


def begin(world: World, folder: Path, content: bytes, *options: str) -> None:
    """Submit a manifest as the batch `many`, and have it read."""
    file = folder / "many.jsonl"
    file.write_bytes(content)
    assert run("submit", str(file), *options) == 0
    take(world, "many")
    world.read_all()


def test_a_manifest_that_would_fail_is_not_sent_unless_it_is_wanted(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(manifest(8, bad=2) + b'\n{"workflow": "x", "inputs": {"1.image": "none.jpg"}}')
    with pytest.raises(InvalidRequest, match=r"3 of 11 lines .* would fail") as refused:
        run("submit", str(file))
    assert "line 11: 1.image: 'none.jpg': there is no such file" in refused.value.message
    assert len(refused.value.details["problems"]) == 3
    assert "Contents" not in world.s3.list_objects_v2(Bucket=DROPS)
    assert run("submit", str(file), "--dry-run", "--force") == 1
    assert "Contents" not in world.s3.list_objects_v2(Bucket=DROPS)
    file.write_bytes(b"\n\n")
    with pytest.raises(InvalidRequest, match="no line"):
        run("submit", str(file), "--force")


def test_a_mistake_of_every_line_is_told_once_and_hides_no_other(world: World, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    lines = [json.dumps({"workflow": "x", "inputs": {"1.image": f"{number}.jpg"}}) for number in range(1, 41)]
    file.write_text("\n".join([*lines, "hello", "hello", *(f'{{"field{letter}": 1}}' for letter in "abcdefghijk")]))
    with pytest.raises(InvalidRequest) as refused:
        run("submit", str(file))
    _, *told = refused.value.message.splitlines()
    assert told[0].startswith("  lines 1, 2, 3, 4, 5 and 35 more, e.g. 1.image: '1.jpg': there is no such file")
    assert told[1].startswith("  lines 41, 42: the line is not JSON")
    assert told[10] == "  and 3 more lines (--json lists the first 1,000)"
    assert len(refused.value.details["problems"]) == 53


def test_what_a_manifest_asks_for_once_or_at_random_is_told(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "many.jsonl"
    drawn = json.dumps({"workflow": {"3": {"class_type": "KSampler", "inputs": {"seed": -1}}}})
    file.write_bytes(b"\n".join([manifest(2), b"", manifest(1), drawn.encode(), drawn.encode()]))
    assert run("submit", str(file), "--dry-run", "--json") == 0
    printed = capsys.readouterr()
    assert "1 line repeated: 4 (as 1)" in printed.err
    assert "2 lines with a random seed (-1) or alternatives" in printed.err
    facts = json.loads(printed.out)
    assert (facts["lines"], facts["duplicates"], facts["random_seeds"]) == (5, 1, 2)


@pytest.mark.parametrize(
    ("good", "bad", "failing", "code"), [(3, 0, 0, 0), (3, 1, 0, 1), (3, 0, 2, 1), (3, 0, 1, 3), (0, 2, 0, 3)]
)
def test_the_exit_code_tells_how_a_batch_has_ended(
    world: World, tmp_path: Path, good: int, bad: int, failing: int, code: int
) -> None:
    begin(world, tmp_path, manifest(good, bad=bad), "--force")
    assert run("status", "many") == 0
    world.work(failing=failing)
    look_at_newest(world, "many")
    assert run("status", "many") == code
    assert run("status", "many", "--watch") == code


def test_a_batch_that_an_older_release_has_ended_is_counted_by_its_report(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(world, tmp_path, manifest(3, bad=1), "--force")
    world.work()
    look_at_newest(world, "many")
    counted = world.batches.ranges

    def never_counted(batch_id: str) -> list[Any]:
        return [replace(part, ends=None, ahead=None) for part in counted(batch_id)]

    monkeypatch.setattr(world.batches, "ranges", never_counted)
    capsys.readouterr()
    assert run("status", "many", "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["succeeded"], facts["bad"], facts["queued"], facts["ended"]) == (3, 1, 0, 4)


def test_a_paused_batch_is_told_and_not_waited_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("it is paused"))
    begin(world, tmp_path, manifest(3))
    run("pause", "many")
    capsys.readouterr()
    assert run("status", "many", "--watch") == 4
    assert run("status", "many") == 0
    told = capsys.readouterr().err
    assert "0/3  paused" in told
    assert "batch resume many" in told


def test_ctrl_c_while_watching_says_that_the_batch_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "many.jsonl"
    file.write_bytes(manifest(3))
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("submit", str(file), "--watch")
    assert "batch status many --watch" in capsys.readouterr().err


def test_plain_lines_tell_of_progress_where_there_is_no_terminal(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(world, tmp_path, manifest(4))
    capsys.readouterr()
    steps: Iterator[Callable[[], object]] = iter(
        [lambda: look_at_newest(world, "many"), world.work, lambda: look_at_newest(world, "many")]
    )
    monkeypatch.setattr(time, "sleep", lambda _seconds: next(steps)())
    monkeypatch.setattr(telling, "WATCH_EVERY_S", 0.0)
    assert run("status", "many", "--watch") == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "0/4"
    assert told[-1].startswith("4/4")
    assert "\x1b" not in "".join(told)


def test_all_batches_are_listed_the_newest_first(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list") == 0
    assert "no batches" in capsys.readouterr().err
    for name, count in {"first": 2, "second": 3}.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_bytes(manifest(count, first=100 * count))
        run("submit", str(file))
        take(world, name)
    world.read_all()
    capsys.readouterr()
    assert run("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["batches"]
    assert [(one["name"], one["lines"], one["status"]) for one in listed] == [
        ("second", 3, "running"),
        ("first", 2, "running"),
    ]
    assert run("list", "--limit", "1") == 0
    printed = capsys.readouterr().out
    assert "second" in printed
    assert "first" not in printed


def test_every_number_in_json_is_one_and_every_key_is_in_snake_case(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(world, tmp_path, manifest(3, bad=1), "--force")
    world.work(failing=3)
    look_at_newest(world, "many")
    for action in (("status", "many"), ("list",)):
        capsys.readouterr()
        run(*action, "--json")
        pending = [json.loads(capsys.readouterr().out)]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                assert all(re.fullmatch("[a-z][a-z0-9_]*", key) for key in value), value
                pending.extend(value.values())
            elif isinstance(value, list):
                pending.extend(value)
            elif isinstance(value, str):
                assert not re.fullmatch(r"[\d.,]+ ?%?", value)


def test_local_files_go_along_and_lines_name_them_there(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    line = {
        "workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": "x"}}},
        "inputs": {"1.image": "photo.jpg"},
    }
    content = json.dumps(line).encode()
    (tmp_path / "many.jsonl").write_bytes(content)
    with pytest.raises(InvalidRequest, match="--upload sends it"):
        run("submit", str(tmp_path / "many.jsonl"))
    begin(world, tmp_path, content, "--upload")
    assert "1 local file: 1 was sent, 5 bytes." in capsys.readouterr().err
    dropped = json.loads(world.s3.get_object(Bucket=DROPS, Key="batches/many.jsonl")["Body"].read())
    bucket, _, key = dropped["inputs"]["1.image"].removeprefix("s3://").partition("/")
    assert world.s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"photo"


def test_a_workflow_runs_for_each_of_many_files_without_a_manifest(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
        "2": {"class_type": "Blur", "inputs": {"by": 1}},
    }
    (tmp_path / "blur.json").write_text(json.dumps(graph))
    (tmp_path / "photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "photos" / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    assert run("run", "blur.json", "--each", "photos/*.jpg", "--set", "Blur.by=3", "--label", "of=autumn") == 0
    assert "blur-photos.jsonl is the manifest: 2 jobs, each file at 1.image" in capsys.readouterr().err
    take(world, "blur-photos")
    world.read_all()
    assert len(world.work()) == 2
    lines = [json.loads(line) for line in (tmp_path / "blur-photos.jsonl").read_text().splitlines()]
    assert [line["inputs"]["1.image"] for line in lines] == ["photos/1.jpg", "photos/2.jpg"]
    assert lines[0]["set"] == {"Blur.by": 3}


@pytest.mark.parametrize("action", sorted(cli_batch._ACTIONS))
def test_every_action_teaches_with_examples_that_are_commands(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="comfy-serverless")
    cli_batch.add_parser(parser.add_subparsers(dest="command"))
    with pytest.raises(SystemExit):
        parser.parse_args(["batch", action, "--help"])
    printed = capsys.readouterr().out
    assert "exit codes:" in printed
    for example in cli_batch._ACTIONS[action][1]:
        assert example in printed
        command, *_ = re.split(r"\s{3,}", example)
        options = parser.parse_args(shlex.split(command)[1:])
        assert options.action == action


def test_without_a_stack_it_is_said_where_one_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COMFY_STACK", raising=False)
    parser = argparse.ArgumentParser()
    cli_batch.add_parser(parser.add_subparsers(dest="command"))
    with pytest.raises(SystemExit) as ended:
        cli_batch.run(parser.parse_args(["batch", "list"]))
    assert ended.value.code == 2
    assert "COMFY_STACK" in capsys.readouterr().err
