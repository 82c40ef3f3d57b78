"""Fixtures of the end-to-end tests: a container engine, the image, and an S3 that containers can reach."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.sam import SamFailed, check_engine, host_address, worker_variables
from demo.seed import seed
from local.aws.collector import Collector
from local.aws.server import LocalAws
from local.aws.stack import LocalStack
from tests.e2e.lambda_container import build_image
from tests.start_limit import patient

BANNER = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "banner"}},
}
BANNER_CHOICES = """
description: A plain banner
inputs:
  length: {target: 1.width, minimum: 16, maximum: 256}
outputs:
  banner: "2"
"""


@pytest.fixture(scope="session", autouse=True)
def _container_engine() -> None:
    """Skip the tests without a container engine; fail where their result counts."""
    try:
        check_engine()
    except SamFailed as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lite_image() -> str:
    """The image without torch, built from the working tree."""
    return build_image("worker-lite")


@pytest.fixture(scope="session")
def api_image() -> str:
    """The image of the API's functions, built from the working tree."""
    return build_image("api")


@pytest.fixture(scope="session")
def mcp_image() -> str:
    """The image of the function behind /mcp, built from the working tree."""
    return build_image("mcp")


@pytest.fixture(scope="session")
def named_files(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """The workflow `banner`, and the names of its inputs, as files beside those of an image."""
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "banner.json").write_text(json.dumps(BANNER), encoding="utf-8")
    (folder / "banner.yaml").write_text(BANNER_CHOICES, encoding="utf-8")
    return {path: f"/opt/workflows/{path.name}" for path in folder.iterdir()}


@pytest.fixture(scope="session")
def worker_image() -> str:
    """The image with the ComfyUI in comfyui/. TORCH and TORCH_INDEX_URL are arguments of its build."""
    arguments = ((name, os.environ.get(name)) for name in ("TORCH", "TORCH_INDEX_URL"))
    return build_image("worker", *(f"--build-arg={name}={value}" for name, value in arguments if value))


@pytest.fixture(scope="session")
def local_s3() -> Iterator[LocalAws]:
    """A local S3 with the objects of the sample events, for containers too."""
    with LocalAws(host="0.0.0.0") as s3:
        seed(s3.client())
        yield s3


@pytest.fixture(scope="session")
def container_environment(lite_image: str, local_s3: LocalAws) -> dict[str, str]:
    """The environment of a worker in a container that uses the local S3."""
    host = host_address(local_s3.port, image=lite_image)
    return {**local_s3.environment, **worker_variables(host, local_s3.port)}


@pytest.fixture(scope="session")
def comfyui_environment(container_environment: dict[str, str]) -> dict[str, str]:
    """The same for ComfyUI itself, which may take long to start (E2E_START_S)."""
    return patient(container_environment)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A collector of traces that containers can reach."""
    with Collector(host="0.0.0.0") as started:
        yield started


@pytest.fixture(scope="session")
def traced(collector: Collector, lite_image: str) -> dict[str, str]:
    """The variable that has a container send its traces there."""
    host = host_address(collector.port, image=lite_image)
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:{collector.port}"}


@pytest.fixture(scope="session")
def local_stack(local_s3: LocalAws) -> LocalStack:
    """The template's table, queues and buckets beside the sample events' objects."""
    return LocalStack.create(local_s3)


@pytest.fixture(scope="session")
def stack_environment(api_image: str, local_stack: LocalStack) -> dict[str, str]:
    """The environment of the API's functions, and of its workers, in containers."""
    port = local_stack.aws.port
    here, there = local_stack.aws.endpoint_url, f"http://{host_address(port, image=api_image)}:{port}"
    environment = {name: value.replace(here, there) for name, value in local_stack.environment.items()}
    return {**environment, "AWS_ENDPOINT_URL": there, "WORKFLOWS_DIR": "/opt/workflows"}
