"""Whatever breaks, somebody hears it: computed from errors.py, the template, and the metrics that are written."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.api.responses import refuse
from comfy_serverless.errors import (
    ComfyError,
    EngineError,
    KeyFull,
    Kind,
    RateLimited,
    Refusal,
    TooManyStreams,
    all_errors,
    kind_of,
)
from comfy_serverless.jobs.document import Job, JobError, JobStatus
from comfy_serverless.observability import UNITS, emit_broken_workflows, emit_wait
from comfy_serverless.webhooks.calls import BACKOFF_S
from comfy_serverless.worker.metrics import emit_metrics
from tests.unit.template.processed import parse
from tests.watched import NAMED_BY, OURS, Watched, is_published, of_alarm, of_dashboard, sections

ROOT = Path(__file__).parents[3]
TEMPLATE: dict[str, Any] = parse()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]


def of_type(kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in RESOURCES.items() if entry["Type"] == kind}


ALARMS = of_type("AWS::CloudWatch::Alarm")
QUEUES = of_type("AWS::SQS::Queue")
FUNCTIONS = of_type("AWS::Serverless::Function")
PUT_ASIDE = {
    queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
    for queue in QUEUES.values()
    if "RedrivePolicy" in queue
}
BY_ALARM = {name: of_alarm(alarm) for name, alarm in ALARMS.items()}
ON_DASHBOARD = [
    watched
    for dashboard in of_type("AWS::CloudWatch::Dashboard").values()
    for watched in of_dashboard(dashboard["DashboardBody"]["Fn::Sub"])
]
LEAVES = [kind for kind in all_errors() if kind.code and kind.__module__ == "comfy_serverless.errors"]


def alarms_on(namespace: str, metric: str, **dimensions: str) -> set[str]:
    wanted = Watched(namespace, metric, frozenset(dimensions.items()))
    return {name for name, watched in BY_ALARM.items() if wanted in watched}


# What is really written.


@pytest.fixture
def sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], set[Watched]]:
    """Returns the metrics that something writes, as CloudWatch understands them."""
    (namespace,) = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["POWERTOOLS_METRICS_NAMESPACE"].values()
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", namespace.replace("${AWS::StackName}", "here"))

    def metrics_of(write: Callable[[], object]) -> set[Watched]:
        capsys.readouterr()
        write()
        return {metric for line in capsys.readouterr().out.splitlines() for metric in understood(line)}

    return metrics_of


def understood(line: str) -> Iterator[Watched]:
    document = json.loads(line)
    for declared in document.get("_aws", {}).get("CloudWatchMetrics", ()):
        for metric in declared["Metrics"]:
            assert metric["Unit"] == UNITS[metric["Name"]]
            assert document[metric["Name"]], "a metric has values"
            for names in declared["Dimensions"]:
                yield Watched(
                    declared["Namespace"], metric["Name"], frozenset((name, document[name]) for name in names)
                )


def fail(error: ComfyError, *, retryable: bool) -> None:
    """End a job with this failure, as a worker counts it."""
    job = Job.model_construct(
        id="fox", status=JobStatus.FAILED, error=JobError.of(error, retryable=retryable), timings_ms={}, outputs=()
    )
    emit_metrics([job], is_cold_start=False, engine_starts=0, nodes_not_loaded=0)


def succeed() -> None:
    job = Job.model_construct(
        id="fox", status=JobStatus.SUCCEEDED, error=None, timings_ms={"executing": 1, "overhead": 2}, outputs=()
    )
    held = {"engine_bytes": 1_000_000, "gpu_bytes": 1_000_000}
    emit_metrics([job], is_cold_start=True, engine_starts=1, nodes_not_loaded=1, engine_recycled=1, **held)


def ways(kind: type[ComfyError]) -> Iterator[Callable[[], object]]:
    """How a failure of this class comes to be counted: as the end of a job, or as a refusal of the API."""
    if issubclass(kind, Refusal):
        yield lambda: refuse(kind("it went wrong"))
    else:
        yield lambda: fail(kind("it went wrong"), retryable=kind.retryable)


# Failures.


@pytest.mark.parametrize("kind", [kind for kind in LEAVES if kind.kind is not Kind.REQUEST])
def test_a_failure_that_is_not_the_requests_fault_rings(
    kind: type[ComfyError], sent: Callable[[Callable[[], object]], set[Watched]]
) -> None:
    for way in ways(kind):
        written = sent(way)
        ringing = {name for name, watched in BY_ALARM.items() if written & set(watched)}
        assert ringing == {"JobsComeBackAlarm" if kind.kind is Kind.HANDOVER else "JobsFailAlarm"}


@pytest.mark.parametrize("kind", [kind for kind in LEAVES if kind.kind is Kind.REQUEST])
def test_the_fault_of_a_request_rings_nothing(
    kind: type[ComfyError], sent: Callable[[Callable[[], object]], set[Watched]]
) -> None:
    for way in ways(kind):
        assert not sent(way) & {watched for every in BY_ALARM.values() for watched in every}


def test_whatever_may_succeed_unchanged_concerns_the_operator_but_for_a_callers_own_limits() -> None:
    own = {KeyFull, RateLimited, TooManyStreams}
    assert {kind for kind in LEAVES if kind.retryable and kind.kind is Kind.REQUEST} == own
    for kind in LEAVES:
        assert kind_of(kind.code, retryable=True) is not Kind.REQUEST


def test_an_invocation_that_was_too_short_rings(sent: Callable[[Callable[[], object]], set[Watched]]) -> None:
    (deadline,) = (kind for kind in LEAVES if kind.code == "deadline_exceeded")
    assert set(BY_ALARM["JobsFailAlarm"]) <= sent(lambda: fail(deadline("too short"), retryable=True))
    assert not set(BY_ALARM["JobsFailAlarm"]) & sent(lambda: fail(deadline("too slow"), retryable=False))


def test_a_new_kind_of_failure_rings_until_it_says_otherwise() -> None:
    assert ComfyError.kind is EngineError.kind is Kind.INFRASTRUCTURE
    assert kind_of("a_code_of_a_newer_release", retryable=False) is Kind.INFRASTRUCTURE


# Functions and queues.


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_fails_rings(function: str) -> None:
    assert alarms_on("AWS/Lambda", "Errors", FunctionName=function)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_is_refused_rings(function: str) -> None:
    assert alarms_on("AWS/Lambda", "Throttles", FunctionName=function)


def test_a_function_that_a_clock_starts_rings_when_it_is_silent() -> None:
    started = {
        name: event["Properties"]["Schedule"]
        for name, function in FUNCTIONS.items()
        for event in function.get("Events", {}).values()
        if event["Type"] == "Schedule"
    }
    assert started
    for function, schedule in started.items():
        assert schedule == "rate(1 minute)"
        (name,) = alarms_on("AWS/Lambda", "Invocations", FunctionName=function)
        assert (ALARMS[name]["ComparisonOperator"], ALARMS[name]["TreatMissingData"]) == (
            "LessThanThreshold",
            "breaching",
        )


@pytest.mark.parametrize("queue", QUEUES)
def test_a_queue_that_stands_still_rings(queue: str) -> None:
    if queue in PUT_ASIDE:
        (name,) = alarms_on("AWS/SQS", "ApproximateNumberOfMessagesVisible", QueueName=queue)
        assert ALARMS[name]["Threshold"] == 1
    else:
        (name,) = alarms_on("AWS/SQS", "ApproximateAgeOfOldestMessage", QueueName=queue)
        assert ALARMS[name]["Threshold"] <= QUEUES[queue]["MessageRetentionPeriod"] / 2, "there is time to do something"


def test_a_receiver_that_never_answers_is_put_aside_before_the_queue_counts_as_late() -> None:
    times = QUEUES["WebhookQueue"]["RedrivePolicy"]["maxReceiveCount"]
    pauses = [BACKOFF_S[min(number, len(BACKOFF_S)) - 1] for number in range(1, times + 1)]
    assert ALARMS["OldestWebhookAlarm"]["Threshold"] > 1.1 * sum(pauses)


def test_a_state_machine_that_fails_rings() -> None:
    for machine in of_type("AWS::StepFunctions::StateMachine"):
        assert alarms_on("AWS/States", "ExecutionsFailed", StateMachineArn=machine)


# Alarms and widgets.


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_tells_somebody_if_somebody_is_named(name: str) -> None:
    told = {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert ALARMS[name]["AlarmActions"] == told
    is_for_silence = ALARMS[name]["ComparisonOperator"] == "LessThanThreshold"
    assert ALARMS[name]["TreatMissingData"] == ("breaching" if is_for_silence else "notBreaching")


@pytest.mark.parametrize("name", ALARMS)
def test_a_sum_is_one_figure_of_metrics_that_may_be_missing(name: str) -> None:
    if "Metrics" in ALARMS[name]:
        returned = [entry for entry in ALARMS[name]["Metrics"] if entry.get("ReturnData", True)]
        assert [entry["Expression"] for entry in returned] == ["SUM(FILL(METRICS(), 0))"]
        parts = [entry["MetricStat"] for entry in ALARMS[name]["Metrics"] if "MetricStat" in entry]
        assert len(parts) <= 10, "as many as CloudWatch takes"
        assert len({(part["Period"], part["Stat"]) for part in parts}) == 1


@pytest.fixture
def ours(sent: Callable[[Callable[[], object]], set[Watched]]) -> set[Watched]:
    """All that we ever write."""
    waits = [functools.partial(emit_wait, 1.0, is_batch=is_batch) for is_batch in (False, True)]
    failures = (way for kind in LEAVES for way in ways(kind))
    everything: list[Callable[[], object]] = [succeed, *waits, lambda: emit_broken_workflows(1), *failures]
    return sent(lambda: [write() for write in everything])


def test_nobody_watches_what_nobody_sends(ours: set[Watched]) -> None:
    for watched in [*ON_DASHBOARD, *(metric for every in BY_ALARM.values() for metric in every)]:
        if watched.namespace == OURS:
            assert any(watched.fits(metric) for metric in ours), watched
        else:
            assert is_published(watched), watched
            for name, resource in watched.dimensions:
                assert RESOURCES[resource]["Type"] in NAMED_BY[name], watched


def test_nothing_is_sent_that_nobody_watches(ours: set[Watched]) -> None:
    """Each metric costs money, in each set of dimensions."""
    read = [*ON_DASHBOARD, *(metric for every in BY_ALARM.values() for metric in every)]
    for metric in ours:
        assert any(watched.fits(metric) for watched in read), metric
    assert {metric.metric for metric in ours} == set(UNITS)


def test_metrics_are_written_in_one_place() -> None:
    for source in (ROOT / "lambda" / "comfy_serverless").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert "powertools.metrics" not in text, source
        assert source.name == "observability.py" or "CloudWatchMetrics" not in text, source


def test_the_dashboard_shows_every_function_and_queue() -> None:
    shown = {value for watched in ON_DASHBOARD for _, value in watched.dimensions}
    assert shown >= FUNCTIONS.keys() | QUEUES.keys()


# The page about alarms; tests/infra looks at those of the GPU stacks.


@pytest.mark.parametrize("name", ALARMS)
def test_a_notification_leads_to_the_page(name: str) -> None:
    section = name.removesuffix("Alarm")
    assert section in dict(sections())
    assert ALARMS[name]["AlarmDescription"].endswith(f" What to do: docs/alarms.md#{section.lower()}")


def test_the_page_counts_the_alarms_and_what_they_cost() -> None:
    metrics = sum(map(len, BY_ALARM.values()))
    page = (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8")
    assert f"The SAM stack has {len(ALARMS)} alarms over {metrics} metrics, ${metrics / 10:.2f} a month." in page


def test_every_code_that_rings_is_in_the_page() -> None:
    text = dict(sections())["JobsFail"] + dict(sections())["JobsComeBack"]
    ringing = {kind.code for kind in LEAVES if kind.kind is not Kind.REQUEST} | {"deadline_exceeded"}
    assert set(re.findall(r"`([a-z_]+)`", text)) >= ringing


def test_who_is_told_of_an_invocation_that_died_is_told_so() -> None:
    kept = {
        function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]
        for function in FUNCTIONS.values()
        if "EventInvokeConfig" in function
    }
    for queue in PUT_ASIDE:
        (name,) = alarms_on("AWS/SQS", "ApproximateNumberOfMessagesVisible", QueueName=queue)
        text = dict(sections())[name.removesuffix("Alarm")]
        for told in (ALARMS[name]["AlarmDescription"], text):
            assert ("asynchronous" in told) is (queue in kept), name
        assert queue in ALARMS[name]["AlarmDescription"]


def test_the_page_names_every_function_that_an_alarm_sums_up() -> None:
    text = dict(sections())["FunctionErrors"]
    for watched in BY_ALARM["FunctionErrorsAlarm"]:
        ((_, function),) = watched.dimensions
        service = FUNCTIONS[function]["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
        assert f"`{service}`" in text, function


_AN_ALARM = re.compile(r"`(\w+(?:Errors|Throttles|Silent|DeadLetters|NotLoaded|Broken|Refused))`|alarms\.md#(\w+)")


def test_no_page_names_an_alarm_that_there_is_not() -> None:
    known = {name for name, _ in sections()}
    for page in (ROOT / "docs").glob("*.md"):
        for name, section in _AN_ALARM.findall(page.read_text(encoding="utf-8")):
            assert name in known or section in {one.lower() for one in known}, (page.name, name, section)


# Log levels filter lines, and never metrics.


def test_no_parameter_can_filter_metrics_out() -> None:
    settings = [TEMPLATE["Globals"]["Function"].get("LoggingConfig", {})]
    settings += [function.get("LoggingConfig", {}) for function in FUNCTIONS.values()]
    assert {entry["ApplicationLogLevel"] for entry in settings if "ApplicationLogLevel" in entry} == {"DEBUG"}
    assert TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["POWERTOOLS_LOG_LEVEL"] == {"Ref": "LogLevel"}


_WRITES = """\
import logging
from comfy_serverless.handlers import wiring
from comfy_serverless.observability import emit, log
emit({"Jobs": [1]}, {"service": "comfy_serverless"})
log.debug("a debug line"); log.info("an info line"); log.warning("a warning"); log.error("an error")
logging.getLogger("botocore.endpoint").debug("Authorization: secret")
"""


@pytest.mark.parametrize("level", TEMPLATE["Parameters"]["LogLevel"]["AllowedValues"])
def test_each_level_writes_its_lines_and_all_metrics(level: str) -> None:
    environment = {
        "AWS_LAMBDA_LOG_LEVEL": "DEBUG",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9",
        "POWERTOOLS_LOG_LEVEL": level,
        "PYTHONPATH": str(ROOT / "lambda"),
    }
    # As Lambda's runtime does before it imports the handler.
    runtime = "import logging; logging.basicConfig(level='DEBUG')\n"
    done = subprocess.run(
        [sys.executable, "-c", runtime + _WRITES],
        env={**environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    levels = ["DEBUG", "INFO", "WARN", "ERROR"]
    assert [line["level"][:4] for line in lines if "level" in line] == [
        one[:4] for one in levels[levels.index(level) :]
    ]
    assert [line["Jobs"] for line in lines if "_aws" in line] == [[1]]
    assert "secret" not in done.stdout + done.stderr


def test_every_function_begins_with_what_quietens_the_libraries() -> None:
    for handler in (ROOT / "lambda" / "comfy_serverless" / "handlers").glob("*.py"):
        text = handler.read_text(encoding="utf-8")
        if "\ndef handler(" in text:
            imports = re.findall(r"^from comfy_serverless.handlers import (.*)$", text, re.MULTILINE)
            quiet = {"wiring", "warm", "wiring_api", "wiring_ingest", "wiring_worker"}  # each begins with `wiring`
            assert quiet & {name for line in imports for name in line.split(", ")}, handler
