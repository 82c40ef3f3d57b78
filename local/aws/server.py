"""S3, SQS and DynamoDB on this machine: moto's server as a child process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

import boto3
import requests
from botocore.config import Config
from botocore.session import Session as BotocoreSession

from local.aws.processes import (
    LOOPBACK,
    POLL_S,
    LocalProcess,
    NotListening,
    ProcessDied,
    clean_environment,
    free_port,
)
from local.aws.service_models import MODELS

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

REGION: Final = "eu-central-1"
#: The account that moto uses for every caller.
ACCOUNT: Final = "123456789012"
ADMINISTRATOR: Final = "local"
START_TIMEOUT_S = 60.0
START_ATTEMPTS = 5
#: Where the local AWS reports what roles have done.
USAGE_PATH: Final = "/local-api/usage"
#: Where it reports its newest requests.
CALLS_PATH: Final = "/local-api/calls"
#: Where it is told of the outputs of stacks.
STACKS_PATH: Final = "/local-api/stacks"


@dataclass(frozen=True, slots=True)
class Usage:
    """What roles of the template have done.

    Attributes:
        requests: how many each has made.
        denials: what was denied, each once.
    """

    requests: dict[str, int]
    denials: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsCall:
    """One request to the local AWS.

    Attributes:
        role: who has asked: a role of the template, or the administrator.
        operation: "dynamodb:UpdateItem"; of S3 the method, and whether it is of an object: "s3:PUT object".
        begun, ended: when it came and when it was answered, in seconds since 1970.
    """

    role: str
    operation: str
    begun: float
    ended: float


class LocalAws:
    """S3, SQS and DynamoDB of moto's server at a free port, from `with` to the end of the block. Nothing is kept.

    Args:
        host: the address to listen on. Containers reach it at "0.0.0.0" only, but so does the whole network.
    """

    def __init__(self, *, host: str = LOOPBACK) -> None:
        self._host = host
        self._process: LocalProcess | None = None
        self.port = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Its address, seen from this machine."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send any AWS library here, and nowhere else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            **credentials_of(ADMINISTRATOR),
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> Self:
        """Start the server and return when it serves requests. Does nothing while it is started.

        Raises:
            ProcessDied: it does not start; the message has what it printed.
            NotListening: it started, but does not serve requests.
        """
        if self._process is not None:
            return self
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            try:
                self._start_at(self.port)
            except ProcessDied as error:  # another program may have taken the port before it started
                self.stop()
                if attempt == START_ATTEMPTS or "in use" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                break
        return self

    def stop(self) -> None:
        """Stop the server. Safe to call twice."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def client(self) -> S3Client:
        """A new client of this server's S3; no proxy between."""
        return local_client("s3", self.endpoint_url)

    def sqs(self, *, role: str = ADMINISTRATOR) -> SQSClient:
        """The same of its SQS, for a role of the template."""
        return local_client("sqs", self.endpoint_url, role=role)

    def dynamodb(self) -> DynamoDBClient:
        """The same of its DynamoDB."""
        return local_client("dynamodb", self.endpoint_url)

    def usage(self) -> Usage:
        """What roles of the template have done here so far."""
        return Usage(**self._told(USAGE_PATH))

    def calls(self) -> list[AwsCall]:
        """The newest requests to it, in the order of their answers."""
        return [AwsCall(**call) for call in self._told(CALLS_PATH)]

    def describe(self, stack: str, outputs: Mapping[str, str]) -> None:
        """Let CloudFormation describe a stack, by its outputs."""
        with requests.Session() as session:
            session.trust_env = False  # proxies of the environment are not for loopback
            session.post(f"{self.endpoint_url}{STACKS_PATH}", json={stack: outputs}, timeout=5).raise_for_status()

    def bucket(self, name: str) -> str:
        """Create a bucket, unless it exists; returns its name."""
        create_bucket(self.client(), name)
        return name

    def _told(self, path: str) -> Any:  # noqa: ANN401  (JSON)
        with requests.Session() as session:
            session.trust_env = False  # proxies of the environment are not for loopback
            return session.get(f"{self.endpoint_url}{path}", timeout=5).json()

    def _start_at(self, port: int) -> None:
        command = [sys.executable, "-m", "local.aws.moto_server", "--host", self._host, "--port", str(port)]
        self._process = LocalProcess(command, clean_environment(), name="the local S3")
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self._process.check()
            if self._answers():
                return
            time.sleep(POLL_S)
        raise NotListening(f"the local S3 does not answer after {START_TIMEOUT_S:g} s:\n{self._process.log.tail()}")

    def _answers(self) -> bool:
        """Whether our server serves requests: it prints a line when the port is its own, and no other does."""
        if self._process is None or not any("Running on" in line for line in self._process.log.lines()):
            return False
        with requests.Session() as session:
            session.trust_env = False  # proxies of the environment are not for loopback
            try:
                return session.get(f"{self.endpoint_url}/moto-api/data.json", timeout=5).ok
            except requests.RequestException:
                return False


@overload
def local_client(service: Literal["s3"], endpoint_url: str, *, role: str = ...) -> S3Client: ...
@overload
def local_client(service: Literal["sqs"], endpoint_url: str, *, role: str = ...) -> SQSClient: ...
@overload
def local_client(service: Literal["dynamodb"], endpoint_url: str, *, role: str = ...) -> DynamoDBClient: ...
@overload
def local_client(
    service: Literal["ssm", "cloudwatch", "cloudformation", "stepfunctions"], endpoint_url: str, *, role: str = ...
) -> object: ...
def local_client(service: Any, endpoint_url: str, *, role: str = ADMINISTRATOR) -> Any:
    """A client for a local server: no proxy, nothing of the caller's profiles and settings, no secret."""
    nothing = (None, None, None, None)
    own = BotocoreSession(
        {
            "profile": nothing,
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    own.register_component("data_loader", MODELS)
    configuration: Any = Config(proxies={}, s3={"addressing_style": "path"})
    return boto3.Session(botocore_session=own).client(
        service,
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id=role,
        aws_secret_access_key="local",
        config=configuration,
    )


def credentials_of(role: str) -> dict[str, str]:
    """The variables that make requests those of a role of the template, or of the administrator."""
    return {"AWS_ACCESS_KEY_ID": role, "AWS_SECRET_ACCESS_KEY": "local", "AWS_SESSION_TOKEN": "local"}


def create_bucket(client: S3Client, name: str) -> None:
    """Create a bucket, unless it is there already."""
    try:
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    except (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        return
