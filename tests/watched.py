"""What alarms and dashboards watch, and what AWS publishes: the same for the SAM stack and for the GPU stacks.

Needs no library: the tests of infra/ have an environment of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "alarms.md"

#: AWS's own metrics, with the dimensions they have. Sources: the CloudWatch pages of each service's developer guide.
PUBLISHED: Mapping[str, Mapping[frozenset[str], frozenset[str]]] = {
    "AWS/Lambda": {
        frozenset({"FunctionName"}): frozenset(
            {"Invocations", "Errors", "Throttles", "Duration", "ConcurrentExecutions", "RecursiveInvocationsDropped"}
        )
    },
    "AWS/SQS": {
        frozenset({"QueueName"}): frozenset(
            {"ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"}
            | {"ApproximateAgeOfOldestMessage", "NumberOfMessagesSent", "NumberOfMessagesDeleted"}
        )
    },
    "AWS/ApiGateway": {frozenset({"ApiId"}): frozenset({"Count", "4xx", "5xx", "Latency", "IntegrationLatency"})},
    "AWS/DynamoDB": {
        frozenset({"TableName"}): frozenset(
            {"ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits", "ReadThrottleEvents", "WriteThrottleEvents"}
        )
    },
    "AWS/States": {
        frozenset({"StateMachineArn"}): frozenset({"ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"})
    },
    "AWS/SageMaker": {
        frozenset({"EndpointName"}): frozenset(
            {"ApproximateBacklogSize", "ApproximateBacklogSizePerInstance"}
            | {"ApproximateAgeOfOldestRequest", "HasBacklogWithoutCapacity"}
        ),
        frozenset({"EndpointName", "VariantName"}): frozenset(
            {"ExpiredRequests", "InvocationFailures", "InvocationsProcessed", "NotificationFailures"}
        ),
    },
}
#: The types of resource that a dimension names.
NAMED_BY = {
    "FunctionName": {"AWS::Serverless::Function", "AWS::Lambda::Function"},
    "QueueName": {"AWS::SQS::Queue"},
    "ApiId": {"AWS::Serverless::HttpApi"},
    "TableName": {"AWS::DynamoDB::Table"},
    "StateMachineArn": {"AWS::StepFunctions::StateMachine"},
}
#: The namespace of our own metrics, in a stack that is called so.
OURS = "ComfyServerless/here"
_PLACEHOLDER = re.compile(r"\$\{(\w+)(?:\.\w+)?\}")
_SEARCH = re.compile(r"SEARCH\('\{\"([\w/]+)\",([\w,]+)\} MetricName=\"(\w+)\"'")


@dataclass(frozen=True, slots=True)
class Watched:
    """A metric that somebody looks at. A dimension's value is text, or the logical id of a resource; "*" is any."""

    namespace: str
    metric: str
    dimensions: frozenset[tuple[str, str]]

    @property
    def names(self) -> frozenset[str]:
        """The names of its dimensions."""
        return frozenset(name for name, _ in self.dimensions)

    def fits(self, sent: Watched) -> bool:
        """Whether it is this one that was sent."""
        values = dict(sent.dimensions)
        return (
            (self.namespace, self.metric, self.names) == (sent.namespace, sent.metric, sent.names)
            and all(value in ("*", values[name]) for name, value in self.dimensions)
        )  # fmt: skip


def of_alarm(alarm: Mapping[str, Any]) -> list[Watched]:
    """The metrics of an alarm: its own, or those of its sum."""
    if "MetricName" in alarm:
        return [_of_metric(alarm)]
    return [_of_metric(entry["MetricStat"]["Metric"]) for entry in alarm["Metrics"] if "MetricStat" in entry]


def of_dashboard(body: str | list[Any]) -> list[Watched]:
    """The metrics of a dashboard's widgets: of `Fn::Sub`'s text, in CloudWatch's shorthand."""
    text: str = body if isinstance(body, str) else body[0]  # behind it: names of resources under a condition
    document = json.loads(_PLACEHOLDER.sub(lambda found: found[1], re.sub(r"\$\{AWS::\w+\}", "here", text)))
    found: list[Watched] = []
    for widget in document["widgets"]:
        before: list[str] = []
        for row in widget["properties"]["metrics"]:
            if isinstance(row[0], dict):
                searched = _SEARCH.match(row[0]["expression"])
                assert searched is not None, row[0]["expression"]
                namespace, names, metric = searched.groups()
                found.append(Watched(namespace, metric, frozenset((name, "*") for name in names.split(","))))
                continue
            words = [word for word in row if isinstance(word, str)]
            if words[0] == "...":
                words = before[: len(before) - len(words) + 1] + words[1:]
            before = [before[at] if word == "." else word for at, word in enumerate(words)]
            pairs = frozenset(zip(before[2::2], before[3::2], strict=True))
            found.append(Watched(before[0], before[1], pairs))
    return found


def is_published(watched: Watched) -> bool:
    """Whether AWS publishes this metric with these dimensions."""
    return watched.metric in PUBLISHED.get(watched.namespace, {}).get(watched.names, frozenset())


def sections() -> Iterator[tuple[str, str]]:
    """The sections of the page about alarms: the alarm's name, and what the page says."""
    text = PAGE.read_text(encoding="utf-8")
    for found in re.finditer(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def _of_metric(metric: Mapping[str, Any]) -> Watched:
    pairs = frozenset((entry["Name"], _value(entry["Value"])) for entry in metric.get("Dimensions", ()))
    namespace = metric["Namespace"]
    if not isinstance(namespace, str):
        namespace = namespace["Fn::Sub"].replace("${AWS::StackName}", "here")
    return Watched(namespace, metric["MetricName"], pairs)


def _value(value: Any) -> str:
    match value:
        case {"Ref": name} | {"Fn::GetAtt": [name, *_]}:
            return str(name)
        case {"Fn::GetAtt": str(text)}:
            return text.partition(".")[0]
    return str(value)
