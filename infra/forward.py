"""The function between the batch queue and the endpoint (handlers/forward.py), and the alarms if it stops working."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
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

#: An invocation ends by itself within this time, in seconds.
FORWARD_TIMEOUT_S = 60
_EXCEPTIONS = {
    **FUNCTION,
    "CKV_AWS_116": "EventBridge starts it each minute: the next start makes up for a lost one, and jobs stay in the "
    "queue, which has dead letters",
    "CKV_AWS_117": "It needs nothing in a VPC: it reaches SQS, DynamoDB and SageMaker at their public addresses, "
    "over TLS and with its role",
}


def forward(
    scope: Construct, settings: GpuSettings, sam: SamStack, queue: sqs.Queue, endpoint: sagemaker.CfnEndpoint
) -> lambda_.Function:
    """Build the function that lets jobs of batches through to the endpoint, as many as it can run."""
    image = api_image(scope)
    log = log_group(scope, "ForwardLog", days=settings.log_retention_days)
    role = role_for(scope, "ForwardRole", "lambda.amazonaws.com")
    function = lambda_.DockerImageFunction(
        scope,
        "Forward",
        description="Lets jobs of batches through to the endpoint, as many as it can run",
        code=lambda_.DockerImageCode.from_ecr(
            image.repository, tag_or_digest=image.image_tag, cmd=["comfy_serverless.handlers.forward.handler"]
        ),
        architecture=lambda_.Architecture.X86_64,
        memory_size=512,
        timeout=Duration.seconds(FORWARD_TIMEOUT_S),
        reserved_concurrent_executions=1,  # it counts what it has sent
        # The next start is a minute away: a start that has to wait would only be in its way.
        retry_attempts=0,
        max_event_age=Duration.seconds(60),
        log_group=log,
        logging_format=lambda_.LoggingFormat.JSON,
        role=role,
        environment={
            "ENDPOINT_NAME": settings.endpoint_name,
            "BATCH_QUEUE_URL": queue.queue_url,
            "JOBS_TABLE": sam.jobs_table,
            "MAX_WAITING_BATCH_JOBS": str(most_waiting(settings)),
            "POWERTOOLS_SERVICE_NAME": "forward",
            "POWERTOOLS_LOG_LEVEL": "INFO",
        },
    )
    for statement in (
        allow("WriteTheLog", ["logs:CreateLogStream", "logs:PutLogEvents"], [log.log_group_arn]),
        allow("TakeJobs", ["sqs:ReceiveMessage", "sqs:DeleteMessage"], [queue.queue_arn]),
        allow("SendThemOn", ["sagemaker:InvokeEndpointAsync"], [sam.endpoints(settings.endpoint_names)]),
        *_table_statements(sam),
    ):
        function.add_to_role_policy(statement)
    # An endpoint takes longer to start than a batch needs to reach the dead letters if it is sent to a missing one.
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
    """Add alarms for the function: batches stand still without it, and their queue may be full for days anyway."""
    five_minutes = Duration.minutes(5)
    alarms.on(
        "ForwardErrors",
        "Jobs of batches do not reach the endpoint: the function in front of it fails.",
        function.metric_errors(period=five_minutes, statistic="Sum"),
        threshold=3,
    )
    alarms.on_silence(
        "ForwardSilent",
        "Jobs of batches do not reach the endpoint: the function in front of it has not started for ten minutes.",
        function.metric_invocations(period=five_minutes, statistic="Sum"),
        periods=2,
    )


def most_waiting(settings: GpuSettings) -> int:
    """The most jobs of batches that wait in the endpoint: enough to make it scale out fully, and some more."""
    return settings.max_instances * (settings.backlog_per_instance + settings.in_flight)


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
    ]
