"""The function `ingest` in the image `api`: it finds workflows in files, without Pillow or a writable root."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.stored_request import StoredRequest
from local.aws.stack import LocalStack
from local.aws.template import name_of
from tests.e2e.lambda_container import LambdaContainer
from tests.unit.event_samples import s3_event

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

SAVED = Path(__file__).parents[1] / "unit" / "data" / "embedded"
#: The reader is another for each: see `comfy_serverless.sandbox.embedded`.
FILES = ("SaveImage.png", "SaveAnimatedWEBP.webp", "SaveVideo.mp4", "SaveVideo.webm", "SaveAudio.flac", "SaveGLB.glb")


@pytest.fixture(scope="module")
def ingest(api_image: str, stack_environment: dict[str, str]) -> Iterator[LambdaContainer]:
    environment = {**stack_environment, "POWERTOOLS_SERVICE_NAME": "ingest"}
    with LambdaContainer(api_image, environment, command="comfy_serverless.handlers.ingest.handler") as running:
        yield running


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_comfyui_saved_becomes_a_job(name: str, ingest: LambdaContainer, local_stack: LocalStack) -> None:
    s3, sqs, bucket = local_stack.aws.client(), local_stack.aws.sqs(), name_of("InputBucket")
    key = f"jobs/{uuid.uuid4().hex}-{name}"
    dropped = s3.put_object(Bucket=bucket, Key=key, Body=(SAVED / name).read_bytes())
    assert ingest.invoke(s3_event(key, bucket=bucket, eTag=dropped["ETag"].strip('"'))) == {"drops": 1}, ingest.log()

    queue = local_stack.queues["JobQueue"]
    (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    request = StoredRequest.read(s3, S3Address.parse(json.loads(message["Body"])["request"])).request
    assert request.metadata["source"] == f"s3://{bucket}/{key}"
    assert isinstance(request.workflow, dict)
    assert all("class_type" in node for node in request.workflow.values())


def test_a_workflow_of_the_editor_is_converted_without_any_library(ingest: LambdaContainer) -> None:
    code = (
        "import importlib.util as u; from comfy_serverless.graph.convert import to_prompt; "
        "found = [name for name in ('PIL', 'numpy', 'torch') if u.find_spec(name)]; "
        "print(found, to_prompt({'nodes': [], 'links': []}, {}))"
    )
    assert ingest.shell(f'/opt/worker/bin/python -c "{code}"') == "[] {}"
