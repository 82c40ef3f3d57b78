"""GPUs as Lambda functions on managed instances: queues before them, from no instance to many and back.

    API, ingest ──► queue of jobs, queue of batches ──► function, one job on each GPU ──► S3, jobs table

Nothing is frozen between invocations there, and nothing is killed at the timeout: the worker interrupts by itself.
"""

from __future__ import annotations

from typing import cast

from aws_cdk import CfnOutput, Duration, Size, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.alarms import Alarms
from infra.justify import FUNCTION, justify
from infra.logs import log_group
from infra.queues import MAX_RECEIVES, job_queue
from infra.sam_stack import SamStack
from infra.settings import GpuSettings
from infra.worker_image import models_manifest, worker_image

#: AWS's advice for a queue before a function: six times its timeout. SQS allows 43,200 s.
VISIBILITY_TIMEOUTS = 6
#: Where managed instances mount NVIDIA's driver. Source: aws/deep-learning-containers, docker/lambda/Dockerfile.
DRIVER_LIBRARIES = "/x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia"


class LambdaGpuStack(Stack):
    """The capacity provider, the function on it, its queues, and what watches them."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: GpuSettings) -> None:
        super().__init__(
            scope, construct_id, stack_name=f"{settings.stack}-lambda-gpu", description="comfy-serverless on GPU Lambda"
        )
        self.settings = settings
        self.sam = SamStack(self, settings.stack)
        visibility = Duration.seconds(VISIBILITY_TIMEOUTS * settings.function_timeout_s)
        jobs, job_dead_letters = job_queue(self, "Jobs", queue_name=f"{settings.stack}-gpu-jobs", visibility=visibility)
        batches, batch_dead_letters = job_queue(
            self, "Batches", queue_name=f"{settings.stack}-gpu-batches", visibility=visibility
        )
        function = self._function(jobs, batches)
        self._capacity_provider().add_function(
            function,
            per_execution_environment_max_concurrency=1,  # one GPU, one job
            latest_published_scaling_config=lambda_.LatestPublishedScalingConfig(
                min_execution_environments=0, max_execution_environments=settings.max_environments
            ),
        )
        for queue, at_once in (
            (jobs, settings.max_environments - settings.max_batch_environments),
            (batches, settings.max_batch_environments),
        ):
            function.add_event_source(
                sources.SqsEventSource(queue, batch_size=1, max_concurrency=at_once, report_batch_item_failures=True)
            )
        self._alarms(function, jobs, job_dead_letters, batch_dead_letters)
        self.sam.announce(
            {"backend": "queue", "job_queue_url": jobs.queue_url, "batch_queue_url": batches.queue_url}
        ).node.add_dependency(function)
        CfnOutput(self, "FunctionName", value=function.function_name, description="The worker")
        CfnOutput(self, "JobQueueUrl", value=jobs.queue_url, description="Jobs of the API wait here")
        CfnOutput(self, "BatchQueueUrl", value=batches.queue_url, description="Jobs of batches wait here")

    def _function(self, jobs: sqs.Queue, batches: sqs.Queue) -> lambda_.DockerImageFunction:
        image = worker_image(self, self.settings)
        log = log_group(self, "Log", days=self.settings.log_retention_days)
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        function = lambda_.DockerImageFunction(
            self,
            "Generate",
            description="Runs one ComfyUI workflow on a GPU and delivers its outputs",
            code=lambda_.DockerImageCode.from_ecr(image.repository, tag_or_digest=image.image_tag),
            architecture=lambda_.Architecture.X86_64,
            memory_size=10_240,
            timeout=Duration.seconds(900),
            ephemeral_storage_size=Size.mebibytes(10_240),
            recursive_loop=lambda_.RecursiveLoop.TERMINATE,
            log_group=log,
            logging_format=lambda_.LoggingFormat.JSON,
            role=role,
            environment={
                **self.sam.worker_environment(),
                "JOB_QUEUE_URL": jobs.queue_url,
                "BATCH_QUEUE_URL": batches.queue_url,
                **models_manifest(self.settings),
                "MAX_RECEIVES": str(MAX_RECEIVES),
                "LD_LIBRARY_PATH": DRIVER_LIBRARIES,
            },
        )
        for statement in (
            *self.sam.worker_statements(),
            iam.PolicyStatement(
                sid="WriteTheLog",
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[log.log_group_arn],
            ),
            iam.PolicyStatement(
                sid="SendJobsAgain", actions=["sqs:SendMessage"], resources=[jobs.queue_arn, batches.queue_arn]
            ),
        ):
            function.add_to_role_policy(statement)
        # CDK has no property for the first, and takes the others for those of functions elsewhere.
        resource = cast("lambda_.CfnFunction", function.node.default_child)
        resource.add_property_override(
            "AcceleratorConfig", {"AcceleratorMemorySize": self.settings.accelerator_memory_gb}
        )
        resource.add_property_override("MemorySize", self.settings.memory_mb)
        resource.add_property_override("Timeout", self.settings.function_timeout_s)
        resource.add_property_override("EphemeralStorage", {"Size": self.settings.temporary_storage_mb})
        justify(
            function,
            {
                **FUNCTION,
                "CKV_AWS_115": "As many at once as max_environments, which the capacity provider keeps to",
                "CloudFormation-Validate::F3002": "The schema that CDK checks against does not know AcceleratorConfig",
            },
        )
        justify(cast("Construct", role.node.find_child("DefaultPolicy")), self.sam.worker_exceptions())
        return function

    def _capacity_provider(self) -> lambda_.CapacityProvider:
        vpc, subnets = self._network()
        group = ec2.SecurityGroup(
            self, "Group", vpc=vpc, description="Workers: nothing may call them, they may call anything"
        )
        operator = iam.Role(
            self,
            "Operator",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name("AWSLambdaManagedEC2ResourceOperator")],
            description="Lambda starts and ends the instances in its name",
        )
        managed = "arn:<AWS::Partition>:iam::aws:policy/AWSLambdaManagedEC2ResourceOperator"
        justify(
            operator,
            {f"AwsSolutions-IAM4[Policy::{managed}]": "Lambda's own policy: what it needs changes with Lambda"},
        )
        return lambda_.CapacityProvider(
            self,
            "Gpus",
            subnets=subnets,
            security_groups=[group],
            architectures=[lambda_.Architecture.X86_64],
            operator_role=operator,
        )

    def _network(self) -> tuple[ec2.IVpc, list[ec2.ISubnet]]:
        if self.settings.vpc_id:
            # The zones are not used; there must be as many as subnets.
            zones = [f"{self.region}{letter}" for letter in "abcdefghijklmnop"[: len(self.settings.subnet_ids)]]
            vpc: ec2.IVpc = ec2.Vpc.from_vpc_attributes(
                self,
                "Network",
                vpc_id=self.settings.vpc_id,
                availability_zones=zones,
                private_subnet_ids=list(self.settings.subnet_ids),
            )
            return vpc, list(vpc.private_subnets)
        own = ec2.Vpc(
            self,
            "Network",
            max_azs=2,
            nat_gateways=1,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Public", subnet_type=ec2.SubnetType.PUBLIC, map_public_ip_on_launch=False
                ),
                ec2.SubnetConfiguration(name="Workers", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            ],
        )
        # What is large does not go through the NAT gateway, which is paid by the gigabyte.
        own.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        own.add_gateway_endpoint("DynamoDb", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB)
        log = log_group(self, "FlowLog", days=self.settings.log_retention_days)
        own.add_flow_log(
            "Flow",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(log),
            traffic_type=ec2.FlowLogTrafficType.REJECT,
        )
        return own, list(own.private_subnets)

    def _alarms(
        self, function: lambda_.Function, jobs: sqs.Queue, job_dead_letters: sqs.Queue, batch_dead_letters: sqs.Queue
    ) -> None:
        """Those of the SAM stack count failures by their codes, here as well: the metric is the same."""
        alarms = Alarms(self, self.settings.alarm_topic_arn)
        alarms.on_dead_letters("JobDeadLetters", job_dead_letters)
        alarms.on_dead_letters("BatchDeadLetters", batch_dead_letters)
        alarms.on_age("OldestJob", jobs, hours=1)
        alarms.on(
            "Throttles",
            "Lambda turns away invocations: no GPU is to be had, or more are asked for than may be",
            function.metric_throttles(period=Duration.minutes(5), statistic="Sum"),
            threshold=10,
            periods=6,
        )
