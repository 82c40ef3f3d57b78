"""What becomes of a job when S3, or the network before it, fails: it succeeds, or it says that it has not.

`s3_fault_rows` is the table of what is proven here. After every test nothing may be left: no thread, no socket, no
temporary file, no upload that was begun and not ended.
"""

from __future__ import annotations

import calendar
import gc
import hashlib
import json
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.aws import s3 as s3_module
from comfy_serverless.aws.s3 import ATTEMPTS, s3_client
from comfy_serverless.errors import AssetUnavailable, DeliveryFailed, InvalidRequest
from comfy_serverless.jobs.document import Job
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.json_text import MAX_DOCUMENT_BYTES
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.put import PART_BYTES
from comfy_serverless.worker.worker import Call, Outcome, Worker
from comfy_serverless.workflows.finding import Finder
from demo.seed import OUTPUT_BUCKET
from local.aws.server import LocalAws
from tests.integration import s3_fault_rows
from tests.integration.faulty_s3 import Fault, FaultyS3
from tests.patience import PATIENCE_S, QuietClock
from tests.unit.fakes import WORKFLOW, FakeEngine, World, made

Worlds = Callable[..., World]

SMALL, LARGE = b"x" * 100_000, bytes(range(256)) * (PART_BYTES // 256) + b"the last part"
#: For every attempt at every part.
ALWAYS = 2 * ATTEMPTS


@pytest.fixture(autouse=True)
def nothing_is_left(local_s3: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads, sockets = set(threading.enumerate()), count_sockets()
    yield
    gc.collect()  # urllib3 closes the connections of a closed client when they can no longer be reached
    assert eventually(lambda: not set(threading.enumerate()) - threads), threading.enumerate()
    assert eventually(lambda: count_sockets() <= sockets), f"{count_sockets() - sockets} sockets more than before"
    # A port's lock file stays, so that no process waits for one that is gone.
    assert not [path for path in tmp_path.iterdir() if path.is_file() and path.suffix != ".lock"]
    assert "Uploads" not in local_s3.client().list_multipart_uploads(Bucket=OUTPUT_BUCKET)


def count_sockets() -> int:
    return sum(link.is_socket() for link in Path("/proc/self/fd").iterdir())


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def faulty_s3(local_s3: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
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
    with ExitStack() as worlds:

        def make(*contents: bytes) -> World:
            outputs = tuple(made(f"{n}.bin", content, index=n) for n, content in enumerate(contents))
            engine = FakeEngine(outputs=outputs)
            here = World(s3_client(), engine=engine, output_bucket=OUTPUT_BUCKET, deadline_margin_s=1.0)
            worlds.callback(here.s3.close)
            worlds.callback(here.worker.close)
            return here

        yield make


def request(**options: Any) -> dict[str, Any]:
    return {"job_id": f"t-{uuid.uuid4().hex}", "workflow": WORKFLOW, **options}


def is_whole(here: World, job_id: str, content: bytes) -> bool:
    stored = here.stored(f"{job_id}/9/0.bin", OUTPUT_BUCKET)
    return hashlib.sha256(stored).digest() == hashlib.sha256(content).digest()


def assert_undelivered(here: World, outcome: Outcome, *, code: str = "delivery_failed") -> None:
    """The job says that it has not been delivered, may be sent again, and has left no result."""
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == (code, True)
    assert not outcome.is_recorded
    assert outcome.job.result_uri is None
    assert f"{outcome.job.id}/result.json" not in here.stored_keys(OUTPUT_BUCKET)


def assert_refused(outcome: Outcome) -> None:
    """The job says that it has not been delivered, and that S3 would refuse it again."""
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("delivery_failed", False)


def assert_next_job_works(here: World) -> None:
    outcome = here.run(request())
    assert outcome.error is None
    assert outcome.is_recorded


def test_every_row_names_tests_that_exist() -> None:
    tests = {name for name in globals() if name.startswith("test_")}
    named = {name for row in s3_fault_rows.ROWS for name in row.tests}
    assert named <= tests
    assert tests - named <= {"test_every_row_names_tests_that_exist"}


# Faults that pass


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["at once", "in parts"])
@pytest.mark.parametrize(
    "fault", [Fault.RESET, Fault.LOST_ANSWER, Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.CONFLICT]
)
def test_an_upload_survives_a_fault(faulty_s3: FaultyS3, world: Worlds, content: bytes, fault: Fault) -> None:
    here, job = world(content), request()
    faulty_s3.fail("PUT", "/0.bin", fault)
    outcome = here.run(job)
    assert faulty_s3.struck() == [("PUT", fault)]
    assert outcome.error is None
    assert is_whole(here, job["job_id"], content)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.SLOW_DOWN],
        [Fault.NONE, Fault.RESET],
        [Fault.NONE, Fault.LOST_ANSWER],
        [Fault.NONE, Fault.CONFLICT],
    ],
)
def test_the_end_of_an_upload_in_parts_survives_a_fault(
    faulty_s3: FaultyS3, world: Worlds, faults: list[Fault]
) -> None:
    here, job = world(LARGE), request()
    faulty_s3.fail("POST", "/0.bin", *faults)  # the first request begins the upload, the second one ends it
    assert here.run(job).error is None
    assert is_whole(here, job["job_id"], LARGE)


@pytest.mark.parametrize(
    "fault", [Fault.RESET, Fault.LOST_ANSWER, Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.CONFLICT]
)
def test_the_result_survives_a_fault(faulty_s3: FaultyS3, world: Worlds, fault: Fault) -> None:
    here, job = world(SMALL), request()
    faulty_s3.fail("PUT", "/result.json", fault)
    assert here.run(job).is_recorded
    assert here.run(job).is_recorded
    assert len(here.engine.runs) == 1


def test_a_result_that_comes_in_drops_is_waited_for(faulty_s3: FaultyS3, world: Worlds) -> None:
    here, job = world(SMALL), request()
    first = here.run(job)
    faulty_s3.slow_s = 0.05
    faulty_s3.fail("GET", "/result.json", Fault.DRIP)
    assert here.run(job).job.to_stored_bytes() == first.job.to_stored_bytes()
    assert len(here.engine.runs) == 1


@pytest.mark.parametrize("ahead", [timedelta(hours=3), timedelta(hours=-3)], ids=["behind", "ahead"])
def test_a_wrong_clock_costs_one_more_request(faulty_s3: FaultyS3, world: Worlds, ahead: timedelta) -> None:
    here, job = world(SMALL), request()
    faulty_s3.clock_ahead = ahead
    assert here.run(job).error is None
    assert is_whole(here, job["job_id"], SMALL)
    link = here.s3.generate_presigned_url("get_object", Params={"Bucket": OUTPUT_BUCKET, "Key": "a"})
    signed_at = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)["X-Amz-Date"][0]
    assert abs(calendar.timegm(time.strptime(signed_at, "%Y%m%dT%H%M%SZ")) - faulty_s3.now().timestamp()) < 60
    faulty_s3.clock_ahead = timedelta()  # our clock has been put right
    assert_next_job_works(here)


# Faults that do not pass


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["at once", "in parts"])
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.LOST_ANSWER])
def test_an_upload_that_never_succeeds_is_told_and_costs_no_other_output(
    faulty_s3: FaultyS3, world: Worlds, content: bytes, fault: Fault
) -> None:
    here, job = world(content, b"the other"), request()
    faulty_s3.fail("PUT", "/0.bin", *[fault] * ALWAYS)
    outcome = here.run(job)
    assert_undelivered(here, outcome)
    assert "0.bin of node 9" in str(outcome.error)
    assert [output.name for output in outcome.job.outputs] == ["1.bin"]
    faulty_s3.heal()
    assert here.run(job).error is None
    assert is_whole(here, job["job_id"], content)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["at once", "in parts"])
def test_bytes_that_change_on_their_way_are_never_stored(faulty_s3: FaultyS3, world: Worlds, content: bytes) -> None:
    here, job = world(content), request()
    faulty_s3.fail("PUT", "/0.bin", Fault.FLIPPED)
    outcome = here.run(job)
    assert_undelivered(here, outcome)
    assert "BadDigest" in str(outcome.error)
    assert not here.stored_keys(OUTPUT_BUCKET) & {f"{job['job_id']}/9/0.bin"}
    assert here.run(job).error is None
    assert is_whole(here, job["job_id"], content)


def test_a_confirmation_of_something_else_is_no_confirmation(faulty_s3: FaultyS3, world: Worlds) -> None:
    here, job = world(SMALL), request()
    faulty_s3.fail("PUT", "/0.bin", Fault.OTHER_CHECKSUM)
    outcome = here.run(job)
    assert_undelivered(here, outcome)
    assert "ChecksumMismatch" in str(outcome.error)
    assert here.run(job).error is None
    assert is_whole(here, job["job_id"], SMALL)


def test_an_upload_that_outlasts_the_invocation_is_told_in_time(faulty_s3: FaultyS3, world: Worlds) -> None:
    here, job = world(SMALL), request()
    faulty_s3.slow_s = 60.0
    faulty_s3.fail("PUT", "/0.bin", Fault.SLOW)
    with QuietClock() as clock:
        until = clock() + 3.0
        outcome = here.run(job, Call(remaining_s=lambda: until - clock()))
        assert clock() < until
    assert_undelivered(here, outcome)
    assert "still being uploaded" in str(outcome.error)
    assert_next_job_works(here)


def test_an_s3_that_never_answers_is_given_up(
    faulty_s3: FaultyS3, world: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "READ_TIMEOUT_S", 0.2)
    here, job = world(SMALL), request()
    faulty_s3.slow_s = 60.0
    faulty_s3.fail("PUT", "/0.bin", *[Fault.SLOW] * ALWAYS)
    with QuietClock() as clock:
        started = clock()
        assert_undelivered(here, here.run(job))
        assert clock() - started < 10
    assert len(faulty_s3.struck()) == ATTEMPTS
    faulty_s3.heal()
    assert_next_job_works(here)


def test_a_denied_put_is_told_with_the_permission_that_is_missing(faulty_s3: FaultyS3, world: Worlds) -> None:
    here, job = world(SMALL), request()
    faulty_s3.fail("PUT", "/0.bin", Fault.ACCESS_DENIED)
    outcome = here.run(job)
    assert_refused(outcome)
    assert "s3:PutObject" in str(outcome.error)
    assert outcome.is_recorded
    assert_next_job_works(here)


def test_a_denied_result_is_told(faulty_s3: FaultyS3, world: Worlds) -> None:
    here, job = world(SMALL), request()
    faulty_s3.fail("PUT", "/result.json", Fault.ACCESS_DENIED)
    outcome = here.run(job)
    assert_undelivered(here, outcome)
    assert "s3:PutObject" in str(outcome.error)
    faulty_s3.heal()
    assert here.run(job).is_recorded


def test_a_bucket_that_does_not_exist_is_told_before_any_work(world: Worlds) -> None:
    here = world(SMALL)
    outcome = here.run(request(output={"bucket": "never-was"}))
    assert isinstance(outcome.error, InvalidRequest)
    assert "never-was" in outcome.error.message
    assert here.engine.runs == []
    assert_next_job_works(here)


def test_a_bucket_that_goes_away_during_a_job_is_told(world: Worlds) -> None:
    here = world(SMALL)
    here.s3.create_bucket(Bucket="short-lived", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    here.engine.announces = False
    here.engine.then = lambda: here.s3.delete_bucket(Bucket="short-lived")
    outcome = here.run(request(output={"bucket": "short-lived"}))
    assert_refused(outcome)
    assert "NoSuchBucket" in str(outcome.error)
    assert outcome.job.result_uri == f"s3://{OUTPUT_BUCKET}/{outcome.job.id}/result.json"
    here.engine.then = lambda: None
    assert_next_job_works(here)


# A result that stands already


def test_a_job_that_has_ended_is_answered_from_its_result(world: Worlds) -> None:
    here, job = world(SMALL), request()
    first, again = here.run(job), here.run(job)
    assert again.job.to_stored_bytes() == first.job.to_stored_bytes()
    assert len(here.engine.runs) == 1


@pytest.mark.parametrize("kind", ["another's", "no result", "endless"])
def test_what_is_not_the_jobs_own_result_is_refused_and_stays(world: Worlds, kind: str) -> None:
    here, job, others = world(SMALL), request(), request()
    here.run(others)
    document = {
        "another's": here.stored(f"{others['job_id']}/result.json", OUTPUT_BUCKET),
        "no result": b'{"hello": "world"}',
        "endless": b" " * (MAX_DOCUMENT_BYTES + 1),
    }[kind]
    here.s3.put_object(Bucket=OUTPUT_BUCKET, Key=f"{job['job_id']}/result.json", Body=document)
    outcome = here.run(job)
    assert isinstance(outcome.error, InvalidRequest)
    assert len(here.engine.runs) == 1
    assert here.stored(f"{job['job_id']}/result.json", OUTPUT_BUCKET) == document
    assert_next_job_works(here)


@pytest.mark.parametrize("faults", [[Fault.CUT_SHORT], [Fault.INTERNAL_ERROR] * ATTEMPTS], ids=["cut short", "errors"])
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


def test_a_result_that_may_not_be_read_is_never_replaced(faulty_s3: FaultyS3, world: Worlds) -> None:
    here, job = world(SMALL), request()
    faulty_s3.fail("GET", "/result.json", Fault.ACCESS_DENIED)
    first = here.run(job)
    assert first.is_recorded
    faulty_s3.fail("GET", "/result.json", *[Fault.ACCESS_DENIED] * 2)
    outcome = here.run(job)
    assert isinstance(outcome.error, DeliveryFailed)
    assert "s3:GetObject" in outcome.error.message
    assert here.stored(f"{job['job_id']}/result.json", OUTPUT_BUCKET) == first.job.to_stored_bytes()
    assert_next_job_works(here)


# Two workers


class _OtherConnector(ComfyConnector):
    """As in another process: `ComfyConnector` is one instance everywhere in this one."""

    _instance = None


class _ThirdConnector(ComfyConnector):
    """Another one."""

    _instance = None


@pytest.fixture
def two_workers(faulty_s3: FaultyS3, tmp_path: Path) -> Iterator[list[Worker]]:
    with ExitStack() as running:
        workers = []
        for number, connector_class in enumerate((_OtherConnector, _ThirdConnector)):
            folder = tmp_path / str(number)
            command = f"{sys.executable} -m comfy_lite --base-directory {folder} --step-ms 5"
            settings = Settings(
                api_command_line=command, initial_port=21088 + 100 * number, output_bucket=OUTPUT_BUCKET
            )
            connector = connector_class(settings=settings)
            running.callback(connector.kill_api)
            s3 = s3_client()
            running.callback(s3.close)
            inputs = InputFetcher(settings=settings, s3=s3, connector=connector)
            workers.append(
                Worker(
                    settings=settings, engine=connector, s3=s3, inputs=inputs, named=Finder(None, None, nobody_declares)
                )
            )
            running.callback(workers[-1].close)
        yield workers


def test_two_workers_with_the_same_job_answer_the_same_result(two_workers: list[Worker], local_s3: LocalAws) -> None:
    graph = json.loads(Path("workflows/text_to_image.json").read_text())
    sampler = next(node for node in graph.values() if node["class_type"] == "KSampler")
    sampler["inputs"] |= {"seed": -1, "steps": 4}  # each draws its own: what they make differs
    latent = next(node for node in graph.values() if node["class_type"] == "EmptyLatentImage")
    latent["inputs"] |= {"width": 64, "height": 64}
    job = {"job_id": f"t-{uuid.uuid4().hex}", "workflow": graph}
    s3 = local_s3.client()
    with ThreadPoolExecutor(2) as threads:
        outcomes = list(
            threads.map(lambda worker: worker.run(SentRequest(payload=job, default_id="drawn"), Call()), two_workers)
        )
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert all(outcome.is_recorded for outcome in outcomes)
    assert outcomes[0].job.to_stored_bytes() == outcomes[1].job.to_stored_bytes()
    standing = s3.get_object(Bucket=OUTPUT_BUCKET, Key=f"{job['job_id']}/result.json")["Body"].read()
    assert standing == outcomes[0].job.to_stored_bytes()
    for output in Job.model_validate_json(standing).outputs:
        assert output.s3_uri is not None
        stored = s3.get_object(Bucket=OUTPUT_BUCKET, Key=output.s3_uri.split("/", 3)[3])["Body"].read()
        assert hashlib.sha256(stored).hexdigest() == output.sha256
