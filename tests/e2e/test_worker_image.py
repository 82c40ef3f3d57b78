"""The image `worker`: ComfyUI itself, as Lambda runs it.

It takes minutes and gigabytes to build, and ComfyUI's code is not ours to keep, so it has a separate target,
`make e2e-comfyui`, for a machine with a checkout in comfyui/ (comfyui/README.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_serverless.environments.lock_file import release_version
from demo.samples import SAMPLES, Sample, read_result, send
from demo.seed import OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.e2e.lambda_container import LambdaContainer
from tests.start_limit import start_limit_s

ROOT = Path(__file__).parent.parent.parent
CHECKPOINT = "v1-5-pruned-emaonly.safetensors"
HAS_MODEL = (ROOT / "comfyui" / "models" / "checkpoints" / CHECKPOINT).is_file()
#: Events whose workflows need one.
NEED_A_MODEL = {"direct_text_to_image", "sqs_s3", "sqs_requests"}
MODEL_FREE = [sample for sample in SAMPLES if sample.event not in NEED_A_MODEL]

pytestmark = [pytest.mark.container, pytest.mark.comfyui, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def container(worker_image: str, comfyui_environment: dict[str, str], local_s3: LocalAws) -> Iterator[LambdaContainer]:
    # The same job ids ran in another image: their results would be the answer.
    s3 = local_s3.client()
    for entry in s3.list_objects_v2(Bucket=OUTPUT_BUCKET).get("Contents", ()):
        s3.delete_object(Bucket=OUTPUT_BUCKET, Key=entry["Key"])
    with LambdaContainer(worker_image, comfyui_environment, start_s=start_limit_s()) as running:
        yield running


@pytest.mark.parametrize("sample", SAMPLES if HAS_MODEL else MODEL_FREE, ids=lambda sample: sample.meaning)
def test_every_sample_event_succeeds_on_comfyui_without_a_writable_root(
    sample: Sample, container: LambdaContainer, local_s3: LocalAws
) -> None:
    outcome = send(sample, container, local_s3.client())
    assert not outcome.problems, container.log()[-6000:]


def test_it_was_comfyui_that_ran(container: LambdaContainer, local_s3: LocalAws) -> None:
    job = read_result(local_s3.client(), "sample-poster/result.json")
    assert job.engine == "ComfyUI 0.33.0"


def test_nothing_even_tried_to_write_outside_tmp(container: LambdaContainer) -> None:
    assert "Read-only file system" not in container.log()
    assert container.shell("id -u") == "993"
    assert {"input", "output", "temp", "user", "main.py"} <= set(container.shell("ls /tmp/comfyui").split())


def test_the_image_says_what_it_is_and_what_it_declares(container: LambdaContainer) -> None:
    release = json.loads(container.shell("cat /opt/release.json"))
    lock = (ROOT / "comfyui" / "comfy-build.lock").read_text(encoding="utf-8")
    assert (release["release_version"], release["comfyui"]) == (release_version(lock), "0.33.0")
    classes = json.loads(container.shell("cat /opt/declarations/classes.json"))
    declared = json.loads(container.shell("zcat /opt/declarations/object_info.json.gz"))
    assert classes.keys() == declared.keys()
    assert classes["KSampler"] == "ComfyUI"
