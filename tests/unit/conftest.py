"""S3 in this process, and a web server that does what it should not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from moto import mock_aws

from comfy_serverless.aws.s3 import s3_client
from local.aws.quick_moto import quick_moto
from tests.unit.fakes import IN, OUT, World
from tests.unit.hostile_server import HostileServer
from tests.unit.kept_children import end_kept_children, keeping_children
from tests.unit.quick_boto import quick_boto

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# On a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def _clients_are_made_quickly() -> Iterator[None]:
    with quick_boto():
        yield


@pytest.fixture(autouse=True, scope="session")
def _kept_children_end() -> Iterator[None]:
    yield
    end_kept_children()


@pytest.fixture(autouse=True)
def _decoders_are_kept() -> Iterator[None]:
    with keeping_children():
        yield


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Client]:
    """The worker's own client, on an S3 that has the buckets IN and OUT."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws(), quick_moto():
        client = s3_client()
        for bucket in (IN, OUT):
            client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client


@pytest.fixture
def world(s3: S3Client) -> Iterator[Callable[..., World]]:
    """`world(engine=FakeEngine(...), default_deadline_s=…)` makes a worker; its threads end with the test."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(s3, **options))
        return worlds[-1]

    yield make
    for made_world in worlds:
        made_world.worker.close()


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server
