"""`comfy-serverless logs`, as a person uses it: against CloudWatch by moto, and the files of `make dev`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.client
import pytest

from comfy_serverless.cli import job_logs as cli_logs
from comfy_serverless.cli.main import main
from comfy_serverless.errors import NotFound
from local.aws.permissions import Access, Role, statements_of
from tests.doc_blocks import blocks
from tests.unit.jobs_table import REGION, aws

NOW = time.time()
FILTER = "logs:FilterLogEvents"
GROUPS = {"GenerateLogGroup": "/aws/lambda/s-generate", "ApiLogGroup": "/aws/lambda/s-api"}
ACCESS = {"AccessLogGroup": "/aws/http-api/s"}
ENDPOINT = {"EndpointLogD1C0": "/aws/sagemaker/Endpoints/s-gpu-12345678"}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "COMFY_STACK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")
    with aws() as session:
        yield session


def deploy(session: Any, name: str, groups: dict[str, str], outputs: dict[str, str] | None = None) -> None:
    resources = {
        logical: {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": group}}
        for logical, group in groups.items()
    }
    template = {
        "Resources": {**resources, "Other": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {key: {"Value": value} for key, value in (outputs or {}).items()},
    }
    session.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))


def stamp(ago_s: float) -> str:
    at = datetime.fromtimestamp(NOW - ago_s, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03}+0000"


def line(message: str, *, ago_s: float, job_id: str = "fox-1", service: str = "generate", **keys: Any) -> str:
    return json.dumps(
        {"level": "INFO", "message": message, "timestamp": stamp(ago_s), "service": service, "job_id": job_id, **keys}
    )


def write(session: Any, group: str, *lines: str, stream: str = "one") -> None:
    client = session.client("logs")
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    at = round((NOW - 30) * 1000)
    events = [{"timestamp": at, "message": text} for text in lines]
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli_logs.add_parser(parser.add_subparsers(dest="command"))
    return cli_logs.run(parser.parse_args(["logs", *arguments]))


@pytest.fixture
def told(session: Any) -> Any:
    """A job from its submission to its webhook, over functions and two stacks, among lines of others."""
    deploy(session, "s", {**GROUPS, **ACCESS})
    deploy(session, "s-sagemaker", ENDPOINT)
    write(
        session,
        GROUPS["ApiLogGroup"],
        line("the job is taken", ago_s=90, service="api"),
        line("another", ago_s=80, job_id="fox-12", service="api"),
        "REPORT RequestId: fox-1",
    )
    write(session, GROUPS["GenerateLogGroup"], line("the job is begun", ago_s=70, run=1), '{"_aws": {}, "Jobs": [1]}')
    write(
        session,
        ENDPOINT["EndpointLogD1C0"],
        line("job failed", ago_s=60, level="WARNING", code="engine_crashed", exception="Traceback: …\n  boom"),
    )
    return session


def test_a_job_is_followed_over_functions_and_stacks_by_time(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fox-1", "--stack", "s") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [" ".join(row.split()[2:6]) for row in printed[:2]] == ["api INFO the job", "generate INFO the job"]
    assert "job failed" in printed[2]
    assert "code=engine_crashed" in printed[2]
    assert printed[3:] == ["Traceback: …", "  boom"]


def report(request_id: str, status: str) -> str:
    metrics = {"durationMs": 900000.0, "memorySizeMB": 10240, "maxMemoryUsedMB": 10240}
    record = {"requestId": request_id, "status": status, "metrics": metrics}
    return json.dumps({"time": "2026-11-29T08:00:00.000Z", "type": "platform.report", "record": record})


def test_a_worker_that_died_is_told_by_lambda(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(session, "s", GROUPS)
    write(
        session,
        GROUPS["GenerateLogGroup"],
        line("the job is begun", ago_s=60, run=1, request_id="r-1"),
        report("r-1", "timeout"),
        line("the job is begun", ago_s=50, run=2, request_id="r-2"),
        report("r-2", "success"),
        report("another", "error"),
    )
    assert run("fox-1", "--stack", "s", "--json") == 0
    lines = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    (death,) = (entry for entry in lines if entry["message"] == "Lambda ended the invocation")
    assert (death["status"], death["memory_used_mb"], death["request_id"]) == ("timeout", 10240, "r-1")
    assert death["function"] == "generate"


def test_a_filter_for_many_invocations_is_not_too_long(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(session, "s", GROUPS)
    ids = [f"{number:08}-8888-4444-4444-121212121212" for number in range(20)]
    write(session, GROUPS["GenerateLogGroup"], *(line("begun", ago_s=9, request_id=request_id) for request_id in ids))
    asked = calls_of(monkeypatch)
    run("fox-1", "--stack", "s")
    patterns = [arguments["filterPattern"] for operation, arguments in asked if operation == FILTER]
    assert all(len(pattern) <= 1024 for pattern in patterns)
    assert all(any(request_id in pattern for pattern in patterns) for request_id in ids)


def test_as_json_each_line_is_what_was_logged(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fox-1", "--stack", "s", "--json") == 0
    lines = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [entry["message"] for entry in lines] == ["the job is taken", "the job is begun", "job failed"]
    assert lines[1]["run"] == 1
    assert datetime.fromisoformat(lines[0]["at"]).tzinfo is not None


def test_every_page_is_read(session: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(session, "s", GROUPS)
    mine = [line(f"{number}", ago_s=100 - number) for number in range(25)]
    write(session, GROUPS["ApiLogGroup"], *(line("another", ago_s=5, job_id="x") for _ in range(25)), *mine)
    real = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]
    pages = []

    def ten_at_a_time(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "FilterLogEvents":
            arguments = {**arguments, "limit": 10}
            pages.append(arguments)
        return real(client, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", ten_at_a_time)
    assert run("fox-1", "--stack", "s", "--json") == 0
    assert [json.loads(row)["message"] for row in capsys.readouterr().out.splitlines()] == list(map(str, range(25)))
    assert len([page for page in pages if page["logGroupName"] == GROUPS["ApiLogGroup"]]) == 5


def test_cloudwatch_itself_leaves_out_the_lines_of_other_jobs(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto takes every line for one that fits this pattern."""
    asked = calls_of(monkeypatch)
    run("fox-1", "--stack", "s")
    patterns = {arguments["filterPattern"] for operation, arguments in asked if operation == FILTER}
    assert patterns == {'{ $.job_id = "fox-1" }'}


def test_lines_before_the_time_are_not_asked_for(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = calls_of(monkeypatch)
    run("fox-1", "--stack", "s", "--since", "12h")
    for operation, arguments in asked:
        if operation == FILTER:
            assert abs(time.time() - 12 * 3600 - arguments["startTime"] / 1000) < 600


def test_nothing_to_show_says_what_may_be_wrong(told: Any) -> None:
    with pytest.raises(NotFound, match="Is the id right"):
        run("no-such-job", "--stack", "s")


def test_a_stack_that_is_not_there_is_named(session: Any) -> None:
    with pytest.raises(NotFound, match="There is no stack 'elsewhere'"):
        run("fox-1", "--stack", "elsewhere")


def test_what_is_no_id_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["logs", '" }', "--stack", "s"])
    assert "is no job's id" in capsys.readouterr().err


def test_a_terminal_obeys_nothing_that_a_node_has_written(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(session, "s", GROUPS)
    write(
        session, GROUPS["GenerateLogGroup"], line("job failed", ago_s=9, reason="\x1b[2Jgone [bold]x", level="WARNING")
    )
    run("fox-1", "--stack", "s")
    printed = capsys.readouterr().out
    assert "\x1b[2J" not in printed
    assert "[2Jgone [bold]x" in printed


def test_new_lines_are_shown_once_as_they_come() -> None:
    first, late, last = (
        parsed
        for text in (line("1", ago_s=9), line("0", ago_s=10), line("2", ago_s=1))
        if (parsed := cli_logs.parse(text, "fox-1"))
    )
    looks = iter([[first], [first, late], [first, late, last]])
    since: list[datetime] = []

    def read(moment: datetime) -> list[cli_logs.Line]:
        since.append(moment)
        return next(looks)

    begin = datetime.now(UTC) - timedelta(days=1)
    lines = cli_logs.follow(read, begin, sleep=lambda _seconds: None)
    assert [next(lines).message for _ in range(3)] == ["1", "0", "2"]
    assert since[0] == begin
    assert since[1] > begin, "what was shown long ago is not read again"


def test_on_this_machine_the_files_are_read(session: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(session, "local", {}, {cli_logs.FOLDER_OUTPUT: str(tmp_path)})
    (tmp_path / "api.log").write_text(f"not JSON\n{line('the job is taken', ago_s=20, service='api')}\n")
    (tmp_path / "generate-1.log").write_text(
        f"{line('job finished', ago_s=10)}\n{line('long ago', ago_s=90_000)}\n{line('x', ago_s=5, job_id='fox-2')}\n"
    )
    assert run("fox-1", "--stack", "local", "--json") == 0
    lines = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [entry["message"] for entry in lines] == ["the job is taken", "job finished"]


def calls_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """All calls of AWS from now on."""
    made: list[tuple[str, dict[str, Any]]] = []
    real = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(client: Any, operation: str, arguments: dict[str, Any]) -> Any:
        made.append((f"{client.meta.service_model.signing_name}:{operation}", arguments))
        return real(client, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    return made


def test_the_policy_in_the_documentation_is_what_an_operator_needs(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call is allowed, for the names that the stacks give, and no action is there that no call needs."""
    name = "comfy-serverless"
    deploy(session, name, {"ApiLogGroup": f"/aws/lambda/{name}-api"})
    deploy(session, f"{name}-sagemaker", {"ForwardLog1": f"{name}-sagemaker-ForwardLog37AD20D5-x"})
    write(session, f"/aws/lambda/{name}-api", line("the job is taken", ago_s=9))
    (policy,) = (json.loads(block.text) for block in blocks() if "FilterLogEvents" in block.text)
    operator = Role("Operator", statements_of([policy]))
    asked = calls_of(monkeypatch)
    run("fox-1", "--stack", name)
    for operation, arguments in asked:
        where = f"{REGION}:123456789012"
        resource = (
            f"arn:aws:logs:{where}:log-group:{arguments['logGroupName']}:*"
            if operation == FILTER
            else f"arn:aws:cloudformation:{where}:stack/{arguments['StackName']}/4f0-1a"
        )
        assert operator.denial(Access(action=operation, resource=resource)) is None
    assert {operation for operation, _ in asked} == {action for one in operator.statements for action in one.actions}
