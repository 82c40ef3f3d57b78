"""A deployed stack as the commands see it: where things are, clients and stores, and AWS's refusals explained.

The libraries for AWS are loaded only when a command runs.
"""

from __future__ import annotations

import argparse
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_serverless.errors import (
    ComfyError,
    Forbidden,
    InvalidRequest,
    InvalidSetting,
    NotFound,
    Unauthorized,
    UpstreamError,
)
from comfy_serverless.proxies import proxy_for
from comfy_serverless.redaction import redacted

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.aws.sqs import JobQueue
    from comfy_serverless.batches.batch import Batch
    from comfy_serverless.batches.orders import Order
    from comfy_serverless.batches.store import BatchStore
    from comfy_serverless.cli.named.of_releases import OfReleases
    from comfy_serverless.cli.named.operator import OfOperator
    from comfy_serverless.cli.release_check import Check
    from comfy_serverless.cli.releases import Releases
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.table.live import Release
    from comfy_serverless.table.usage import UsageStore
    from comfy_serverless.worker.inputs.plan import Wanted

#: The environment variable that names the stack.
STACK_VARIABLE = "COMFY_STACK"
#: The one that names its table, where there is no stack to ask.
TABLE_VARIABLE = "JOBS_TABLE"
#: The output of the stack that names the table: `Outputs` in template.yaml.
TABLE_OUTPUT = "JobsTableName"
#: The parameter of the stack that names the image of its own workers.
IMAGE_PARAMETER = "ImageTarget"

_UNKNOWN_CREDENTIALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
    | {"InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature"}
)

_NEEDS_OF_STORES = (
    "dynamodb:GetItem, Query, PutItem and UpdateItem on the table, and cloudformation:DescribeStacks for --stack"
)

#: Where any service of AWS is, as far as proxies are concerned.
_AWS = "https://sts.amazonaws.com"
_LIBRARIES = ("boto3", "botocore")
_SIGN_IN = "Sign in with `aws sso login` or `aws configure`, or set AWS_PROFILE."


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed stack, as the commands for batches see it."""

    batches: BatchStore
    s3: S3Client
    input_bucket: str
    manifest_queue: JobQueue

    @classmethod
    def of(cls, name: str) -> Stack:
        """Find a stack by its name."""
        from comfy_serverless.aws.dynamodb import Table, dynamodb_client
        from comfy_serverless.aws.s3 import s3_client
        from comfy_serverless.aws.sqs import JobQueue, sqs_client
        from comfy_serverless.batches.store import BatchStore

        outputs = these_outputs(name, TABLE_OUTPUT, "InputBucketName", "ManifestQueueUrl")
        batches = BatchStore(Table(dynamodb_client(), outputs[TABLE_OUTPUT]))
        manifest_queue = JobQueue(sqs_client(), outputs["ManifestQueueUrl"])
        return cls(batches, s3_client(), outputs["InputBucketName"], manifest_queue)

    def send(self, order: Order) -> None:
        """Send an order to `ingest`."""
        self.manifest_queue.send(order.to_text(), tenant=order.batch_id)

    def newest(self, name: str) -> Batch | None:
        """The newest batch of a name."""
        return self.batches.newest(f"s3://{self.input_bucket}/{manifest_key(name)}")

    def find(self, name: str) -> Batch:
        """The newest batch of a name that was dropped, or any by its id. Raises NotFound if there is none (yet)."""
        batch = self.newest(name) or self.batches.get(name)
        if batch is None:
            raise NotFound(
                f"there is no batch {name!r}: it takes a moment from the drop until it is known. "
                "`comfy-serverless batch ls` lists them."
            )
        return batch


def add_stack_option(
    parser: argparse.ArgumentParser, *, beside: argparse._MutuallyExclusiveGroup | None = None
) -> None:
    """Add `--stack` to a command: all commands find their stack in the same way.

    Args:
        beside: the group of options that exclude each other, if it has to be in one.
    """
    (beside or parser).add_argument(
        "--stack",
        metavar="NAME",
        default=os.environ.get(STACK_VARIABLE) or None,
        help=f"the deployed stack (default: the environment variable {STACK_VARIABLE})",
    )
    parser.set_defaults(wrong_usage=parser.error)


def chosen_stack(options: argparse.Namespace) -> str:
    """The stack that `--stack` or COMFY_STACK names; without one the program ends as after any wrong usage."""
    if not options.stack:
        options.wrong_usage(f"which stack? Give --stack NAME (the name it was deployed with), or set {STACK_VARIABLE}")
    return str(options.stack)


def manifest_key(name: str) -> str:
    """Where the manifest of a batch is dropped."""
    return f"batches/{name}.jsonl"


def key_store(options: argparse.Namespace) -> ApiKeyStore:
    """The keys of an API: of the table that `--table` names, else of the stack, else of the table in JOBS_TABLE."""
    from comfy_serverless.aws.dynamodb import Table, dynamodb_client
    from comfy_serverless.table.api_keys import ApiKeyStore

    name = options.table
    if not name and (options.stack or not os.environ.get(TABLE_VARIABLE)):
        name = these_outputs(chosen_stack(options), TABLE_OUTPUT)[TABLE_OUTPUT]
    return ApiKeyStore(Table(dynamodb_client(), name or os.environ[TABLE_VARIABLE]))


def counters_of(stack: str) -> tuple[ApiKeyStore, UsageStore]:
    """The keys of a deployed stack, and the counters of what its jobs have cost."""
    from comfy_serverless.aws.dynamodb import Table, dynamodb_client
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.table.usage import UsageStore

    table = Table(dynamodb_client(), these_outputs(stack, TABLE_OUTPUT)[TABLE_OUTPUT])
    return ApiKeyStore(table), UsageStore(table)


def clients_of_logs() -> tuple[BaseClient, BaseClient]:
    """The clients that find the logs of a stack, and that read them."""
    import boto3

    return client_of_stacks(), boto3.client("logs")


def client_of_stacks() -> CloudFormationClient:
    """The client that describes stacks, and deletes them."""
    import boto3

    return boto3.client("cloudformation")


def releases_of(stack: str) -> tuple[Releases, Mapping[str, str]]:
    """The releases of a deployed stack, and the outputs of it that a check needs."""
    import boto3

    from comfy_serverless.aws.dynamodb import Table, dynamodb_client
    from comfy_serverless.aws.sagemaker import endpoint_clients
    from comfy_serverless.aws.sqs import CONFIG, sqs_client
    from comfy_serverless.cli.releases import Releases
    from comfy_serverless.table.dispatch import Endpoint

    # Functions that do not look for a live release yet are of stacks without the output BatchQueueUrl.
    outputs = these_outputs(stack, "BatchQueueUrl", TABLE_OUTPUT, "JobQueueUrl", "AssetsBucketName", "OutputBucketName")

    def endpoint(name: str) -> Endpoint:
        return Endpoint(*endpoint_clients(), name)

    ssm, table = boto3.client("ssm", config=CONFIG), Table(dynamodb_client(), outputs[TABLE_OUTPUT])
    own = outputs["JobQueueUrl"], outputs["BatchQueueUrl"]
    return Releases(stack, *own, ssm, sqs_client(), table, endpoint), outputs


def check_on(releases: Releases, release: Release, outputs: Mapping[str, str], *, timeout_s: float) -> Check:
    """What runs a job on the workers of one release alone."""
    from comfy_serverless.aws.s3 import s3_client
    from comfy_serverless.cli.release_check import Check
    from comfy_serverless.table.jobs import JobStore

    return Check(
        jobs=JobStore(releases.table, lease_s=30, max_runs=3),
        s3=s3_client(),
        assets_bucket=outputs["AssetsBucketName"],
        output_bucket=outputs["OutputBucketName"],
        workers=releases.workers(release),
        release=release.name,
        timeout_s=timeout_s,
    )


def operators_workflows(stack: str) -> OfOperator:
    """The operator's named workflows of a deployed stack."""
    from comfy_serverless.aws.s3 import s3_client
    from comfy_serverless.cli.named.operator import OfOperator
    from comfy_serverless.workflows.store import WorkflowStore

    releases, outputs = releases_of(stack)
    bucket, live = outputs["AssetsBucketName"], workflows_beside(releases, outputs)
    store = WorkflowStore(releases.table, s3_client(), bucket)
    if (declared := _declared_at_url()) is not None:
        return OfOperator(store, declared)
    deployed = live.deployed(releases.live().now)
    return OfOperator(
        store,
        lambda: None if deployed is None else deployed.object_info,
        release="" if deployed is None else deployed.release,
        deployed=lambda: deployed,
    )


def workflows_beside(releases: Releases, outputs: Mapping[str, str]) -> OfReleases:
    """Everybody's named workflows of a deployed stack, beside its releases."""
    from comfy_serverless.aws.s3 import s3_client
    from comfy_serverless.cli.named.of_releases import OfReleases
    from comfy_serverless.settings import Settings
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.workflows.reader import WorkflowReader

    described = _described(releases.stack)
    parameters = {one.get("ParameterKey"): one.get("ParameterValue") for one in described.get("Parameters", [])}
    s3, bucket = s3_client(), outputs["AssetsBucketName"]
    return OfReleases(
        releases,
        ApiKeyStore(releases.table),
        WorkflowReader(releases.table, s3, bucket),
        s3,
        bucket,
        str(parameters.get(IMAGE_PARAMETER) or Settings().worker_image),  # `make dev` has no parameters
    )


def _declared_at_url() -> Callable[[], Mapping[str, Any]] | None:
    """What the ComfyUI of COMFYUI_URL declares, if there is one."""
    from comfy_serverless.settings import Settings

    settings = Settings.from_environment()
    if not settings.comfyui_url:
        return None
    from comfy_serverless.connector.connector import ComfyConnector

    return ComfyConnector(settings=settings).object_info_now


def client_of_models() -> S3Client:
    """The client that sees what a stack's store of models has."""
    from comfy_serverless.aws.s3 import s3_client

    return s3_client()


def client_for(wanted: Sequence[Wanted]) -> S3Client | None:
    """The client that reads inputs in S3; None if there are none, since only they need AWS's libraries."""
    origins = [origin for entry in wanted for origin in (entry.asset.origin, entry.asset.mask)]
    if not any(isinstance(origin, str) and origin.lower().startswith("s3:") for origin in origins):
        return None
    from comfy_serverless.aws.s3 import s3_client

    with explained(argparse.Namespace(stack=None)):
        return s3_client()


@contextmanager
def explained(options: argparse.Namespace, *, needs: str = _NEEDS_OF_STORES) -> Iterator[None]:
    """Turn a refusal of AWS into an error that says what to do: `needs` are the rights that a command asks for."""
    from botocore.exceptions import BotoCoreError, ClientError

    if region := os.environ.get("AWS_REGION"):  # which the AWS CLI reads, and botocore does not
        os.environ["AWS_DEFAULT_REGION"] = region
    try:
        yield
    except ClientError as error:
        raise _refusal(error, options, needs) from error
    except BotoCoreError as error:
        raise _trouble(error) from error
    except ValueError as error:
        if not _is_of_libraries(error):
            raise
        raise _unusable(error, os.environ) from error


def outputs_of(stack: str) -> dict[str, str]:
    """All outputs of a deployed stack."""
    outputs = _described(stack).get("Outputs", [])
    return {str(output.get("OutputKey")): str(output.get("OutputValue")) for output in outputs}


def _described(stack: str) -> StackTypeDef:
    """What CloudFormation says of a deployed stack."""
    return client_of_stacks().describe_stacks(StackName=stack)["Stacks"][0]


def these_outputs(stack: str, *names: str) -> dict[str, str]:
    """These outputs of a deployed stack."""
    found = outputs_of(stack)
    for name in names:
        if name not in found:
            raise NotFound(
                f"The stack {stack!r} has no output {name}: it is another stack, or was deployed from an older "
                "version. Deploy it again with `make deploy`, or give --table NAME."
            )
    return {name: found[name] for name in names}


def _refusal(error: ClientError, options: argparse.Namespace, needs: str) -> ComfyError:
    refused = error.response.get("Error", {})
    code, message = str(refused.get("Code", "")), redacted(refused.get("Message", ""))
    if code in _UNKNOWN_CREDENTIALS:
        return Unauthorized(f"AWS does not accept the credentials ({code}). {_SIGN_IN}")
    if code.startswith("AccessDenied"):
        return Forbidden(f"These credentials may not do that: {message} Needed are {needs}.")
    if code == "ValidationError" and options.stack:
        return NotFound(
            f"There is no stack {options.stack!r} in this account and region ({message}). `aws cloudformation "
            "list-stacks` shows those there are; AWS_REGION and AWS_PROFILE say where to look."
        )
    if code == "ResourceNotFoundException":
        return NotFound(
            "There is no such table in this account and region. `--stack NAME` finds the table of a deployed stack; "
            "AWS_REGION and AWS_PROFILE say where to look."
        )
    return UpstreamError(f"AWS has refused that ({code}): {message}")


def _trouble(error: BotoCoreError) -> ComfyError:
    text = redacted(error)
    match type(error).__name__:
        case "NoRegionError":
            return InvalidRequest("In which region? Set AWS_REGION, e.g. AWS_REGION=eu-central-1.")
        case "ProfileNotFound":
            return Unauthorized(f"{text}. `aws configure list-profiles` shows those there are.")
        case name if "Credential" in name or "Token" in name or "SSO" in name:
            return Unauthorized(f"There are no usable AWS credentials ({text}). {_SIGN_IN}")
        case name if name.startswith(("Invalid", "UnknownRegion")):
            return _unusable(error, os.environ)
        case "ProxyConnectionError" | "HTTPClientError":
            return _trouble_on_the_way(error)
    return UpstreamError(f"AWS could not be asked: {text}. Is this machine online, and AWS_REGION right?")


def _trouble_on_the_way(error: BotoCoreError) -> ComfyError:
    """What kept a request from AWS: the proxy, if there is one, or the setting that names it."""
    try:
        proxy = proxy_for(_AWS)
    except InvalidSetting as wrong:
        return wrong
    through = f" through the proxy {proxy}" if proxy is not None else ""
    return UpstreamError(f"AWS could not be asked{through}: {redacted(error)}. Is this machine online?")


def _is_of_libraries(error: Exception) -> bool:
    """Whether an exception comes out of AWS's libraries, which check none of their settings before they use them."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(str(name).partition(".")[0] in _LIBRARIES for name in frames)


def _unusable(error: Exception, environment: Mapping[str, str]) -> ComfyError:
    """A setting of AWS's libraries that cannot be used; the variable is named whose value is in what they say."""
    text = redacted(error)
    named = [name for name, value in sorted(environment.items()) if _is_in(text, name, value)]
    if not named:
        try:
            proxy_for(_AWS, environment)
        except InvalidSetting as wrong:
            return wrong
        named = sorted(name for name, value in environment.items() if name.startswith("AWS_ENDPOINT_URL") and value)
    where = " and ".join(named) or "a setting in ~/.aws/config"
    return InvalidSetting(f"{where} cannot be used: {text}")


def _is_in(text: str, name: str, value: str) -> bool:
    """Whether a redacted text about a setting of AWS has the value of this variable in it."""
    if not value or not name.startswith("AWS_") or any(word in name for word in ("KEY", "SECRET", "TOKEN")):
        return False
    return re.search(rf"(?<!\w){re.escape(redacted(value))}(?!\w)", text) is not None
