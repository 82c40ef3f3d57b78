"""The sample events of `events/`, what each is expected to bring about, and how one is sent."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from comfy_serverless.jobs.document import Job, JobStatus
from demo.seed import EVENTS, OUTPUT_BUCKET
from local.aws.lambda_emulator import LambdaFailed
from local.aws.processes import free_port

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RESULT = "/result.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """An event, and what it should lead to.

    Attributes:
        event: the file in events/, without its suffix.
        meaning: what it stands for, for people.
        jobs: how many new results it leaves in S3.
        failures: jobs that must fail, and with which code.
    """

    event: str
    meaning: str
    jobs: int
    failures: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Any:  # noqa: ANN401  (any JSON value)
        """The event itself."""
        return json.loads((EVENTS / f"{self.event}.json").read_text(encoding="utf-8"))


SAMPLES = (
    Sample("direct", "a direct payload, to a cold worker", jobs=1),
    Sample("direct", "the same job id again, answered from S3", jobs=0),
    Sample("direct_text_to_image", "a direct payload, text to image", jobs=1),
    Sample("direct_editor", "a direct payload, with what the editor saved", jobs=1),
    Sample("s3_test", "the test event of a new S3 notification", jobs=0),
    Sample("s3", "a request dropped into S3", jobs=1),
    Sample("s3_image", "a picture dropped into S3", jobs=1),
    Sample("sqs_s3", "two drops through SQS", jobs=2),
    Sample(
        "sqs_requests",
        "three requests through SQS, one of them wrong",
        jobs=3,
        failures={"sample-typing-error": "invalid_workflow"},
    ),
    Sample("http", "POST /generate", jobs=1),
)


class DownloadDiffers(RuntimeError):
    """A file in S3 is not what its result says it is."""


class Worker(Protocol):
    """A Lambda function that can be invoked: under the emulator, or in a container."""

    def invoke(self, event: object) -> Any:  # noqa: ANN401  (any JSON value)
        """What the function returned; raises `LambdaFailed`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a sample: the new results in S3, and whatever was not as expected."""

    sample: Sample
    reply: Any
    reply_ms: int
    jobs: tuple[Job, ...]
    problems: tuple[str, ...]


def worker_environment(engine: str | None = None) -> dict[str, str]:
    """The settings of a worker that serves the sample events; those of S3 come on top."""
    environment = {
        "OUTPUT_BUCKET": OUTPUT_BUCKET,
        "WORKFLOWS_DIR": str(EVENTS.parent / "workflows"),
        "INITIAL_PORT": str(free_port()),  # ComfyUI's usual port may be another ComfyUI's
    }
    if engine is not None:
        environment["API_COMMAND_LINE"] = engine
    return environment


def send(sample: Sample, worker: Worker, s3: S3Client) -> Outcome:
    """Invoke the worker with the sample's event, and see what is new in the output bucket."""
    before = set(result_keys(s3))
    started = time.monotonic()
    reply: Any = None
    problems: list[str] = []
    try:
        reply = worker.invoke(sample.load())
    except LambdaFailed as error:
        problems.append(f"the worker failed: {error}")
    reply_ms = round((time.monotonic() - started) * 1000)
    new = [read_result(s3, key) for key in result_keys(s3) if key not in before]
    jobs = tuple(sorted(new, key=lambda job: job.created_at))
    problems += unexpected(sample, jobs, reply)
    return Outcome(sample, reply, reply_ms, jobs, tuple(problems))


def unexpected(sample: Sample, jobs: tuple[Job, ...], reply: object) -> list[str]:
    """What is not as the sample wants it, in words."""
    problems = [f"{failed} should have failed" for failed in sample.failures if not _has(jobs, failed)]
    for job in jobs:
        wanted = sample.failures.get(job.id)
        code = job.error.code if job.error else None
        if wanted is None and job.status is not JobStatus.SUCCEEDED:
            problems.append(f"{job.id} {job.status.value}: {code}: {job.error.message if job.error else ''}")
        elif wanted is not None and code != wanted:
            problems.append(f"{job.id} should have failed with {wanted}, not: {code or job.status.value}")
    if len(jobs) != sample.jobs:
        problems.append(f"{len(jobs)} new results in S3 instead of {sample.jobs}")
    if isinstance(reply, dict):
        problems += _unexpected_reply(sample, reply)
    return problems


def _unexpected_reply(sample: Sample, reply: Mapping[str, Any]) -> list[str]:
    if error := reply.get("error"):
        return [f"the reply is an error: {error.get('code')}: {error.get('message')}"]
    if reply.get("statusCode", 200) >= 400:
        return [f"the HTTP reply has status {reply['statusCode']}: {str(reply.get('body'))[:500]}"]
    again = len(reply.get("batchItemFailures", ()))
    return [f"{again} records of the batch are to be delivered again"] if again > len(sample.failures) else []


def _has(jobs: tuple[Job, ...], job_id: str) -> bool:
    return any(job.id == job_id for job in jobs)


def result_keys(s3: S3Client) -> list[str]:
    """The keys of all results in the output bucket."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=OUTPUT_BUCKET)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return [key for key in keys if key.endswith(RESULT)]


def read_result(s3: S3Client, key: str) -> Job:
    """A result as it is kept in S3."""
    return Job.model_validate_json(s3.get_object(Bucket=OUTPUT_BUCKET, Key=key)["Body"].read())


def download(job: Job, s3: S3Client, folder: Path) -> dict[str, Path]:
    """Fetch a job's files into `folder`/job/node/name; returns where each output, by its id, is now.

    Raises:
        DownloadDiffers: a file does not have the checksum its result gives.
    """
    files: dict[str, Path] = {}
    for output in job.outputs:
        if output.s3_uri is None:
            raise DownloadDiffers(f"{job.id}: {output.name} has no address in S3")
        bucket, _, key = output.s3_uri.removeprefix("s3://").partition("/")
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if hashlib.sha256(body).hexdigest() != output.sha256:
            raise DownloadDiffers(f"{output.s3_uri} does not have the checksum that its result gives")
        path = folder / job.id / output.node_id / Path(key).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        files[output.id] = path
    return files
