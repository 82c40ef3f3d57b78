"""GPUs as a SageMaker asynchronous endpoint, with queues before it, from no instance to many and back.

API, ingest ──► queue of jobs, queue of batches
                  └──► forward: as many as it can run ──► endpoint: instances of the image (`serve`) ──► S3, jobs table
                                                            └──► topics ──► OutcomeFunction of the SAM stack
"""

from __future__ import annotations

from typing import cast

from aws_cdk import ArnFormat, CfnOutput, Duration, RemovalPolicy, Stack, Tags
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra import prices
from infra.alarms import LATE_BATCH_H, Alarms
from infra.autoscaling import VARIANT, endpoint_metric, scale_from_zero
from infra.dashboard import of_endpoint, show
from infra.forward import FORWARD_TIMEOUT_S, forward, watch_forward
from infra.images import OwnRepository
from infra.justify import justify
from infra.logs import log_group, save_query
from infra.queues import BATCH_RETENTION, VISIBILITY_TIMEOUTS, dead_letter_queue, job_queue
from infra.roles import role_for
from infra.sam_stack import SamStack, allow
from infra.settings import GpuSettings
from infra.tokens import token_statements
from infra.worker_image import chosen_environment, worker_image

#: The driver for CUDA 13, which our build of torch needs. Source: SageMaker's API, InferenceAmiVersion.
INFERENCE_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
#: How long SageMaker looks for an instance of any of the types before it gives up, in seconds (300 to 3,600).
PROVISION_TIMEOUT_S = 1800


class SageMakerStack(Stack):
    """The endpoint, its queue, scaling, notifications and alarms."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: GpuSettings) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=f"{settings.stack}-sagemaker{settings.suffix}",
            description="comfy-serverless on SageMaker",
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
        self.endpoint_name = settings.endpoint_name
        self._image = worker_image(self, settings)

        topics = self._topics()
        visibility = Duration.seconds(VISIBILITY_TIMEOUTS * FORWARD_TIMEOUT_S)
        jobs, job_dead_letters = job_queue(self, "Jobs", queue_name=settings.queue_name("jobs"), visibility=visibility)
        batches, batch_dead_letters = job_queue(
            self,
            "Batches",
            queue_name=settings.queue_name("batches"),
            visibility=visibility,
            retention=BATCH_RETENTION,
        )
        self._jobs, self._batches = jobs, batches
        endpoint = self._endpoint(self._execution_role(topics), topics)
        # The instance starts last: a queue name that is taken, or a topic without a subscriber, is found out without
        # one.
        endpoint.node.add_dependency(jobs, batches, *self._subscriptions)
        scale_from_zero(self, endpoint, settings, jobs=jobs, batches=batches)
        function = forward(self, settings, self.sam, jobs=jobs, batches=batches, endpoint=endpoint)
        self._alarms(job_dead_letters, batch_dead_letters, function)
        show(
            self,
            jobs=(jobs, job_dead_letters),
            batches=(batches, batch_dead_letters),
            more_dead_letters=[self._outcome_dead_letters],
            workers=of_endpoint(self.endpoint_name, function),
        )
        save_query(self, [self._endpoint_log, function.log_group])
        self.sam.announce(
            {
                "backend": "sagemaker",
                "endpoint_name": self.endpoint_name,
                "job_queue_url": jobs.queue_url,
                "batch_queue_url": batches.queue_url,
                "image": self._image.asset_hash,
            }
        ).node.add_dependency(endpoint)
        CfnOutput(self, "EndpointName", value=self.endpoint_name, description="Where jobs are run")
        CfnOutput(self, "JobQueueUrl", value=jobs.queue_url, description="Jobs of the API wait here before it")
        CfnOutput(self, "BatchQueueUrl", value=batches.queue_url, description="Jobs of batches wait here before it")

    def _topics(self) -> dict[str, sns.Topic]:
        """Create the topics. One function is subscribed to both: successes and failures differ only in content."""
        key = kms.Key(
            self,
            "TopicKey",
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.DESTROY,  # what it encrypts is gone within a day
            description="Encrypts SageMaker's notifications about the ends of invocations",
        )
        self._topic_key = key
        function = lambda_.Function.from_function_attributes(
            self, "OutcomeFunction", function_arn=self.sam.outcome_function_arn(), same_environment=True
        )
        self._outcome_dead_letters = dead_letter_queue(self, "OutcomeDeadLetters")
        justify(
            self._outcome_dead_letters,
            {"AwsSolutions-SQS3": "It holds the dead letters of subscriptions, which the rule does not see"},
        )
        topics = {
            name: sns.Topic(self, f"{name}Topic", master_key=key, enforce_ssl=True) for name in ("Success", "Failure")
        }
        self._subscriptions = [
            topic.add_subscription(
                subscriptions.LambdaSubscription(function, dead_letter_queue=self._outcome_dead_letters)
            )
            for topic in topics.values()
        ]
        return topics

    def _execution_role(self, topics: dict[str, sns.Topic]) -> iam.Role:
        """What the container may do, and SageMaker on its behalf."""
        role = role_for(self, "ExecutionRole", "sagemaker.amazonaws.com")
        log_streams = self.format_arn(
            service="logs",
            resource="log-group",
            resource_name=f"{_log_group_name(self.settings.endpoint_names)}:*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        statements = [
            *self.sam.worker_statements(),
            *token_statements(self.settings),
            allow("SendJobsAgain", ["sqs:SendMessage"], [self._jobs.queue_arn, self._batches.queue_arn]),
            # The log group exists before the endpoint. SageMaker's guide asks for CreateLogGroup all the same, and does
            # not say that logging works without it. So an endpoint that ends may recreate its group, which then stays.
            allow(
                "WriteTheLog",
                ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                [log_streams],
            ),
            allow(
                "TellFigures",
                ["cloudwatch:PutMetricData"],  # has no resources in IAM
                ["*"],
                {"StringEquals": {"cloudwatch:namespace": ["AWS/SageMaker", "/aws/sagemaker/Endpoints"]}},
            ),
            allow("TellOutcomes", ["sns:Publish"], [topic.topic_arn for topic in topics.values()]),
            allow("EncryptOutcomes", ["kms:GenerateDataKey", "kms:Decrypt"], [self._topic_key.key_arn]),
        ]
        if self.settings.models:
            bucket, _, prefix = self.settings.models.removeprefix("s3://").partition("/")
            statements += [
                allow("ReadModels", ["s3:GetObject"], [self.sam.objects(bucket, f"{prefix}*")]),
                allow(
                    "ListModels",
                    ["s3:ListBucket"],
                    [self.sam.bucket(bucket)],
                    {"StringLike": {"s3:prefix": [f"{prefix}*"]}},
                ),
            ]
        for statement in statements:
            role.add_to_policy(statement)
        return role

    def _endpoint(self, role: iam.Role, topics: dict[str, sns.Topic]) -> sagemaker.CfnEndpoint:
        self._image.repository.grant_pull(role)
        self._justify(role)
        self._endpoint_log = log = log_group(
            self, "EndpointLog", days=self.settings.log_retention_days, name=_log_group_name(self.endpoint_name)
        )
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=self._image.image_uri,
                environment={
                    **self.sam.worker_environment(self._image),
                    "JOB_QUEUE_URL": self._jobs.queue_url,
                    "BATCH_QUEUE_URL": self._batches.queue_url,
                    "IN_FLIGHT": str(self.settings.in_flight),
                    **chosen_environment(self.settings),
                    **prices.of_instances(self.settings, self.settings.instance_types),
                    "AWS_DEFAULT_REGION": self.region,
                },
                model_data_source=self._model_data(),
            ),
        )
        justify(model, {"CKV_AWS_370": "Jobs fetch inputs and models from S3 and from addresses that they name"})
        # SageMaker fetches image and models with this role as soon as there is an endpoint.
        model.node.add_dependency(role.node.find_child("DefaultPolicy"))
        config = sagemaker.CfnEndpointConfig(
            self,
            "EndpointConfig",
            production_variants=[self._variant(model)],
            async_inference_config=self._asynchronously(topics),
        )
        endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.endpoint_name,
            endpoint_config_name=config.attr_endpoint_config_name,
            retain_all_variant_properties=True,  # the scaling decides how many instances there are
        )
        Tags.of(endpoint).add("comfy-serverless:stack", self.settings.stack)
        endpoint.node.add_dependency(log)
        return endpoint

    def _justify(self, role: iam.Role) -> None:
        """State the exceptions of the role's policy, which is final now."""
        group = _log_group_name(self.settings.endpoint_names)
        log = f"arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:{group}:*"
        reasons = {
            **self.sam.worker_exceptions(),
            "AwsSolutions-IAM5[Resource::*]": "GetAuthorizationToken of ECR and PutMetricData have no resources",
            f"AwsSolutions-IAM5[Resource::{log}]": "The streams of the endpoint's log, which SageMaker names",
        }
        if self.settings.models:
            models = self.settings.models.removeprefix("s3://")
            reasons[f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:s3:::{models}*]"] = "The folder of models"
        justify(cast("Construct", role.node.find_child("DefaultPolicy")), reasons)

    def _model_data(self) -> sagemaker.CfnModel.ModelDataSourceProperty | None:
        """The models as files in S3: an archive would have to be packed, fetched whole, and unpacked."""
        if not self.settings.models:
            return None
        return sagemaker.CfnModel.ModelDataSourceProperty(
            s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
                s3_uri=self.settings.models, s3_data_type="S3Prefix", compression_type="None"
            )
        )

    def _variant(self, model: sagemaker.CfnModel) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
        return sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            variant_name=VARIANT,
            model_name=model.attr_model_name,
            initial_instance_count=1,  # SageMaker's minimum; the scaling gives it back
            initial_variant_weight=1,
            instance_pools=[
                sagemaker.CfnEndpointConfig.InstancePoolProperty(instance_type=name, priority=priority)
                for priority, name in enumerate(self.settings.instance_types, start=1)
            ],
            variant_instance_provision_timeout_in_seconds=PROVISION_TIMEOUT_S,
            inference_ami_version=INFERENCE_AMI,
            container_startup_health_check_timeout_in_seconds=self.settings.startup_timeout_s,
            model_data_download_timeout_in_seconds=self.settings.models_timeout_s,
        )

    def _asynchronously(self, topics: dict[str, sns.Topic]) -> sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty:
        return sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty(
            client_config=sagemaker.CfnEndpointConfig.AsyncInferenceClientConfigProperty(
                max_concurrent_invocations_per_instance=self.settings.in_flight
            ),
            output_config=sagemaker.CfnEndpointConfig.AsyncInferenceOutputConfigProperty(
                s3_output_path=f"s3://{self.sam.output_bucket}/endpoint/output",
                s3_failure_path=f"s3://{self.sam.output_bucket}/endpoint/failure",
                notification_config=sagemaker.CfnEndpointConfig.AsyncInferenceNotificationConfigProperty(
                    success_topic=topics["Success"].topic_arn, error_topic=topics["Failure"].topic_arn
                ),
            ),
        )

    def _alarms(self, job_dead_letters: sqs.Queue, batch_dead_letters: sqs.Queue, function: lambda_.Function) -> None:
        alarms = Alarms(self, self.settings.alarm_topic_arn)
        alarms.on_dead_letters("JobDeadLetters", job_dead_letters)
        alarms.on_dead_letters("BatchDeadLetters", batch_dead_letters)
        alarms.on_age("OldestJob", self._jobs, hours=2)
        alarms.on_dead_letters("OutcomeDeadLetters", self._outcome_dead_letters)
        alarms.on_age("OldestBatchJob", self._batches, hours=LATE_BATCH_H)
        watch_forward(alarms, function)
        alarms.on(
            "NoCapacity",
            "Jobs have waited for half an hour without an instance: none is available, or none starts.",
            endpoint_metric(self.endpoint_name, "HasBacklogWithoutCapacity", statistic="Minimum"),
            periods=30,
        )
        alarms.on(
            "OldestInvocation",
            "An invocation has waited for two hours; after six it expires, and its job is sent again.",
            endpoint_metric(self.endpoint_name, "ApproximateAgeOfOldestRequest", statistic="Maximum"),
            threshold=7200,
            periods=5,
        )
        alarms.on(
            "Expired",
            "Invocations expired in the endpoint's queue.",
            endpoint_metric(self.endpoint_name, "ExpiredRequests", statistic="Sum", of_variant=True),
        )
        alarms.on(
            "NotTold",
            "SageMaker could not report the ends of invocations; the caretaker finds those jobs later.",
            endpoint_metric(self.endpoint_name, "NotificationFailures", statistic="Sum", of_variant=True),
        )
        alarms.on(
            "FailedInvocations",
            "Ten invocations failed within a quarter of an hour.",
            endpoint_metric(
                self.endpoint_name, "InvocationFailures", statistic="Sum", of_variant=True, period=Duration.minutes(15)
            ),
            threshold=10,
        )


def _log_group_name(endpoint: str) -> str:
    """The name that SageMaker gives to an endpoint's log group."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"
