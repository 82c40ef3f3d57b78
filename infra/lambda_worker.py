"""A worker as a Lambda function between two queues: what it is, what it may do, and when somebody must look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from aws_cdk import Duration, Size
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.alarms import LATE_BATCH_H, Alarms
from infra.dashboard import of_function, show
from infra.justify import FUNCTION, justify
from infra.logs import log_group
from infra.queues import MAX_RECEIVES
from infra.roles import role_for
from infra.sam_stack import SamStack, allow
from infra.settings import GpuSettings
from infra.tokens import token_statements
from infra.worker_image import chosen_environment


def worker_function(
    scope: Construct,
    settings: GpuSettings,
    sam: SamStack,
    *,
    image: ecr_assets.DockerImageAsset,
    queues: tuple[sqs.Queue, sqs.Queue],
    environment: Mapping[str, str],
    description: str,
    exceptions: Mapping[str, str],
    memory_mb: int = 10_240,
) -> lambda_.DockerImageFunction:
    """The function with an ordinary one's largest limits, its role and its log.

    Args:
        queues: of jobs, and of jobs of batches.
        environment: on top of every worker's.
        exceptions: to the rules, with reasons (`justify`).
    """
    jobs, batches = queues
    log = log_group(scope, "Log", days=settings.log_retention_days)
    role = role_for(scope, "Role", "lambda.amazonaws.com")
    function = lambda_.DockerImageFunction(
        scope,
        "Generate",
        description=description,
        code=lambda_.DockerImageCode.from_ecr(image.repository, tag_or_digest=image.image_tag),
        architecture=lambda_.Architecture.X86_64,
        memory_size=memory_mb,
        timeout=Duration.seconds(900),
        ephemeral_storage_size=Size.mebibytes(10_240),
        recursive_loop=lambda_.RecursiveLoop.TERMINATE,
        log_group=log,
        logging_format=lambda_.LoggingFormat.JSON,
        role=role,
        environment={
            **sam.worker_environment(image),
            "JOB_QUEUE_URL": jobs.queue_url,
            "BATCH_QUEUE_URL": batches.queue_url,
            **chosen_environment(settings),
            "MAX_RECEIVES": str(MAX_RECEIVES),
            **environment,
        },
    )
    for statement in (
        *sam.worker_statements(),
        *token_statements(settings),
        allow("WriteTheLog", ["logs:CreateLogStream", "logs:PutLogEvents"], [log.log_group_arn]),
        allow("SendJobsAgain", ["sqs:SendMessage"], [jobs.queue_arn, batches.queue_arn]),
    ):
        function.add_to_role_policy(statement)
    justify(function, {**FUNCTION, **exceptions})
    justify(cast("Construct", role.node.find_child("DefaultPolicy")), sam.worker_exceptions())
    return function


def feed_worker(
    function: lambda_.DockerImageFunction, settings: GpuSettings, *, jobs: sqs.Queue, batches: sqs.Queue
) -> None:
    """Have it invoked with one job at a time, from both queues, and so often at once as the settings say."""
    for queue, at_once in (
        (jobs, settings.max_environments - settings.max_batch_environments),
        (batches, settings.max_batch_environments),
    ):
        function.add_event_source(
            sources.SqsEventSource(queue, batch_size=1, max_concurrency=at_once, report_batch_item_failures=True)
        )


def watch_worker(
    scope: Construct,
    settings: GpuSettings,
    function: lambda_.Function,
    *,
    jobs: tuple[sqs.Queue, sqs.Queue],
    batches: tuple[sqs.Queue, sqs.Queue],
) -> None:
    """Add the alarms and the dashboard; each queue comes with its dead letters.

    The SAM stack's own alarms also count the failures here: the metric is the same.
    """
    show(scope, jobs=jobs, batches=batches, workers=of_function(function))
    alarms = Alarms(scope, settings.alarm_topic_arn)
    alarms.on_dead_letters("JobDeadLetters", jobs[1])
    alarms.on_dead_letters("BatchDeadLetters", batches[1])
    # The age includes the time a job runs, which may be an hour and a half.
    alarms.on_age("OldestJob", jobs[0], hours=2)
    alarms.on_age("OldestBatchJob", batches[0], hours=LATE_BATCH_H)
    five_minutes = Duration.minutes(5)
    alarms.on(
        "WorkerErrors",
        "A worker died: out of memory or time, or it did not start.",
        function.metric_errors(period=five_minutes, statistic="Sum"),
    )
    alarms.on(
        "Throttles",
        "Lambda refuses invocations: no GPU is available, or the limit is reached.",
        function.metric_throttles(period=five_minutes, statistic="Sum"),
        periods=6,  # the first instance takes some minutes to start; a single job is refused only a few times
    )
    alarms.on(
        "Recursion",
        "Lambda stopped the function in what it took for an endless loop.",
        function.metric("RecursiveInvocationsDropped", period=five_minutes, statistic="Sum"),
    )
