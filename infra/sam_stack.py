"""The SAM stack as seen from here: its resources, by the SSM parameters it writes, and how to connect to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import CfnParameter, Stack
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from infra.worker_image import lock_version


class SamStack:
    """The names and addresses of its resources, known to CloudFormation when it deploys.

    Args:
        name: of the SAM stack.
        input_buckets: that workers may read from, beside the stack's own.
        output_buckets: that they may write results to, beside the stack's own.
        release: the name of these workers; "" for those that jobs go to at once.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        input_buckets: Sequence[str] = (),
        output_buckets: Sequence[str] = (),
        release: str = "",
    ) -> None:
        self._scope = scope
        self._release = release
        self.name = name
        #: Where its functions count what the dashboard and the alarms of the SAM stack watch.
        self.metrics_namespace = f"ComfyServerless/{name}"
        self._input_buckets = input_buckets
        self._output_buckets = output_buckets
        self.jobs_table = self._parameter("JobsTable", "jobs-table")
        self.jobs_table_arn = self._parameter("JobsTableArn", "jobs-table-arn")
        self.input_bucket = self._parameter("InputBucket", "input-bucket")
        self.output_bucket = self._parameter("OutputBucket", "output-bucket")
        self.assets_bucket = self._parameter("AssetsBucket", "assets-bucket")
        self.webhook_queue_url = self._parameter("WebhookQueueUrl", "webhook-queue-url")
        self.webhook_queue_arn = self._parameter("WebhookQueueArn", "webhook-queue-arn")

    def outcome_function_arn(self) -> str:
        """The function that is notified when an endpoint's invocations end."""
        return self._parameter("OutcomeFunctionArn", "outcome-function-arn")

    def worker_environment(self, image: ecr_assets.DockerImageAsset) -> dict[str, str]:
        """The environment of every worker with this image."""
        return {
            "WORKER_IMAGE": image.asset_hash,
            "OUTPUT_BUCKET": self.output_bucket,
            "ASSETS_BUCKET": self.assets_bucket,
            "ALLOWED_INPUT_BUCKETS": ",".join(
                (self.input_bucket, self.output_bucket, self.assets_bucket, *self._input_buckets)
            ),
            "ALLOWED_OUTPUT_BUCKETS": ",".join((self.output_bucket, *self._output_buckets)),
            "JOBS_TABLE": self.jobs_table,
            "WEBHOOK_QUEUE_URL": self.webhook_queue_url,
            "POWERTOOLS_SERVICE_NAME": "generate",
            "POWERTOOLS_LOG_LEVEL": "INFO",
            "POWERTOOLS_METRICS_NAMESPACE": self.metrics_namespace,
        }

    def worker_statements(self) -> list[iam.PolicyStatement]:
        """What every worker may do. Workflows and custom nodes run beside it: keys and secrets must be out of reach."""
        return [
            allow(
                "TellHowJobsAre",
                ["dynamodb:PutItem", "dynamodb:UpdateItem"],
                [self.jobs_table_arn],
                {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["job#*"]}},
            ),
            allow(
                "TellWhatJobsHaveMade",
                ["dynamodb:BatchWriteItem"],
                [self.jobs_table_arn],
                {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["job#*", "asset#*"]}},
            ),
            allow(
                "CountWhatJobsCost",
                ["dynamodb:UpdateItem"],
                [self.jobs_table_arn],
                {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["usage#*"]}},
            ),
            allow(
                "SeeWhetherABatchIsPaused",
                ["dynamodb:GetItem"],
                [self.jobs_table_arn],
                {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["batch#*"]}},
            ),
            allow(
                "FindNamedWorkflows",
                ["dynamodb:BatchGetItem", "dynamodb:Query"],
                [self.jobs_table_arn],
                {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["workflows#*"]}},
            ),
            allow("ReadNamedWorkflows", ["s3:GetObject"], [self.objects(self.assets_bucket, "workflows/*")]),
            allow("SendWebhooks", ["sqs:SendMessage"], [self.webhook_queue_arn]),
            allow(
                "ReadInputs",
                ["s3:GetObject"],
                [
                    self.objects(self.input_bucket),
                    self.objects(self.assets_bucket, "blobs/*"),
                    self.objects(self.assets_bucket, "requests/*"),
                ],
            ),
            allow("ReadInputsAsTheyWere", ["s3:GetObjectVersion"], [self.objects(self.input_bucket)]),
            allow("TellWhichNodesThereAre", ["s3:PutObject"], [self.objects(self.assets_bucket, "engine/*")]),
            allow(
                "HoldModelsToWhatTheyWere",
                ["s3:GetObject", "s3:PutObject"],
                [self.objects(self.assets_bucket, "pins/*")],
            ),
            allow(
                "WriteResultsAndReadThemAgain",
                ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
                [self.objects(self.output_bucket)],
            ),
            # Without it S3 answers 403 for a key that does not exist, which cannot be told from a forbidden one.
            allow(
                "TellMissingFromForbidden",
                ["s3:ListBucket"],
                [self.bucket(name) for name in (self.input_bucket, self.output_bucket, self.assets_bucket)],
            ),
            *self._own_bucket_statements(),
        ]

    def _own_bucket_statements(self) -> list[iam.PolicyStatement]:
        """What workers may do in buckets of one's own: as the policies of the SAM stack for them."""
        inputs, outputs = self._input_buckets, self._output_buckets
        found = []
        if inputs:
            actions = ["s3:GetObject", "s3:GetObjectVersion"]
            found.append(allow("ReadOwnInputs", actions, [self.objects(name) for name in inputs]))
        if outputs:
            actions = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
            found.append(allow("WriteOwnResults", actions, [self.objects(name) for name in outputs]))
        if names := dict.fromkeys((*inputs, *outputs)):
            found.append(allow("TellOwnMissing", ["s3:ListBucket"], [self.bucket(name) for name in names]))
        return found

    def bucket(self, name: str) -> str:
        """The ARN of a bucket."""
        return f"arn:{Stack.of(self._scope).partition}:s3:::{name}"

    def objects(self, bucket: str, keys: str = "*") -> str:
        """The ARN of objects in a bucket."""
        return f"{self.bucket(bucket)}/{keys}"

    def endpoints(self, names: str) -> str:
        """The ARN of endpoints with these names, which are always lower-case in it."""
        return Stack.of(self._scope).format_arn(service="sagemaker", resource="endpoint", resource_name=names.lower())

    def announce(self, target: Mapping[str, str]) -> ssm.StringParameter:
        """Have jobs sent here, within a minute. Both GPU stacks write this parameter: only one can be deployed.

        A release is only made known: `comfy-serverless release promote` has jobs sent to it.
        """
        version = lock_version()
        built = {**target, **({"release_version": version} if version else {})}
        if self._release:
            return ssm.StringParameter(
                self._scope,
                "Release",
                parameter_name=f"/comfy-serverless/{self.name}/releases/{self._release}",
                description="Workers that jobs can be sent to: comfy-serverless release ls",
                string_value=Stack.of(self._scope).to_json_string({**built, "stack": Stack.of(self._scope).stack_name}),
            )
        return ssm.StringParameter(
            self._scope,
            "Dispatch",
            parameter_name=f"/comfy-serverless/{self.name}/dispatch",
            description="Where jobs run; without it, in the SAM stack's own function",
            string_value=Stack.of(self._scope).to_json_string(built),
        )

    def worker_exceptions(self) -> dict[str, str]:
        """Why the wildcards of `worker_statements` cannot be narrower."""
        reasons = {
            "InputBucket>/*": "A job may name any of its owner's inputs",
            "AssetsBucket>/blobs/*": "A job may name any of its owner's assets",
            "AssetsBucket>/requests/*": "The requests of all jobs are in it",
            "AssetsBucket>/engine/*": "One document for each kind of engine",
            "AssetsBucket>/pins/*": "One document for each address of a model",
            "AssetsBucket>/workflows/*": "The versions of all named workflows are in it",
            "OutputBucket>/*": "A result is a folder, and its name is the job's",
        }
        named = {f"<{objects}": reason for objects, reason in reasons.items()}
        named |= dict.fromkeys(
            (f"{name}/*" for name in (*self._input_buckets, *self._output_buckets)),
            "A bucket that the operator lists for jobs, as a whole",
        )
        return {
            f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:s3:::{objects}]": reason
            for objects, reason in named.items()
        }

    def _parameter(self, construct_id: str, name: str) -> str:
        return CfnParameter(
            self._scope,
            construct_id,
            type="AWS::SSM::Parameter::Value<String>",
            default=f"/comfy-serverless/{self.name}/{name}",
            description="Written by the SAM stack",
        ).value_as_string


def allow(
    sid: str, actions: list[str], resources: list[str], conditions: Mapping[str, object] | None = None
) -> iam.PolicyStatement:
    """A statement: what a role may do, and a name for it."""
    return iam.PolicyStatement(sid=sid, actions=actions, resources=resources, conditions=conditions or {})
