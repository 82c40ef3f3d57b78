"""An asynchronous endpoint in front of the image: containers deliver invocations, even if one is killed."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore.config import Config

from demo.seed import OUTPUT_BUCKET
from local.aws.processes import LocalProcess, clean_environment
from local.aws.server import REGION, LocalAws
from local.sagemaker.async_endpoint import AsyncEndpoint
from tests.e2e.lambda_container import docker
from tests.integration.sagemaker_contract import noise

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

PATIENCE_S = 90.0


class Containers:
    """Starts containers of the image as SageMaker does, each at the given port."""

    def __init__(self, image: str, environment: Mapping[str, str]) -> None:
        self._image, self._environment = image, environment
        self.names: list[str] = []

    def start(self, port: int) -> LocalProcess:
        """Start a container. The client stays with it: it passes signals on, and ends with the container."""
        name = f"comfy-serverless-endpoint-{uuid.uuid4().hex[:12]}"
        self.names.append(name)
        settings = {**self._environment, "SAGEMAKER_BIND_TO_PORT": str(port)}
        variables = [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
        command = ["docker", "run", "--name", name, "--publish", f"127.0.0.1:{port}:{port}", *variables]
        engine = {key: value for key, value in os.environ.items() if key.startswith("DOCKER_")}
        return LocalProcess([*command, self._image, "serve"], {**clean_environment(), **engine}, name=name)

    def kill(self) -> None:
        """End the newest container as if its machine had lost power."""
        docker("kill", "--signal", "KILL", self.names[-1])

    def remove(self) -> None:
        """Remove all containers."""
        subprocess.run(["docker", "rm", "--force", *self.names], capture_output=True, timeout=60, check=False)


class World:
    """The endpoint, its containers, and its notifications."""

    def __init__(self, s3: LocalAws, containers: Containers) -> None:
        self.s3, self.containers = s3, containers
        self.notified: list[dict[str, Any]] = []
        self.endpoint = AsyncEndpoint(
            "gpu", s3=s3.client(), bucket=OUTPUT_BUCKET, start=containers.start, notify=self.notified.append
        )
        self._client: Any = boto3.Session("local", "local", region_name=REGION).client(
            "sagemaker-runtime", endpoint_url=self.endpoint.url, config=Config(proxies={})
        )

    def invoke(self, name: str, workflow: Any) -> str:
        """Invoke the endpoint. Returns where the output will be."""
        sent = self._client.invoke_endpoint_async(
            EndpointName="gpu",
            ContentType="application/json",
            Body=json.dumps({"workflow": workflow}).encode(),
            InferenceId=name,
            S3OutputPathExtension=name,
            Filename="answer.json",
        )
        return str(sent["OutputLocation"])

    def end_of(self, name: str) -> str:
        """How an invocation ended, according to SageMaker."""
        self.wait_until(lambda: any(message["inferenceId"] == name for message in self.notified))
        (message,) = [message for message in self.notified if message["inferenceId"] == name]
        return str(message["invocationStatus"])

    def read(self, address: str) -> bytes:
        bucket, _, key = address.removeprefix("s3://").partition("/")
        return self.s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()

    @staticmethod
    def wait_until(is_so: Any) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def world(lite_image: str, local_s3: LocalAws, container_environment: dict[str, str]) -> Iterator[World]:
    containers = Containers(lite_image, container_environment)
    here = World(local_s3, containers)
    try:
        with here.endpoint:
            yield here
    finally:
        containers.remove()


def test_an_invocation_starts_a_container_and_is_delivered(world: World) -> None:
    assert world.endpoint.instances == []
    location = world.invoke("delivered", noise())
    assert world.end_of("delivered") == "Completed"
    job = json.loads(world.read(location))
    assert (job["id"], job["status"]) == ("delivered", "succeeded")
    (output,) = job["outputs"]
    assert world.read(output["s3_uri"]).startswith(b"\x89PNG")
    assert len(world.containers.names) == 1


def test_an_invocation_whose_container_is_killed_is_delivered_by_another(world: World) -> None:
    location = world.invoke("killed", noise(seed=2, steps=300))
    world.wait_until(lambda: world.endpoint.backlog == 1 and world.endpoint.waiting == 0)
    time.sleep(1.0)  # it executes
    started = len(world.containers.names)
    world.containers.kill()
    assert world.end_of("killed") == "Completed"
    job = json.loads(world.read(location))
    assert (job["status"], len(job["outputs"])) == ("succeeded", 1)
    assert len(world.containers.names) == started + 1
