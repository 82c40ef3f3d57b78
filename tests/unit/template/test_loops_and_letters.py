"""Where messages end that no function could take, and where those go that come back to their function."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_serverless.handlers.envelopes import died_invocation
from comfy_serverless.handlers.events import recognise
from comfy_serverless.jobs.sources import DroppedObject, SentRequest
from local.aws.template import of_type, properties_of
from tests.unit.event_samples import s3_event, sqs_event
from tests.watched import of_alarm

FUNCTIONS = of_type("AWS::Serverless::Function")
QUEUES = of_type("AWS::SQS::Queue")
ALARMS = of_type("AWS::CloudWatch::Alarm")


def fed_from(function: str) -> set[str]:
    """The queues that feed a function."""
    events = FUNCTIONS[function].get("Events", {}).values()
    return {event["Properties"]["Queue"]["Fn::GetAtt"][0] for event in events if event["Type"] == "SQS"}


def dead_letters_of(queue: str) -> str:
    name: str = QUEUES[queue]["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
    return name


def sends_messages(function: str) -> bool:
    role = properties_of(FUNCTIONS[function]["Role"]["Fn::GetAtt"][0])
    statements = [one for policy in role["Policies"] for one in policy["PolicyDocument"]["Statement"]]
    return any("sqs:SendMessage" in one["Action"] for one in statements)


#: Lambda's record of an asynchronous invocation that it has given up, as it sends it to a queue.
def record(payload: object) -> dict[str, Any]:
    return {
        "version": "1.0",
        "timestamp": "2026-11-29T12:00:00.000Z",
        "requestContext": {
            "requestId": "e4b46cbf-b738-xmpl-8880-a18cdf61200e",
            "functionArn": "arn:aws:lambda:eu-central-1:123456789012:function:generate:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 2,
        },
        "requestPayload": payload,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorMessage": "RequestId: e4b46cbf Error: Runtime exited with error: signal: killed"},
    }


def test_whoever_reads_a_queue_understands_all_that_its_dead_letters_may_hold() -> None:
    """So whatever lies there can be moved back: by SQS itself, which does that for the dead letters of a queue only."""
    kept = {
        name: function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]
        for name, function in FUNCTIONS.items()
        if "EventInvokeConfig" in function
    }
    assert kept.keys() == {"GenerateFunction"}
    for function, queue in kept.items():
        assert queue in {dead_letters_of(source) for source in fed_from(function)}
    takers = {queue: {name for name in FUNCTIONS if queue in fed_from(name)} for queue in QUEUES}
    for queue in QUEUES:
        if "RedrivePolicy" in QUEUES[queue]:
            assert len(takers[queue]) == 1, f"{queue} has {takers[queue]}"
    sources = [dead_letters_of(queue) for queue in QUEUES if "RedrivePolicy" in QUEUES[queue]]
    assert sorted(sources) == sorted(set(sources)), "two queues with one place for dead letters: where do they go back?"


def test_a_record_of_an_invocation_that_died_is_run_as_that_was_to() -> None:
    request = {"job_id": "a", "workflow": {"1": {"class_type": "X", "inputs": {}}}}
    event = sqs_event(record(request), record(s3_event("jobs/fox.json")), request)
    direct, dropped, sent = recognise(event).sources()
    assert isinstance(direct, SentRequest)
    assert (direct.payload, direct.default_id) == (request, "sqs-e4b46cbf-b738-xmpl-8880-a18cdf61200e")
    assert isinstance(dropped, DroppedObject)
    assert dropped.address.key == "jobs/fox.json"
    assert isinstance(sent, SentRequest)
    assert sent.payload == json.dumps(request)


@pytest.mark.parametrize(
    "body",
    [None, "text", [], {}, {"requestPayload": {}}, {"requestContext": {"http": {}}}, {"workflow": {}, "job_id": "a"}],
)
def test_anything_else_is_no_record(body: object) -> None:
    assert died_invocation(body) is None


def test_lambda_says_when_it_cuts_a_loop_of_a_function_that_sends_into_queues_and_is_fed_from_them() -> None:
    in_loops = {name for name in FUNCTIONS if fed_from(name) and sends_messages(name)}
    assert in_loops == {"GenerateFunction", "IngestFunction"}
    watched = {
        resource
        for alarm in ALARMS.values()
        for metric in of_alarm(alarm)
        if metric.metric == "RecursiveInvocationsDropped"
        for _, resource in metric.dimensions
    }
    assert watched == in_loops == {name for name in FUNCTIONS if FUNCTIONS[name].get("RecursiveLoop") == "Terminate"}
