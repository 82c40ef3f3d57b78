"""The image started with `serve`, as SageMaker starts it: the contract, SIGTERM, and a killed process."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from lambda_container import docker

from comfy_serverless.handlers.shutdown import SHUTDOWN_S
from tests.integration.sagemaker_contract import CONTRACT, Serving, noise

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]


class ServingContainer(Serving):
    """A container of the image, with the command `serve`."""

    def __init__(self, name: str) -> None:
        super().__init__("http://" + docker("port", name, "8080/tcp").splitlines()[0])
        self.name = name

    def log(self) -> str:
        """Everything it printed."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr


@contextmanager
def serving(image: str, environment: Mapping[str, str]) -> Iterator[ServingContainer]:
    name = f"comfy-serverless-serve-{uuid.uuid4().hex[:12]}"
    variables = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
    docker("run", "--detach", "--name", name, "--publish", "127.0.0.1::8080", *variables, image, "serve")
    try:
        yield ServingContainer(name)
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def here(lite_image: str, container_environment: dict[str, str]) -> Iterator[ServingContainer]:
    with serving(lite_image, container_environment) as started:
        started.wait_healthy()
        yield started


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_contract(here: ServingContainer, check: Callable[[Serving], None]) -> None:
    check(here)


def test_a_process_that_is_killed_is_replaced(here: ServingContainer) -> None:
    docker("exec", here.name, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children | cut -d' ' -f1)")
    here.wait_healthy()
    assert here.invoke({"workflow": noise(seed=3)}).status_code == 200, here.log()[-3000:]


def test_sigterm_ends_it_in_order(lite_image: str, container_environment: dict[str, str]) -> None:
    with serving(lite_image, container_environment) as started:
        started.wait_healthy()
        begun = time.monotonic()
        docker("stop", "--time", "30", started.name)
        assert time.monotonic() - begun < SHUTDOWN_S
        assert docker("inspect", "--format", "{{.State.ExitCode}}", started.name) == "0", started.log()[-3000:]
