"""The image `worker-lite`: what it contains, what it must not, and that it works as Lambda runs it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.samples import SAMPLES, Sample, send
from local.aws.server import LocalAws
from tests.e2e.lambda_container import LambdaContainer, docker

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
#: All layers above Debian's. They now take 210 MB.
MAX_OWN_BYTES = 260_000_000


@pytest.fixture(scope="module")
def container(
    lite_image: str, container_environment: dict[str, str], named_files: dict[Path, str]
) -> Iterator[LambdaContainer]:
    with LambdaContainer(lite_image, container_environment, files=named_files) as running:
        yield running


def in_image(image: str, script: str) -> list[str]:
    """The lines that a shell script prints in the image, as root."""
    return docker("run", "--rm", "--entrypoint", "sh", image, "-c", script).splitlines()


def test_it_starts_the_handler_and_says_what_it_is(lite_image: str) -> None:
    configuration = json.loads(docker("inspect", "--format", "{{json .Config}}", lite_image))
    assert configuration["Entrypoint"] == ["/opt/worker/bin/python", "-m", "comfy_serverless.handlers.start"]
    assert configuration["Cmd"] == ["comfy_serverless.handlers.generate.handler"]
    assert configuration["Labels"]["org.opencontainers.image.title"] == "comfy-serverless"
    script = "import importlib.metadata; print(importlib.metadata.version('comfy-serverless'))"
    (version,) = in_image(lite_image, f'/opt/worker/bin/python -c "{script}"')
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_it_holds_no_tools_caches_tests_or_history(lite_image: str) -> None:
    assert in_image(lite_image, "command -v gcc cc git pip pip3 make curl || true") == []
    unwanted = "-name .git -o -name '.pytest_cache' -o -name '*.egg-info' -o -name torch -o -name comfyui"
    assert in_image(lite_image, f"find /opt /var/task {unwanted}") == []
    caches = "/root/.cache /tmp /home /var/lib/apt/lists /var/cache"
    assert in_image(lite_image, f"find {caches} -type f 2>/dev/null || true") == []


def test_it_holds_no_secrets(lite_image: str) -> None:
    environment = json.loads(docker("inspect", "--format", "{{json .Config.Env}}", lite_image))
    assert not [entry for entry in environment if "KEY" in entry or "TOKEN" in entry or "SECRET" in entry]
    assert in_image(lite_image, "find / -xdev \\( -name '.env*' -o -name credentials -o -name '*.key' \\)") == []


def test_all_python_is_compiled(lite_image: str) -> None:
    compiled = "sed -E 's,__pycache__/([^/]*)[.]cpython-311[.]pyc$,\\1.py,'"
    sources = "cd /opt/worker/lib && find . -name '*.py' | sort > /tmp/py"
    difference = f"find . -name '*.pyc' | {compiled} | sort | comm -23 /tmp/py -"
    assert in_image(lite_image, f"{sources} && {difference}") == []


def test_it_stays_small(lite_image: str, record_property: Callable[[str, object], None]) -> None:
    sizes = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", lite_image).splitlines()
    own_bytes = sum(map(int, sizes[:-1]))  # the last line is the base image
    record_property("own_bytes", own_bytes)
    assert own_bytes < MAX_OWN_BYTES


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.meaning)
def test_every_sample_event_succeeds_without_a_writable_root(
    sample: Sample, container: LambdaContainer, local_s3: LocalAws
) -> None:
    outcome = send(sample, container, local_s3.client())
    assert not outcome.problems, container.log()[-6000:]


def test_the_names_beside_a_workflow_of_its_folder_are_those_of_its_inputs(container: LambdaContainer) -> None:
    (made,) = container.invoke({"job_id": "banner", "workflow": "banner", "inputs": {"length": 32}})["outputs"]
    assert (made["width"], made["height"]) == (32, 16)
    refused = container.invoke({"job_id": "too-long", "workflow": "banner", "inputs": {"length": 1000}})
    assert refused["status"] == "failed"
    assert "inputs.length: " in refused["error"]["message"]
    assert "256" in refused["error"]["message"]


def test_nothing_even_tried_to_write_outside_tmp(container: LambdaContainer) -> None:
    container.invoke({"job_id": "one-more", "workflow": "text_to_image"})
    assert "Read-only file system" not in container.log()
    assert "Permission denied" not in container.log()
    assert container.shell("id -u") == "993"
    assert container.shell("touch /var/task/x 2>&1 || true").endswith("Read-only file system")
