"""What becomes of a job when S3, or the network before it, fails: it succeeds, or it says that it has not."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

from comfy_serverless.errors import DeliveryFailed
from comfy_serverless.jobs.s3 import AssetUnavailable, create_client
from comfy_serverless.jobs.uploads import PART_BYTES
from local.s3 import LocalS3
from local.seed import OUTPUT_BUCKET
from tests.integration.faulty_s3 import Fault, FaultyS3
from tests.unit.fakes import WORKFLOW, FakeEngine, World, made

Worlds = Callable[..., World]

SMALL, LARGE = b"x" * 100_000, bytes(range(256)) * (PART_BYTES // 256) + b"the last part"
#: As often as the client tries.
ALWAYS = 5


@pytest.fixture
def faulty_s3(local_s3: LocalS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The local S3, behind a proxy that a test can tell to fail. For this process, it is the S3."""
    with FaultyS3(local_s3.endpoint_url) as proxy:
        for name, value in local_s3.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        # The client waits up to twenty seconds between attempts; what it does then is the same.
        monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)
        yield proxy


@pytest.fixture
def world(faulty_s3: FaultyS3) -> Iterator[Worlds]:
    worlds: list[World] = []

    def make(*contents: bytes) -> World:
        outputs = tuple(made(f"{n}.bin", content, index=n) for n, content in enumerate(contents))
        worlds.append(World(create_client(), engine=FakeEngine(outputs=outputs), output_bucket=OUTPUT_BUCKET))
        return worlds[-1]

    yield make
    for made_world in worlds:
        made_world.worker.close()


def request() -> dict[str, Any]:
    return {"job_id": f"t-{uuid.uuid4().hex}", "workflow": WORKFLOW}


def is_whole(here: World, job_id: str, content: bytes) -> bool:
    stored = here.stored(f"{job_id}/9/0.bin", OUTPUT_BUCKET)
    return hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["at once", "in parts"])
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.LOST_ANSWER, Fault.SLOW_DOWN])
def test_an_upload_survives_a_fault(faulty_s3: FaultyS3, world: Worlds, content: bytes, fault: Fault) -> None:
    here, job = world(content), request()
    faulty_s3.fail("PUT", "/0.bin", fault)
    outcome = here.run(job)
    assert outcome.error is None
    assert is_whole(here, job["job_id"], content)


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.LOST_ANSWER, Fault.INTERNAL_ERROR])
def test_the_end_of_an_upload_in_parts_survives_a_fault(faulty_s3: FaultyS3, world: Worlds, fault: Fault) -> None:
    here, job = world(LARGE), request()
    faulty_s3.fail("POST", "/0.bin", Fault.NONE, fault)  # the first begins the upload
    assert here.run(job).error is None
    assert is_whole(here, job["job_id"], LARGE)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["at once", "in parts"])
@pytest.mark.parametrize("faults", [[Fault.RESET] * ALWAYS, [Fault.BAD_DIGEST]], ids=["resets", "wrong checksum"])
def test_an_upload_that_never_succeeds_is_told_and_costs_no_other_output(
    faulty_s3: FaultyS3, world: Worlds, content: bytes, faults: list[Fault]
) -> None:
    here, job = world(content, b"the other"), request()
    faulty_s3.fail("PUT", "/0.bin", *faults)
    outcome = here.run(job)
    assert isinstance(outcome.error, DeliveryFailed)
    assert "0.bin of node 9" in outcome.error.message
    assert [output.name for output in outcome.job.outputs] == ["1.bin"]
    assert not outcome.is_recorded
    uploads = here.s3.list_multipart_uploads(Bucket=OUTPUT_BUCKET).get("Uploads", [])
    assert not [upload for upload in uploads if upload["Key"].startswith(job["job_id"])]
    assert here.run(job).error is None


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.LOST_ANSWER, Fault.SLOW_DOWN, Fault.CONFLICT])
def test_the_result_survives_a_fault(faulty_s3: FaultyS3, world: Worlds, fault: Fault) -> None:
    here, job = world(SMALL), request()
    faulty_s3.fail("PUT", "/result.json", fault)
    assert here.run(job).is_recorded
    assert here.run(job).is_recorded
    assert len(here.engine.runs) == 1


@pytest.mark.parametrize("faults", [[Fault.CUT_SHORT], [Fault.INTERNAL_ERROR] * ALWAYS], ids=["cut short", "errors"])
def test_a_job_whose_result_cannot_be_read_is_not_run_again(
    faulty_s3: FaultyS3, world: Worlds, faults: list[Fault]
) -> None:
    here, job = world(SMALL), request()
    here.run(job)
    faulty_s3.fail("GET", "/result.json", *faults)
    outcome = here.run(job)
    assert isinstance(outcome.error, AssetUnavailable)
    assert not outcome.is_recorded
    assert here.run(job).is_recorded
    assert len(here.engine.runs) == 1


def test_a_bucket_that_goes_away_during_a_job_is_told(world: Worlds) -> None:
    here, job = world(SMALL), request()
    here.s3.create_bucket(Bucket="short-lived", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    here.engine.announces = False
    here.engine.then = lambda: here.s3.delete_bucket(Bucket="short-lived")
    outcome = here.run({**job, "output": {"bucket": "short-lived"}})
    assert isinstance(outcome.error, DeliveryFailed)
    assert "NoSuchBucket" in outcome.error.message
    assert outcome.job.result_uri is None
