"""GPUs as Lambda functions on managed instances, behind queues, from no instance to many and back.

    API, ingest ──► queue of jobs, queue of batches ──► function, one job on each GPU ──► S3, jobs table

Managed instances do not freeze between invocations or kill code at the timeout: the worker itself interrupts ComfyUI.
"""

from __future__ import annotations

from typing import cast

from aws_cdk import CfnOutput, Duration, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra import prices
from infra.images import OwnRepository
from infra.instances import GIB_PER_VCPU
from infra.justify import justify
from infra.lambda_worker import feed_worker, watch_worker, worker_function
from infra.logs import log_group, save_query
from infra.network import network
from infra.queues import BATCH_RETENTION, VISIBILITY_TIMEOUTS, job_queue
from infra.roles import role_for
from infra.sam_stack import SamStack
from infra.settings import GpuSettings
from infra.worker_image import worker_image

#: Where managed instances mount NVIDIA's driver. Source: aws/deep-learning-containers, docker/lambda/Dockerfile.
DRIVER_LIBRARIES = "/x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia"
#: GPU utilization at which Lambda starts more. Its default of 40 keeps as many again idle for callers who cannot wait;
#: here jobs wait in a queue. But a job does not keep its GPU busy throughout: it decodes and saves, and the next one
#: fetches its inputs. At 90 the GPUs of a full queue may never be busy enough for one more to start, and the queue
#: stands still at its fewest. An idle GPU has 0, so that 60 starts none without work: at worst one runs some minutes
#: longer. (Whether concurrency counts, too, where the scaling names GPUs only, AWS alone can say.)
BUSY_PERCENT = 60


class LambdaGpuStack(Stack):
    """The capacity provider, the function on it, its queues, and their alarms."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: GpuSettings) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=f"{settings.stack}-lambda-gpu{settings.suffix}",
            description="comfy-serverless on GPU Lambda",
            synthesizer=OwnRepository(settings),
        )
        self.settings = settings
        self.sam = SamStack(
            self,
            settings.stack,
            input_buckets=settings.input_buckets,
            output_buckets=settings.output_buckets,
            release=settings.release,
        )
        self._image = worker_image(self, settings)
        visibility = Duration.seconds(VISIBILITY_TIMEOUTS * settings.function_timeout_s)
        jobs, job_dead_letters = job_queue(self, "Jobs", queue_name=settings.queue_name("jobs"), visibility=visibility)
        batches, batch_dead_letters = job_queue(
            self,
            "Batches",
            queue_name=settings.queue_name("batches"),
            visibility=visibility,
            retention=BATCH_RETENTION,
        )
        function = self._function(jobs, batches)
        self._capacity_provider().add_function(
            function,
            per_execution_environment_max_concurrency=1,  # one GPU, one job
            execution_environment_memory_gib_per_v_cpu=GIB_PER_VCPU,
            publish_to_latest_published=True,  # a function that is not published cannot be called
            latest_published_scaling_config=lambda_.LatestPublishedScalingConfig(
                min_execution_environments=settings.min_environments,
                max_execution_environments=settings.max_environments,
            ),
        )
        feed_worker(function, settings, jobs=jobs, batches=batches)
        watch_worker(self, settings, function, jobs=(jobs, job_dead_letters), batches=(batches, batch_dead_letters))
        save_query(self, [function.log_group])
        self.sam.announce(
            {
                "backend": "queue",
                "job_queue_url": jobs.queue_url,
                "batch_queue_url": batches.queue_url,
                "image": self._image.asset_hash,
            }
        ).node.add_dependency(function)
        CfnOutput(self, "FunctionName", value=function.function_name, description="The worker")
        CfnOutput(self, "JobQueueUrl", value=jobs.queue_url, description="Jobs of the API wait here")
        CfnOutput(self, "BatchQueueUrl", value=batches.queue_url, description="Jobs of batches wait here")

    def _function(self, jobs: sqs.Queue, batches: sqs.Queue) -> lambda_.DockerImageFunction:
        function = worker_function(
            self,
            self.settings,
            self.sam,
            image=self._image,
            queues=(jobs, batches),
            environment={
                "LD_LIBRARY_PATH": DRIVER_LIBRARIES,
                **prices.of_instances(self.settings, self.settings.lambda_instance_types),
            },
            description="Runs one ComfyUI workflow on a GPU and delivers its outputs",
            exceptions={
                "CKV_AWS_115": "FunctionScalingConfig limits how many run at once (max_environments), on instances "
                "that no other function uses",
                "CKV_AWS_116": "Only queues invoke it, which have dead letters",
                "CKV_AWS_117": "Its instances are in the capacity provider's VPC: the function itself names none",
                "CloudFormation-Validate::F3002": "The schema that CDK checks against does not know AcceleratorConfig",
            },
        )
        # CDK has no property for the first, and checks the others by the limits of ordinary functions.
        resource = cast("lambda_.CfnFunction", function.node.default_child)
        resource.add_property_override(
            "AcceleratorConfig", {"AcceleratorMemorySize": self.settings.accelerator_memory_gb}
        )
        resource.add_property_override("MemorySize", self.settings.memory_mb)
        resource.add_property_override("Timeout", self.settings.function_timeout_s)
        resource.add_property_override("EphemeralStorage", {"Size": self.settings.temporary_storage_mb})
        return function

    def _capacity_provider(self) -> lambda_.CapacityProvider:
        net = network(self, self.settings)
        group = ec2.SecurityGroup(
            self, "Group", vpc=net.vpc, description="Workers: nothing may call them, they may call anything"
        )
        operator = role_for(
            self,
            "Operator",
            "lambda.amazonaws.com",
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name("AWSLambdaManagedEC2ResourceOperator")],
            description="Lambda starts and ends the instances with this role",
        )
        managed = "arn:<AWS::Partition>:iam::aws:policy/AWSLambdaManagedEC2ResourceOperator"
        justify(
            operator,
            {f"AwsSolutions-IAM4[Policy::{managed}]": "Lambda's own policy: it follows what Lambda needs"},
        )
        provider = lambda_.CapacityProvider(
            self,
            "Gpus",
            subnets=net.subnets,
            security_groups=[group],
            architectures=[lambda_.Architecture.X86_64],
            instance_type_filter=lambda_.InstanceTypeFilter.allow(
                [ec2.InstanceType(name) for name in self.settings.lambda_instance_types]
            ),
            max_v_cpu_count=self.settings.max_vcpus,
            operator_role=operator,
            log_group=log_group(self, "GpusLog", days=self.settings.log_retention_days),
        )
        # An instance fetches the image as soon as it runs.
        for before in net.ready:
            provider.node.add_dependency(before)
        # CDK only knows the policy that scales by processors.
        resource = cast("lambda_.CfnCapacityProvider", provider.node.default_child)
        resource.add_property_override("CapacityProviderScalingConfig.ScalingMode", "Manual")
        resource.add_property_override(
            "CapacityProviderScalingConfig.ScalingPolicies",
            [{"PredefinedMetricType": "LambdaCapacityProviderAverageGPUUtilization", "TargetValue": BUSY_PERCENT}],
        )
        return provider
