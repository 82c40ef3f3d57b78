"""`comfy-serverless keys`, as a person uses it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.cli import keys as cli_keys
from comfy_serverless.errors import NotFound, Unauthorized
from comfy_serverless.table.api_keys import ApiKeyStore
from tests.unit.jobs_table import NAME, REGION, aws, create_table


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("JOBS_TABLE", NAME)
    monkeypatch.delenv("COMFY_STACK", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    with aws() as session:
        yield session


@pytest.fixture
def keys(session: Any) -> ApiKeyStore:
    table: Table = create_table(session)[0]
    return ApiKeyStore(table)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli_keys.add_parser(parser.add_subparsers(dest="command"))
    return cli_keys.run(parser.parse_args(["keys", *arguments]))


def test_a_new_key_is_alone_on_stdout(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create", "ci", "--owner", "team", "--expires", "30d", "--max-in-flight", "2") == 0
    printed = capsys.readouterr()
    key = keys.find(printed.out.removesuffix("\n"))
    assert key is not None
    assert (key.owner, key.max_in_flight, key.expires is None) == ("team", 2, False)
    assert "shown only now" in printed.err
    assert printed.out.strip() not in printed.err


def test_the_list_fits_eighty_columns_and_shows_no_key(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    text, key = keys.create("n" * 64, owner="o" * 64, expires_in_s=99999, max_in_flight=1000, requests_per_minute=60000)
    keys.create("gone", owner="team")
    gone = keys.revoke("gone")
    assert run("ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line for line in lines}
    assert "until 2" in rows[key.id]
    assert "revoked" in rows[gone.id]
    assert text not in "".join(lines)


def test_json_is_for_programs(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    run("create", "ci", "--owner", "team", "--json")
    made = json.loads(capsys.readouterr().out)
    assert keys.find(made["key"]) is not None
    run("ls", "--json")
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert [(key["id"], key["name"], key["is_good"]) for key in listed] == [(made["id"], "ci", True)]
    assert "key" not in listed[0]


def test_an_admins_key_and_a_budget(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create", "boss", "--owner", "ana", "--admin", "--budget", "12.5", "--budget-action", "refuse") == 0
    told = capsys.readouterr()
    key = keys.find(told.out.strip())
    assert key is not None
    assert (key.is_admin, key.budget_nanousd, key.budget_action) == (True, 12_500_000_000, "refuse")
    assert "admin's key" in told.err
    run("change", "boss", "--budget", "50")
    assert "50 USD a month (refuse)" in capsys.readouterr().err, "what was not named stays"
    run("change", "boss", "--budget-action", "warn", "--max-in-flight", "7")
    assert "50 USD a month (warn), at most 7 jobs at once" in capsys.readouterr().err
    run("change", "boss", "--max-in-flight", "none")
    assert "any number of jobs at once" in capsys.readouterr().err
    run("ls", "--json")
    (listed,) = json.loads(capsys.readouterr().out)["keys"]
    assert (listed["is_admin"], listed["budget_usd"], listed["budget_action"]) == (True, 50, "warn")
    run("ls")
    shown = capsys.readouterr()
    assert "boss (admin)" in shown.out
    assert "50 USD" in shown.err
    run("change", "boss", "--no-budget")
    assert "no budget" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--budget", "0"], ["--budget", "nan"], ["--budget", "x"], ["--budget-action", "x"]])
def test_a_wrong_budget_is_wrong_usage(keys: ApiKeyStore, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("create", "ci", "--owner", "team", *wrong)
    assert exit_.value.code == 2
    with pytest.raises(SystemExit):
        run("change", "ci")
    assert keys.list() == []


def test_revoking_says_how_long_it_takes(keys: ApiKeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    text, key = keys.create("ci", owner="team")
    assert run("revoke", key.id) == 0
    assert "within 60 seconds" in capsys.readouterr().err
    assert keys.find(text) is None
    assert run("revoke", key.id) == 0, "the answer may have been lost"
    with pytest.raises(NotFound, match="keys ls"):
        run("revoke", "nobody")


def test_a_stack_knows_its_table(
    session: Any, keys: ApiKeyStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JOBS_TABLE")
    template: dict[str, Any] = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"JobsTableName": {"Value": NAME}},
    }
    formation = session.client("cloudformation")
    formation.create_stack(StackName="mine", TemplateBody=json.dumps(template))
    formation.create_stack(StackName="other", TemplateBody=json.dumps({"Resources": template["Resources"]}))
    run("create", "ci", "--owner", "team", "--stack", "mine")
    assert keys.find(capsys.readouterr().out.strip()) is not None
    with pytest.raises(NotFound, match="make deploy"):
        run("ls", "--stack", "other")
    with pytest.raises(NotFound, match="no stack 'missing'"):
        run("ls", "--stack", "missing")


def test_without_a_table_it_says_how_to_name_one(
    session: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFound, match="--stack NAME"):
        run("ls", "--table", "missing")
    monkeypatch.delenv("JOBS_TABLE")
    with pytest.raises(SystemExit) as exit_:
        run("ls")
    assert exit_.value.code == 2
    assert "COMFY_STACK" in capsys.readouterr().err


def test_of_many_names_the_nearest_one_counts(
    session: Any, keys: ApiKeyStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMFY_STACK", "missing")
    with pytest.raises(NotFound, match="no stack 'missing'"):
        run("ls")  # the stack, not the table in JOBS_TABLE
    assert run("ls", "--table", NAME) == 0
    monkeypatch.setenv("COMFY_STACK", "")
    assert run("ls") == 0, "an empty variable is none"


@pytest.mark.parametrize("width", [20, 40, 59, 60, 61, 80, 200])
def test_no_width_of_a_terminal_loses_a_word(
    keys: ApiKeyStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    keys.create("laptop-of-ana", owner="studio-one", max_in_flight=123, requests_per_minute=4567)
    monkeypatch.setenv("COLUMNS", str(width))
    run("ls")
    told = "".join(capsys.readouterr().out.split())
    for word in ("per min", "jobs", "4567", "123", "works"):
        assert word.replace(" ", "") in told, word
    assert "…" not in told


def test_without_credentials_it_says_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("SHARED_CREDENTIALS_FILE", "CONFIG_FILE"):
        monkeypatch.setenv(f"AWS_{name}", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials it once had
    with pytest.raises(Unauthorized, match="aws configure"):
        run("ls", "--table", NAME)


@pytest.mark.parametrize(
    "option", [("--expires", "0d"), ("--expires", "1y"), ("--max-in-flight", "0"), ("--requests-per-minute", "-1")]
)
def test_senseless_limits_are_wrong_usage(option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("create", "ci", "--owner", "team", *option)
    assert exit_.value.code == 2


def test_asking_for_help_loads_no_libraries_for_aws() -> None:
    code = "import sys, comfy_serverless.cli.keys; print('boto3' in sys.modules or 'botocore' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
