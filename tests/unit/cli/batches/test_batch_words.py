"""What `batch` says and takes on the command line, without a stack."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest

from comfy_serverless.cli import batch
from comfy_serverless.cli.batches.submitting import workflows_folder
from comfy_serverless.cli.habits import CommandParser
from comfy_serverless.errors import InvalidRequest, InvalidSetting

GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "x.jpg"}}}


def options(*arguments: str) -> argparse.Namespace:
    parser: argparse.ArgumentParser = CommandParser(prog="comfy-serverless")
    batch.add_parser(parser.add_subparsers(dest="command"))
    return parser.parse_args(["batch", *arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "flow.json").write_text(json.dumps(GRAPH))
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "x", "--each", "y", "--label", "a"), "'a' is not of the form NAME=VALUE, e.g. campaign=autumn"),
        (("list", "--limit", "1" * 5000), "is not a number from 1 to 1000"),
        (("list", "--limit", "\u0665"), "is not a number from 1 to 1000"),
        (("list", "--limit", "0"), "'0' is not a number from 1 to 1000"),
        (("run", "--each", "a", "b", "x"), "usage: comfy-serverless batch run WORKFLOW --each FILES"),
    ],
)
def test_wrong_usage_is_said_in_words_that_help(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(*arguments)
    told = capsys.readouterr().err
    assert words in told
    assert len(told) < 2000
    assert "_count" not in told


def test_what_the_usage_shows_can_be_typed_so() -> None:
    given = options("run", "flow.json", "--each", "a", "b", "--dry-run")
    assert (given.workflow, given.each) == ("flow.json", ["a", "b"])


@pytest.mark.parametrize(("each", "jobs"), [(["1.jpg"], "1 job"), (["*.jpg"], "2 jobs")])
def test_one_is_no_plural_and_a_workflow_no_file_for_an_input(
    here: Path, each: list[str], jobs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch.run(options("run", "flow.json", "--each", *each, "--dry-run")) == 0
    told = capsys.readouterr().err
    assert f"is the manifest: {jobs}, each file at 1.image" in told
    assert f"{jobs.replace('job', 'line')}, {jobs.replace('job', 'local file')} and 1 local workflow." in told
    assert not re.search(r"\b1 (jobs|lines|local files|files|requests|workflows)\b", told)


def test_a_manifest_of_one_bad_line_is_told_in_the_singular(here: Path) -> None:
    (here / "a.jsonl").write_text("nonsense\n")
    with pytest.raises(InvalidRequest, match=r"1 of 1 line of a\.jsonl would fail"):
        batch.run(options("submit", "a.jsonl", "--dry-run"))


def test_the_workflows_known_here_are_those_of_the_setting(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKFLOWS_DIR", raising=False)
    monkeypatch.delenv("MORE_SETTINGS", raising=False)
    assert workflows_folder() is None
    for name in ("workflows", "mine", "more"):
        (here / name).mkdir()
    assert workflows_folder() == Path("workflows")
    monkeypatch.setenv("MORE_SETTINGS", f"WORKFLOWS_DIR={here / 'more'}")
    assert workflows_folder() == here / "more"
    monkeypatch.delenv("MORE_SETTINGS")
    monkeypatch.setenv("WORKFLOWS_DIR", str(here / "mine"))
    assert workflows_folder() == here / "mine"
    monkeypatch.setenv("WORKFLOWS_DIR", str(here / "none"))
    with pytest.raises(InvalidSetting, match="there is no such folder"):
        workflows_folder()
