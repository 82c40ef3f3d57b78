"""Whatever breaks in a GPU stack, somebody hears it; the page about alarms has every alarm, and no other."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from tests.infra.permissions import plain
from tests.infra.stacks import ROOT, SAM, STACKS, every_stack, of_type
from tests.watched import NAMED_BY, is_published, of_alarm, sections

pytestmark = pytest.mark.timeout(600)
#: Logs whose lines name no job, as the command line has them. Its libraries are not in this environment.
WITHOUT_JOBS: tuple[str, ...] = ast.literal_eval(
    re.findall(r"^WITHOUT_JOBS = (.*)$", (ROOT / "lambda/comfy_serverless/cli/job_logs.py").read_text(), re.MULTILINE)[
        0
    ]
)


@pytest.fixture(params=STACKS)
def template(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = every_stack()[request.param]
    return found


def alarms_of(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the names that people see."""
    return {
        re.sub(r"Alarm[0-9A-F]*$", "", name): properties
        for name, properties in of_type(template, "AWS::CloudWatch::Alarm").items()
    }


def ringing(template: dict[str, Any], metric: str, resource: str) -> list[dict[str, Any]]:
    """The alarms on this metric of a resource."""
    return [
        alarm
        for alarm in alarms_of(template).values()
        for watched in of_alarm(alarm)
        if watched.metric == metric and resource in {value for _, value in watched.dimensions}
    ]


def ours(template: dict[str, Any]) -> list[str]:
    """The functions that run our code: CDK has some of its own, which only a deployment runs."""
    return [
        name
        for name, function in of_type(template, "AWS::Lambda::Function").items()
        if function.get("PackageType") == "Image"
    ]


def test_every_function_that_fails_or_is_not_started_rings(template: dict[str, Any]) -> None:
    assert ours(template)
    for function in ours(template):
        assert ringing(template, "Errors", function)
        silent = [
            alarm
            for alarm in ringing(template, "Invocations", function)
            if (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("LessThanThreshold", "breaching")
        ]
        # A start that Lambda refuses is no invocation: silence covers it.
        assert silent or ringing(template, "Throttles", function)


def test_what_a_clock_starts_rings_when_it_is_silent(template: dict[str, Any]) -> None:
    for rule in of_type(template, "AWS::Events::Rule").values():
        for target in rule["Targets"]:
            assert ringing(template, "Invocations", target["Arn"]["Fn::GetAtt"][0])


def test_every_queue_that_stands_still_rings(template: dict[str, Any]) -> None:
    queues = of_type(template, "AWS::SQS::Queue")
    assert queues
    for name, queue in queues.items():
        if "RedrivePolicy" in queue:
            (alarm,) = ringing(template, "ApproximateAgeOfOldestMessage", name)
            assert alarm["Threshold"] <= queue["MessageRetentionPeriod"] / 2
        else:
            (alarm,) = ringing(template, "ApproximateNumberOfMessagesVisible", name)
            assert alarm["Threshold"] == 1


def test_nobody_watches_what_nobody_sends(template: dict[str, Any]) -> None:
    """Our own metrics are the SAM stack's, whose test drives what writes them."""
    endpoint = {entry["EndpointName"] for entry in of_type(template, "AWS::SageMaker::Endpoint").values()}
    for alarm in alarms_of(template).values():
        for watched in of_alarm(alarm):
            assert is_published(watched), watched
            for name, value in watched.dimensions:
                if name in NAMED_BY:
                    assert template["Resources"][value]["Type"] in NAMED_BY[name], watched
                else:
                    assert value in endpoint | {"worker"}


def test_no_setting_can_filter_metrics_out(template: dict[str, Any]) -> None:
    for function in ours(template):
        logging = of_type(template, "AWS::Lambda::Function")[function]["LoggingConfig"]
        assert logging["LogFormat"] == "JSON"
        assert logging.get("ApplicationLogLevel", "INFO") in {"DEBUG", "INFO"}


def test_a_notification_leads_to_the_page(template: dict[str, Any]) -> None:
    for name, alarm in alarms_of(template).items():
        assert alarm["AlarmDescription"].endswith(f" What to do: docs/alarms.md#{name.lower()}")


def test_the_page_has_a_section_for_every_alarm_and_for_no_other() -> None:
    templates = (*every_stack().values(), SAM)
    known = {name for template in templates for name in alarms_of(template)}
    assert sorted(name for name, _ in sections()) == sorted(known)


@pytest.mark.parametrize(("name", "text"), list(sections()), ids=[name for name, _ in sections()])
def test_a_section_says_what_it_means_how_to_look_what_to_do_and_when_it_clears(name: str, text: str) -> None:
    said = [
        word.lower() for words in re.findall(r"^\*\*([\w, ]+):\*\*", text, re.MULTILINE) for word in words.split(", ")
    ]
    assert said == ["means", "look", "do", "clears"], name


def test_the_saved_query_reads_all_logs_that_name_jobs(template: dict[str, Any]) -> None:
    for each in (template, SAM):
        (query,) = of_type(each, "AWS::Logs::QueryDefinition").values()
        groups = {name for name in of_type(each, "AWS::Logs::LogGroup") if not plain(name).startswith(WITHOUT_JOBS)}
        named = [group["Fn::If"][1] if "Fn::If" in group else group for group in query["LogGroupNames"]]
        assert {group["Ref"] for group in named} == groups, "each, where it is there at all"
        assert 'filter job_id = "JOB_ID"' in query["QueryString"]


def test_whoever_a_queue_feeds_puts_off_what_it_gives_back(template: dict[str, Any]) -> None:
    """With the pauses of jobs, which are made for as many deliveries; tests/unit/handlers drives them."""
    functions, queues = of_type(template, "AWS::Lambda::Function"), of_type(template, "AWS::SQS::Queue")
    mappings = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    assert mappings
    for mapping in mappings:
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        function = functions[mapping["FunctionName"]["Ref"]]
        (command,) = function.get("ImageConfig", {}).get("Command", ["comfy_serverless.handlers.generate.handler"])
        source = ROOT / "lambda" / f"{command.removesuffix('.handler').replace('.', '/')}.py"
        assert "pauses_s=again.JOBS_AGAIN_AFTER_S)" in source.read_text(encoding="utf-8"), command
        redrive = queues[mapping["EventSourceArn"]["Fn::GetAtt"][0]]["RedrivePolicy"]
        assert (
            redrive["maxReceiveCount"] == SAM["Resources"]["JobQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"]
        )
