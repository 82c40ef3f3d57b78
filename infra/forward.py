"""The function between the queues and the endpoint (handlers/forward.py), and the alarms if it stops working."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.alarms import Alarms
from infra.justify import FUNCTION, justify
from infra.logs import log_group
from infra.roles import role_for
from infra.sam_stack import SamStack, allow
from infra.settings import GpuSettings
from infra.worker_image import api_image

#: For so long a job can wait in an invocation until there is room for it in the endpoint: Lambda's longest, in seconds.
FORWARD_TIMEOUT_S = 900
#: Invocations at once from each queue: the fewest that Lambda allows. Each holds one job.
AT_ONCE = 2
_EXCEPTIONS = {
    **FUNCTION,
    "CKV_AWS_115": "The maximum concurrency of its queues limits how many run at once. To reserve some would fail in a "
    "new account, which has 10 in all",
    "CKV_AWS_116": "Its queues have dead letters. EventBridge starts it each minute only so that it stays warm",
    "CKV_AWS_117": "It needs nothing in a VPC: it reaches SQS, DynamoDB and SageMaker at their public addresses, "
    "over TLS and with its role",
}


def forward(
    scope: Construct,
    settings: GpuSettings,
    sam: SamStack,
    *,
    jobs: sqs.Queue,
    batches: sqs.Queue,
    endpoint: sagemaker.CfnEndpoint,
) -> lambda_.Function:
    """Build the function that lets jobs through to the endpoint, as many as it can run."""
    image = api_image(scope)
    log = log_group(scope, "ForwardLog", days=settings.log_retention_days)
    role = role_for(scope, "ForwardRole", "lambda.amazonaws.com")
    function = lambda_.DockerImageFunction(
        scope,
        "Forward",
        description="Lets jobs through to the endpoint, as many as it can run",
        code=lambda_.DockerImageCode.from_ecr(
            image.repository, tag_or_digest=image.image_tag, cmd=["comfy_serverless.handlers.forward.handler"]
        ),
        architecture=lambda_.Architecture.X86_64,
        memory_size=512,
        timeout=Duration.seconds(FORWARD_TIMEOUT_S),
        # A job for which there has been no room for 15 minutes is sent to its queue again, from where it comes back.
        recursive_loop=lambda_.RecursiveLoop.ALLOW,
        # Of the clock: the next start is a minute away.
        retry_attempts=0,
        max_event_age=Duration.seconds(60),
        log_group=log,
        logging_format=lambda_.LoggingFormat.JSON,
        role=role,
        environment={
            "ENDPOINT_NAME": settings.endpoint_name,
            "JOB_QUEUE_URL": jobs.queue_url,
            "BATCH_QUEUE_URL": batches.queue_url,
            "JOBS_TABLE": sam.jobs_table,
            "WAITING_PER_INSTANCE": str(waiting_per_instance(settings)),
            "POWERTOOLS_SERVICE_NAME": "forward",
            "POWERTOOLS_LOG_LEVEL": "INFO",
            "POWERTOOLS_METRICS_NAMESPACE": sam.metrics_namespace,
        },
    )
    for statement in (
        allow("WriteTheLog", ["logs:CreateLogStream", "logs:PutLogEvents"], [log.log_group_arn]),
        allow("LetThemWaitOn", ["sqs:SendMessage"], [jobs.queue_arn, batches.queue_arn]),
        allow(
            "SendThemOnAndSeeHowManyInstancesThereAre",
            ["sagemaker:InvokeEndpointAsync", "sagemaker:DescribeEndpoint"],
            [sam.endpoints(settings.endpoint_names)],
        ),
        *_table_statements(sam),
    ):
        function.add_to_role_policy(statement)
    for queue in (jobs, batches):
        function.add_event_source(
            sources.SqsEventSource(queue, batch_size=1, max_concurrency=AT_ONCE, report_batch_item_failures=True)
        )
    # An endpoint takes longer to start than a job needs to reach the dead letters if it is sent to a missing one.
    function.node.add_dependency(endpoint)
    justify(function, _EXCEPTIONS)
    events.Rule(
        scope,
        "EachMinute",
        schedule=events.Schedule.rate(Duration.minutes(1)),
        targets=[targets.LambdaFunction(function, retry_attempts=0)],
    )
    return function


def watch_forward(alarms: Alarms, function: lambda_.Function) -> None:
    """Add alarms for the function: all jobs stand still without it, and the batch queue may be full for days anyway."""
    five_minutes = Duration.minutes(5)
    alarms.on(
        "ForwardErrors",
        "Jobs do not reach the endpoint: the function in front of it fails.",
        function.metric_errors(period=five_minutes, statistic="Sum"),
        threshold=3,
    )
    alarms.on_silence(
        "ForwardSilent",
        "Jobs do not reach the endpoint: the function in front of it has not started for ten minutes.",
        function.metric_invocations(period=five_minutes, statistic="Sum"),
        periods=2,
    )


def waiting_per_instance(settings: GpuSettings) -> int:
    """How many jobs of batches wait in the endpoint for each instance, beside those that its container has in hand.

    Two, so that none runs dry before the gate has seen that it took one. And enough that the endpoint's own backlog is
    above the target of its scaling, even if CloudWatch knows nothing of the queues.
    """
    return max(2, settings.backlog_per_instance + 1 - settings.in_flight)


def _table_statements(sam: SamStack) -> list[iam.PolicyStatement]:
    return [
        allow(
            "SeeWhichAreBegunAndParkOrCancelThem",
            ["dynamodb:BatchGetItem", "dynamodb:UpdateItem"],
            [sam.jobs_table_arn],
            {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["job#*"]}},
        ),
        allow(
            "SeeWhetherABatchIsPaused",
            ["dynamodb:GetItem"],
            [sam.jobs_table_arn],
            {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["batch#*"]}},
        ),
        allow(
            "GiveOutThePlacesInTheEndpoint",
            ["dynamodb:GetItem", "dynamodb:UpdateItem"],
            [sam.jobs_table_arn],
            {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["gate#*"]}},
        ),
    ]
