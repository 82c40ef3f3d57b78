"""The image started with `serve`, as SageMaker starts it: the contract, SIGTERM, and a killed process."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from comfy_serverless.aws.s3 import S3Address
from demo.seed import INPUT_BUCKET
from local.aws.collector import Collector
from local.aws.server import LocalAws
from tests.e2e.lambda_container import docker
from tests.integration.sagemaker_contract import CONTRACT, Serving, noise
from tests.patience import wait_until
from tests.unit.input_world import data_url, picture
from tests.unit.worker.test_model_store import safetensors, sha256

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
def serving(image: str, environment: Mapping[str, str], *options: str) -> Iterator[ServingContainer]:
    name = f"comfy-serverless-serve-{uuid.uuid4().hex[:12]}"
    variables = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
    docker("run", "--detach", "--name", name, "--publish", "127.0.0.1::8080", *options, *variables, image, "serve")
    try:
        yield ServingContainer(name)
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def here(lite_image: str, container_environment: dict[str, str], traced: dict[str, str]) -> Iterator[ServingContainer]:
    with serving(lite_image, {**container_environment, **traced}) as started:
        started.wait_healthy()
        yield started


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_contract(here: ServingContainer, check: Callable[[Serving], None]) -> None:
    check(here)


def test_comfyui_runs_as_a_user_of_its_own(here: ServingContainer) -> None:
    find = "grep -lsza comfy_lite /proc/[0-9]*/cmdline | cut -d/ -f3"
    # Some have ended by the time that they are asked about: that of `grep` itself always.
    asked = f"for pid in $({find}); do stat -c %U /proc/$pid 2>/dev/null || true; done"
    owners = docker("exec", here.name, "sh", "-c", asked)
    assert set(owners.split()) - {"root"} == {"comfy-engine"}, owners
    assert docker("exec", here.name, "stat", "-c", "%U", "/tmp/comfy_lite-0") == "comfy-engine"


def test_inputs_and_models_that_we_bring_can_be_read_by_that_user(here: ServingContainer, local_s3: LocalAws) -> None:
    content = safetensors()
    local_s3.client().put_object(Bucket=INPUT_BUCKET, Key="models/own-user.safetensors", Body=content)
    workflow = noise(seed=4)
    workflow["4"]["inputs"]["ckpt_name"] = "own-user.safetensors"
    workflow["20"] = {"class_type": "LoadImage", "inputs": {"image": data_url(picture())}}
    workflow["21"] = {"class_type": "SaveImage", "inputs": {"images": ["20", 0], "filename_prefix": "same"}}
    model = {
        "url": f"s3://{INPUT_BUCKET}/models/own-user.safetensors",
        "folder": "checkpoints",
        "sha256": sha256(content),
    }
    answer = here.invoke({"workflow": workflow, "models": [model]})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["outputs"]) == 2


def test_a_picture_has_a_thumbnail_though_comfyui_is_another_user(
    here: ServingContainer, local_s3: LocalAws, collector: Collector
) -> None:
    name = f"seen-{uuid.uuid4().hex}"
    (output,) = here.invoke({"workflow": noise(seed=5)}, inference_id=name).json()["outputs"]
    place = S3Address.parse(output["thumb_uri"])
    content = local_s3.client().get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
    assert (content[:4], content[8:12]) == (b"RIFF", b"WEBP")

    def names() -> set[str]:
        traces = {span.trace_id for span in collector.spans if span.attributes.get("comfy.job_id") == name}
        return {span.name for span in collector.spans if span.trace_id in traces}

    assert wait_until(lambda: {"thumbnail", "execute"} <= names()), (names(), here.log()[-3000:])


def test_a_process_that_is_killed_is_replaced(here: ServingContainer) -> None:
    docker("exec", here.name, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children | cut -d' ' -f1)")
    here.wait_healthy()
    assert here.invoke({"workflow": noise(seed=3)}).status_code == 200, here.log()[-3000:]


def test_sigterm_ends_it_in_order(lite_image: str, container_environment: dict[str, str]) -> None:
    with serving(lite_image, container_environment) as started:
        started.wait_healthy()
        # What has not ended by then is killed, and has ended with 137.
        docker("stop", "--time", "30", started.name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", started.name) == "0", started.log()[-3000:]
