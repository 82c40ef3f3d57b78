"""An S3 (moto) and a fetcher between them and an input folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from comfy_serverless.fetch.web import Network
from comfy_serverless.settings import Settings
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from local.aws.quick_moto import quick_moto
from tests.unit.input_world import InputFolder, Prepare

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Client]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws(), quick_moto():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="inbox")
        yield client


@pytest.fixture
def folder() -> InputFolder:
    return InputFolder()


@pytest.fixture
def prepare(s3: S3Client, folder: InputFolder) -> Prepare:
    def prepare(
        graph: dict[str, Any],
        inputs: dict[str, str | list[str]] | None = None,
        *,
        within_s: float = 20,
        **settings: Any,
    ) -> dict[str, Any]:
        values = Settings(**{"allow_private_addresses": True, "input_timeout_s": 15.0, **settings})
        is_open = values.allow_private_addresses  # then the servers of the tests, on this machine, may be asked
        network = Network(allow_private=is_open, allow_own_host=is_open)
        fetcher = InputFetcher(settings=values, s3=s3, connector=folder, network=network)
        return fetcher.prepare(graph, inputs or {}, job_id="job", owner="", deadline=time.monotonic() + within_s).graph

    return prepare
