"""A deployed stack as the commands see it: its outputs, its stores and clients, and AWS's refusals explained."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comfy_serverless.errors import ComfyError, Forbidden, InvalidRequest, NotFound, Unauthorized, UpstreamError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

    from comfy_serverless.aws.dynamodb import Table
    from comfy_serverless.batches.store import BatchStore
    from comfy_serverless.table.api_keys import ApiKeyStore

_UNKNOWN_CREDENTIALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"}
    | {"InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature"}
)

_SIGN_IN = "Sign in with `aws sso login` or `aws configure`, or set AWS_PROFILE."


def outputs_of(stack: str, *names: str) -> dict[str, str]:
    """These outputs of a deployed stack.

    Raises:
        NotFound: it does not have them.
    """
    import boto3

    outputs = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    found = {str(output.get("OutputKey")): str(output.get("OutputValue")) for output in outputs}
    for name in names:
        if name not in found:
            raise NotFound(
                f"The stack {stack!r} has no output {name}: it is another stack, or was deployed from an older "
                "version. Deploy it again with `sam build && sam deploy`, or give --table NAME."
            )
    return {name: found[name] for name in names}


def _table(name: str) -> Table:
    """The table of this name."""
    from comfy_serverless.aws.dynamodb import Table, dynamodb_client

    return Table(dynamodb_client(), name)


def key_store(table_name: str) -> ApiKeyStore:
    """The API keys in a table."""
    from comfy_serverless.table.api_keys import ApiKeyStore

    return ApiKeyStore(_table(table_name))


def batch_store(table_name: str) -> BatchStore:
    """The batches in a table."""
    from comfy_serverless.batches.store import BatchStore

    return BatchStore(_table(table_name))


def s3() -> S3Client:
    """The client of S3; it brings the libraries for AWS along, which take a while to load."""
    from comfy_serverless.aws.s3 import s3_client

    return s3_client()


def sqs() -> SQSClient:
    """The client of SQS."""
    from comfy_serverless.aws.sqs import sqs_client

    return sqs_client()


@contextmanager
def explained(options: argparse.Namespace) -> Iterator[None]:
    """Turn what AWS refuses into what can be done about it."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refusal(error, options) from error
    except BotoCoreError as error:
        raise _trouble(error) from error


def _refusal(error: ClientError, options: argparse.Namespace) -> ComfyError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    if code in _UNKNOWN_CREDENTIALS:
        return Unauthorized(f"AWS does not accept the credentials ({code}). {_SIGN_IN}")
    if code.startswith("AccessDenied"):
        return Forbidden(
            f"These credentials may not do that: {message} Needed are dynamodb:GetItem, Query, PutItem and UpdateItem "
            "on the table, and cloudformation:DescribeStacks for --stack."
        )
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
    match type(error).__name__:
        case "NoRegionError":
            return InvalidRequest("In which region? Set AWS_REGION, e.g. AWS_REGION=eu-central-1.")
        case "ProfileNotFound":
            return Unauthorized(f"{error}. `aws configure list-profiles` shows those there are.")
        case name if "Credential" in name or "Token" in name or "SSO" in name:
            return Unauthorized(f"There are no usable AWS credentials ({error}). {_SIGN_IN}")
    return UpstreamError(f"AWS could not be asked: {error}. Is this machine online, and AWS_REGION right?")
