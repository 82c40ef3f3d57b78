"""Owners are apart in the queues of the stack, and the dashboard shows how long jobs of each class wait."""

from __future__ import annotations

import json

from local.aws.template import properties_of


def test_the_dashboard_shows_both_classes() -> None:
    text, _ = properties_of("Dashboard")["DashboardBody"]["Fn::Sub"]
    body = json.loads(text.replace("\\n", " "))
    (widget,) = [one["properties"] for one in body["widgets"] if "WaitedSeconds" in json.dumps(one)]
    assert widget["metrics"] == [
        ["ComfyServerless/${AWS::StackName}", "WaitedSeconds", "class", "callers", "service", "comfy_serverless"],
        ["...", "batches", ".", "."],
    ]


def test_the_queues_of_the_stack_are_standard_ones_which_sqs_keeps_fair() -> None:
    for name in ("JobQueue", "BatchQueue", "ManifestQueue"):
        assert not {"FifoQueue", "ContentBasedDeduplication"} & set(properties_of(name))
    events = properties_of("GenerateFunction")["Events"].values()
    assert [event["Properties"]["BatchSize"] for event in events if event["Type"] == "SQS"] == [1, 1]
