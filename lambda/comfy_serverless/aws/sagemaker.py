"""The clients of SageMaker's asynchronous endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3

from comfy_serverless.aws.sqs import CONFIG

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient


def endpoint_clients() -> tuple[SageMakerRuntimeClient, CloudWatchClient]:
    """The client that sends jobs to an endpoint, and the one that knows how many wait there."""
    return boto3.client("sagemaker-runtime", config=CONFIG), boto3.client("cloudwatch", config=CONFIG)
