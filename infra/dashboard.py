"""The dashboard of a stack of workers: its queues, and what takes jobs from them. The alarms watch the same figures.

The SAM stack's own dashboard has what all workers tell together (jobs, failures, times), releases among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.alarms import MINUTE
from infra.autoscaling import endpoint_metric

_FIVE_MINUTES = Duration.minutes(5)
#: Three widgets in a row, as on the SAM stack's.
_WIDTH, _HEIGHT = 8, 6


def show(
    scope: Construct,
    *,
    jobs: tuple[sqs.Queue, sqs.Queue],
    batches: tuple[sqs.Queue, sqs.Queue],
    more_dead_letters: Sequence[sqs.Queue] = (),
    workers: Sequence[cloudwatch.GraphWidget],
) -> None:
    """Make the dashboard `STACK-REGION`: names of dashboards are the account's, of all regions.

    Args:
        jobs, batches: the queues, each with its dead letters.
        workers: the widgets of what takes jobs from them.
    """
    waiting = (jobs[0], batches[0])
    put_aside = (jobs[1], batches[1], *more_dead_letters)
    widgets = (
        widget(
            "Jobs that wait",
            *(one.metric_approximate_number_of_messages_visible(period=MINUTE, statistic="Maximum") for one in waiting),
        ),
        widget(
            "Age of the oldest (s)",
            *(one.metric_approximate_age_of_oldest_message(period=MINUTE, statistic="Maximum") for one in waiting),
        ),
        widget(
            "Dead letters",
            *(
                one.metric_approximate_number_of_messages_visible(period=MINUTE, statistic="Maximum")
                for one in put_aside
            ),
        ),
        *workers,
    )
    stack = Stack.of(scope)
    cloudwatch.Dashboard(
        scope,
        "Dashboard",
        dashboard_name=f"{stack.stack_name}-{stack.region}",
        widgets=[list(widgets[at : at + 3]) for at in range(0, len(widgets), 3)],
    )


def widget(title: str, *metrics: cloudwatch.IMetric) -> cloudwatch.GraphWidget:
    """A graph of some metrics."""
    return cloudwatch.GraphWidget(title=title, left=list(metrics), width=_WIDTH, height=_HEIGHT)


def of_function(function: lambda_.Function) -> list[cloudwatch.GraphWidget]:
    """The widgets of workers on Lambda."""
    return [
        widget("Workers at once", function.metric("ConcurrentExecutions", period=MINUTE, statistic="Maximum")),
        widget("Workers that died", function.metric_errors(period=_FIVE_MINUTES, statistic="Sum")),
        widget("Invocations that Lambda refuses", function.metric_throttles(period=_FIVE_MINUTES, statistic="Sum")),
    ]


def of_endpoint(name: str, forward: lambda_.Function) -> list[cloudwatch.GraphWidget]:
    """The widgets of an endpoint of SageMaker, and of the function in front of it."""
    return [
        widget(
            "In the endpoint, and without an instance",
            endpoint_metric(name, "ApproximateBacklogSize", statistic="Maximum"),
            endpoint_metric(name, "HasBacklogWithoutCapacity", statistic="Maximum"),
        ),
        widget(
            "Age of the oldest in the endpoint (s)",
            endpoint_metric(name, "ApproximateAgeOfOldestRequest", statistic="Maximum"),
        ),
        widget(
            "Invocations that failed, expired or were not told",
            *(
                endpoint_metric(name, metric, statistic="Sum", of_variant=True, period=_FIVE_MINUTES)
                for metric in ("InvocationFailures", "ExpiredRequests", "NotificationFailures")
            ),
        ),
        widget(
            "The function in front of the endpoint",
            forward.metric_invocations(period=_FIVE_MINUTES, statistic="Sum"),
            forward.metric_errors(period=_FIVE_MINUTES, statistic="Sum"),
        ),
    ]
