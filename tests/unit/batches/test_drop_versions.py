"""What is run is what was dropped: in a bucket with versions, in one without, at `ingest` and at the worker."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.aws.s3 import Pin, PinnedAddress, S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.fetch.sources import Access, S3Source, Stream, Unusable, parse
from comfy_serverless.handlers.envelopes import contents_of
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.jobs.stored_request import StoredRequest
from tests.packing import packed
from tests.unit import batch_world
from tests.unit.batch_world import ASSETS, DROPS, GRAPH, RESULTS, manifest
from tests.unit.envelope_samples import object_created, s3_notification
from tests.unit.event_samples import answer
from tests.unit.fakes import IN, WORKFLOW
from tests.unit.fakes import World as WorkerWorld
from tests.unit.jobs_table import aws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOADER = {"7": {"class_type": "LoadImage", "inputs": {"image": "x.png"}}, **WORKFLOW}


@pytest.fixture
def workflows(tmp_path: Path) -> Path:
    (tmp_path / "portrait.json").write_text(json.dumps(LOADER))
    return tmp_path


@pytest.fixture
def world(workflows: Path) -> Iterator[batch_world.World]:
    with aws() as session:
        yield batch_world.World(session, workflows_dir=workflows)


def nowhere(url: str, deadline: float) -> AbstractContextManager[Stream]:
    raise AssertionError(url)


def keep_versions(s3: S3Client, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def write(s3: S3Client, bucket: str, key: str, content: bytes, number: int) -> DroppedObject:
    """Put an object, and return what S3's event of that says."""
    put = s3.put_object(Bucket=bucket, Key=key, Body=content)
    item = {"eTag": put["ETag"].strip('"'), "versionId": put.get("VersionId"), "sequencer": f"{number:04X}"}
    event: dict[str, Any] = s3_notification(key, **item)
    event["Records"][0]["s3"]["bucket"]["name"] = bucket
    (dropped,) = contents_of(event)
    assert isinstance(dropped, DroppedObject)
    return dropped


def write_twice(world: batch_world.World, key: str, *contents: bytes) -> list[DroppedObject]:
    return [write(world.s3, DROPS, key, content, number) for number, content in enumerate(contents)]


def requests(world: batch_world.World) -> list[Any]:
    addresses = (S3Address.parse(message["request"]) for message in world.messages("jobs"))
    return [StoredRequest.read(world.s3, address).request for address in addresses]


def refusals(world: batch_world.World) -> list[dict[str, Any]]:
    keys = [item["Key"] for item in world.s3.list_objects_v2(Bucket=RESULTS).get("Contents", [])]
    return [json.loads(world.s3.get_object(Bucket=RESULTS, Key=key)["Body"].read())["error"] for key in keys]


def steps(number: int) -> bytes:
    return json.dumps({"workflow": GRAPH, "set": {"1.width": number}}).encode()


# A bucket that keeps versions


def test_each_request_runs_as_it_was_dropped_although_it_was_replaced(world: batch_world.World) -> None:
    keep_versions(world.s3, DROPS)
    for dropped in write_twice(world, "jobs/same.json", steps(1), steps(2)):
        world.drops.drop(dropped)
    assert [request.values for request in requests(world)] == [{"1.width": 1}, {"1.width": 2}]


def test_a_request_that_was_deleted_meanwhile_runs_as_it_was_dropped(world: batch_world.World) -> None:
    keep_versions(world.s3, DROPS)
    (dropped,) = write_twice(world, "jobs/same.json", steps(1))
    world.s3.delete_object(Bucket=DROPS, Key="jobs/same.json")
    world.drops.drop(dropped)
    assert [request.values for request in requests(world)] == [{"1.width": 1}]


def test_each_picture_is_the_one_that_was_dropped_although_it_was_replaced(world: batch_world.World) -> None:
    keep_versions(world.s3, DROPS)
    for dropped in write_twice(world, "images/portrait/same.png", b"red", b"blue"):
        world.drops.drop(dropped)
    pictures = [S3Address.parse(str(request.inputs["7.image"])) for request in requests(world)]
    assert [world.s3.get_object(Bucket=at.bucket, Key=at.key)["Body"].read() for at in pictures] == [b"red", b"blue"]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_each_manifest_is_read_as_it_was_dropped_although_it_was_replaced(
    world: batch_world.World, ending: str
) -> None:
    keep_versions(world.s3, DROPS)
    pack = gzip.compress if ending.endswith("gz") else bytes
    for dropped in write_twice(world, f"batches/same{ending}", pack(manifest(2)), pack(manifest(3, first=10))):
        world.drops.drop(dropped)
    world.read_all()
    assert len(world.work()) == 5


# A bucket that keeps none


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("jobs/same.json", steps(1), steps(2)),
        ("images/portrait/same.png", b"red", b"blue"),
        ("batches/same.jsonl", manifest(2), manifest(3)),
        ("batches/same.jsonl.gz", packed(manifest(2)), packed(manifest(3))),
    ],
)
def test_what_was_replaced_before_it_was_read_is_told_and_the_newer_one_is_not_run_twice(
    world: batch_world.World, key: str, first: bytes, second: bytes
) -> None:
    older, newer = write_twice(world, key, first, second)
    world.drops.drop(older)
    (error,) = refusals(world)
    assert error["code"] == "missing_asset"
    assert "has been written again since" in error["message"]
    assert world.messages("jobs") == []
    world.drops.drop(newer)
    world.read_all()
    assert len(world.messages("jobs")) == (0 if key.startswith("batches") else 1)
    assert len(world.work()) == (3 if key.startswith("batches") else 0)


def test_a_picture_that_is_replaced_while_its_job_waits_changes_nothing(world: batch_world.World) -> None:
    world.drops.drop(write_twice(world, "images/portrait/same.png", b"red")[0])
    write_twice(world, "images/portrait/same.png", b"blue")
    ((request,), at) = requests(world), ASSETS
    picture = S3Address.parse(str(request.inputs["7.image"]))
    assert picture.bucket == at
    assert picture.key.endswith("/same.png")
    assert world.s3.get_object(Bucket=at, Key=picture.key)["Body"].read() == b"red"


@pytest.mark.parametrize("key", ["jobs/gone.json", "images/portrait/gone.png", "batches/gone.jsonl"])
def test_what_is_gone_before_it_was_read_is_told(world: batch_world.World, key: str) -> None:
    (dropped,) = write_twice(world, key, b"{}")
    world.s3.delete_object(Bucket=DROPS, Key=key)
    world.drops.drop(dropped)
    (error,) = refusals(world)
    assert error["code"] == "missing_asset"
    assert "does not exist" in error["message"]


def test_the_same_content_twice_is_two_wishes(world: batch_world.World) -> None:
    for dropped in write_twice(world, "jobs/same.json", steps(1), steps(1)):
        world.drops.drop(dropped)
    assert len({message["job"] for message in world.messages("jobs")}) == 2


# Manifests that are packed


@pytest.mark.parametrize("content", [packed(manifest(3))[:-9], b"\x1f\x8b\x08\x00" + b"x" * 40])
def test_a_manifest_that_cannot_be_unpacked_is_told(world: batch_world.World, content: bytes) -> None:
    world.drops.drop(write_twice(world, "batches/bad.jsonl.gz", content)[0])
    (error,) = refusals(world)
    assert error["code"] == "invalid_request"
    assert "cannot be unpacked" in error["message"]


def test_the_content_says_whether_a_manifest_is_packed(world: batch_world.World) -> None:
    for key, content in (("batches/plain.jsonl.gz", manifest(3)), ("batches/packed.jsonl", packed(manifest(3)))):
        batch = world.drops.begin_batch(write_twice(world, key, content)[0])
        assert batch.size_bytes == len(manifest(3))


def test_a_manifest_that_unpacks_to_too_much_is_told(world: batch_world.World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_serverless.batches.taking.MAX_UNPACKED_BYTES", 1000)
    world.drops.drop(write_twice(world, "batches/bomb.jsonl.gz", packed(b" " * 100_000))[0])
    (error,) = refusals(world)
    assert "unpacks to more than 1,000 bytes" in error["message"]


@pytest.mark.parametrize("key", ["batches/x.json", "batches/x.csv", "jobs/x.txt", "jobs/x.jsonl", "images/x.png"])
def test_what_is_no_drop_is_told_with_what_is(world: batch_world.World, key: str) -> None:
    world.drops.drop(write_twice(world, key, b"{}")[0])
    (error,) = refusals(world)
    assert "nothing that can be run" in error["message"]
    assert "batches/*.jsonl" in error["message"]
    assert "*.json that is not in batches/" in error["message"]


# The worker itself


@pytest.mark.parametrize("envelope", [s3_notification, object_created])
@pytest.mark.parametrize("is_versioned", [True, False])
def test_the_worker_asks_for_the_picture_that_was_dropped(
    world_of_worker: Callable[..., WorkerWorld], workflows: Path, envelope: Callable[..., Any], *, is_versioned: bool
) -> None:
    here = world_of_worker(workflows_dir=workflows)
    if is_versioned:
        keep_versions(here.s3, IN)
    put = here.s3.put_object(Bucket=IN, Key="images/portrait/cat.png", Body=b"red")
    etag = put["ETag"].strip('"')
    names = ("eTag", "versionId") if envelope is s3_notification else ("etag", "version-id")
    event = envelope("images/portrait/cat.png", **{names[0]: etag, names[1]: put.get("VersionId")})
    here.s3.put_object(Bucket=IN, Key="images/portrait/cat.png", Body=b"blue")
    answer(here, event)
    address = here.inputs.calls[0]["inputs"]["7.image"]
    assert address.endswith(f"?versionId={put['VersionId']}" if is_versioned else f"?etag={etag}")
    source = parse(address)
    access = Access(s3=here.s3, open_web=nowhere, allowed_buckets=(), max_bytes=1000)
    if is_versioned:
        with source.open(access, deadline=0) as stream:
            assert b"".join(stream.chunks) == b"red"
    else:
        with pytest.raises(Unusable, match="written again since") as caught, source.open(access, deadline=0):
            pass
        assert not caught.value.transient


def test_a_request_that_was_replaced_is_not_run_by_the_worker(world_of_worker: Callable[..., WorkerWorld]) -> None:
    here = world_of_worker()
    etag = here.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=b"{}")["ETag"].strip('"')
    here.s3.put_object(Bucket=IN, Key="jobs/w.json", Body=json.dumps(WORKFLOW))
    (summary,) = answer(here, s3_notification("jobs/w.json", eTag=etag))["jobs"]
    assert summary["error"]["code"] == "missing_asset"
    assert here.engine.runs == []


def test_a_workflow_may_be_named_by_its_version(world_of_worker: Callable[..., WorkerWorld]) -> None:
    here = world_of_worker()
    keep_versions(here.s3, IN)
    version = here.s3.put_object(Bucket=IN, Key="w.json", Body=json.dumps(WORKFLOW))["VersionId"]
    here.s3.put_object(Bucket=IN, Key="w.json", Body=b"{}")
    outcome = here.run({"job_id": "a", "workflow": f"s3://{IN}/w.json?versionId={version}"})
    assert outcome.job.status.value == "succeeded"
    assert here.run({"job_id": "b", "workflow": f"s3://{IN}/w.json"}).job.status.value == "failed"


@pytest.fixture
def world_of_worker(s3: S3Client) -> Callable[..., WorkerWorld]:
    return lambda **settings: WorkerWorld(s3, **settings)


# Addresses of versions


@pytest.mark.parametrize(
    ("text", "key", "pin"),
    [
        ("s3://bucket/a.png", "a.png", Pin()),
        ("s3://bucket/a.png?versionId=3_L4kqtJlcpXroDTDmJ.rmSpXd", "a.png", Pin("3_L4kqtJlcpXroDTDmJ.rmSpXd")),
        ("s3://bucket/a.png?versionId=null", "a.png", Pin("null")),
        (f"s3://bucket/a?b.png?etag={'0f' * 16}-12", "a?b.png", Pin(etag=f"{'0f' * 16}-12")),
        ("s3://bucket/a.png?etag=no", "a.png?etag=no", Pin()),
        ("s3://bucket/a.png?versionId=", "a.png?versionId=", Pin()),
        ("s3://bucket/a.png?x=1", "a.png?x=1", Pin()),
    ],
)
def test_an_address_may_name_a_version(text: str, key: str, pin: Pin) -> None:
    assert PinnedAddress.parse(text) == (S3Address("bucket", key), pin)
    assert str(PinnedAddress.parse(text)) == text
    source = parse(text)
    assert isinstance(source, S3Source)
    assert (source.name, str(source)) == (key, text)


def test_a_version_of_nothing_is_no_address() -> None:
    with pytest.raises(InvalidRequest):
        PinnedAddress.parse("s3://bucket/?versionId=1")
