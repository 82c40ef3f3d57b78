"""Files that ComfyUI has made, dropped below jobs/: each is a job with the workflow inside of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from comfy_serverless.api.bodies import MAX_WAIT_S
from comfy_serverless.aws.s3 import Pin, S3Address
from comfy_serverless.errors import AssetUnavailable, InvalidWorkflow, MissingAsset
from comfy_serverless.jobs import embedded
from comfy_serverless.jobs.embedded import embedded_in, workflow_document
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.jobs.stored_request import StoredRequest
from tests.unit import embedded_files as files
from tests.unit.batch_world import DROPS, RESULTS, World
from tests.unit.event_samples import answer, s3_event
from tests.unit.fakes import IN, WORKFLOW
from tests.unit.fakes import World as WorkerWorld
from tests.unit.jobs_table import aws

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture
def world() -> Iterator[World]:
    with aws() as session:
        yield World(session)


def drop(world: World, key: str, content: bytes) -> DroppedObject:
    dropped = world.drop(key, content)
    world.drops.drop(dropped)
    return dropped


def the_request(world: World) -> StoredRequest:
    (message,) = world.messages("jobs")
    return StoredRequest.read(world.s3, S3Address.parse(message["request"]))


def the_error(world: World) -> dict[str, Any]:
    (item,) = world.s3.list_objects_v2(Bucket=RESULTS)["Contents"]
    error: dict[str, Any] = json.loads(world.s3.get_object(Bucket=RESULTS, Key=item["Key"])["Body"].read())["error"]
    return error


def test_a_picture_becomes_a_job_with_its_own_graph(world: World) -> None:
    content = (files.SAVED / "SaveImage.png").read_bytes()
    dropped = drop(world, "jobs/2026/Fox.PNG", content)
    assert dropped.default_id.startswith("Fox-")
    request = the_request(world).request
    assert isinstance(request.workflow, dict)
    assert request.workflow["2"]["class_type"] == "SaveImage"
    assert request.metadata["source"] == f"s3://{DROPS}/jobs/2026/Fox.PNG"
    assert request.extra_data is not None
    assert "nodes" in request.extra_data["extra_pnginfo"]["workflow"]


def test_a_picture_without_a_workflow_is_a_failed_job_that_says_where_pictures_go(world: World) -> None:
    drop(world, "jobs/photo.jpg", files.pillow("JPEG"))
    error = the_error(world)
    assert error["code"] == "invalid_workflow"
    assert f"the dropped file s3://{DROPS}/jobs/photo.jpg carries no workflow" in error["message"]
    assert "images/{workflow}/" in error["message"]
    assert world.messages("jobs") == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_at_all_is_told(world: World, content: bytes) -> None:
    drop(world, "jobs/fox.png", content)
    assert the_error(world)["code"] == "invalid_workflow"


def test_a_picture_with_the_editors_workflow_alone_goes_the_way_of_any_workflow_of_the_editor(world: World) -> None:
    saved = {"nodes": [{"id": 1, "type": "EmptyImage"}, {"id": 2, "type": "SaveImage"}], "links": [], "version": 0.4}
    drop(world, "jobs/fox.webp", files.pillow("WEBP", exif=files.exif({0x010E: f"workflow:{json.dumps(saved)}"})))
    drop(world, "jobs/fox.json", json.dumps(saved).encode())
    first, second = (
        StoredRequest.read(world.s3, S3Address.parse(message["request"])) for message in world.messages("jobs")
    )
    assert first.request.workflow == second.request.workflow == saved


def test_what_was_left_out_is_a_warning_of_the_job(world: World) -> None:
    drop(world, "jobs/civitai.jpeg", files.WITH_PROMPT["civitai"])
    assert "left out, beside the nodes: 'extra', 'extraMetadata'" in the_request(world).request.warnings


def test_a_workflow_of_the_editor_that_is_too_large_to_be_kept_does_not_stop_its_prompt(world: World) -> None:
    huge = json.dumps({**files.EDITOR, "extra": {"notes": "x" * 2_100_000}})
    drop(world, "jobs/huge.png", files.png_by_pillow(prompt=files.PROMPT, workflow=huge))
    request = the_request(world).request
    assert (request.workflow, request.extra_data) == (files.GRAPH, None)
    assert [warning for warning in request.warnings if warning.startswith("left out: the workflow of the editor")]


def test_the_worker_takes_the_same_drops(s3: S3Client) -> None:
    here = WorkerWorld(s3)
    here.s3.put_object(Bucket=IN, Key="jobs/w.png", Body=files.png_by_pillow(prompt=json.dumps(WORKFLOW)))
    here.s3.put_object(Bucket=IN, Key="jobs/none.png", Body=files.png())
    assert answer(here, s3_event("jobs/w.png"))["jobs"][0]["status"] == "succeeded"
    assert answer(here, s3_event("jobs/none.png"))["jobs"][0]["error"]["code"] == "invalid_workflow"


def test_a_request_may_name_a_picture_as_its_workflow(s3: S3Client) -> None:
    here = WorkerWorld(s3)
    here.s3.put_object(Bucket=IN, Key="fox.png", Body=files.png_by_pillow(prompt=json.dumps(WORKFLOW), workflow="{"))
    job = here.run({"job_id": "a", "workflow": f"s3://{IN}/fox.png"}).job
    assert job.status.value == "succeeded"
    assert [warning for warning in job.warnings if warning.startswith("left out: the workflow of the editor")]


# Ranges


class Counting:
    """S3, with a look at what is fetched."""

    def __init__(self, s3: S3Client) -> None:
        self._s3 = s3
        self.ranges: list[str] = []
        self.before: list[Any] = []

    @property
    def client(self) -> S3Client:
        """It, as what it stands for."""
        return cast("S3Client", self)

    def get_object(self, **asked: Any) -> Any:
        if len(self.before) > len(self.ranges):
            self.before[len(self.ranges)]()
        self.ranges.append(asked["Range"])
        return self._s3.get_object(**asked)


@pytest.fixture
def bucket(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr(embedded, "_FIRST_BYTES", 4096)
    monkeypatch.setattr(embedded, "_LEAST_BYTES", 4096)
    return Counting(s3)


def film(size: int) -> bytes:
    moov = files.box(b"moov", files.box(b"udta", files.mdta(files.TEXTS)))
    return files.FTYP + files.box(b"mdat", b"\0" * size) + moov


def test_of_a_film_its_ends_are_fetched(bucket: Counting, s3: S3Client) -> None:
    s3.put_object(Bucket=IN, Key="film.mp4", Body=film(3_000_000))
    found = embedded_in(bucket.client, S3Address(IN, "film.mp4"), what="the film")
    assert found.document == files.BOTH
    assert bucket.ranges == ["bytes=0-4095", "bytes=3000032-3004127"]


def test_all_that_is_fetched_is_of_one_version(bucket: Counting, s3: S3Client) -> None:
    address = S3Address(IN, "film.mp4")
    s3.put_object(Bucket=IN, Key="film.mp4", Body=film(3_000_000))
    bucket.before = [lambda: None, lambda: s3.put_object(Bucket=IN, Key="film.mp4", Body=film(3_000_000) + b"new")]
    with pytest.raises(MissingAsset, match="has been written again since"):
        embedded_in(bucket.client, address, what="the film")
    s3.put_bucket_versioning(Bucket=IN, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=IN, Key="film.mp4", Body=film(3_000_000))["VersionId"]
    s3.put_object(Bucket=IN, Key="film.mp4", Body=b"new")
    found = embedded_in(s3, address, what="the film", pin=Pin(version))
    assert found.document == files.BOTH


def test_a_file_that_would_have_to_be_fetched_whole_is_refused(
    bucket: Counting, s3: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_MOST_BYTES", 100_000)
    monkeypatch.setattr(embedded, "_LARGEST_BYTES", 8192)
    chunks = [(b"abcd", b"\0" * 1000)] * 400
    s3.put_object(Bucket=IN, Key="a.png", Body=files.png(*chunks, (b"tEXt", b"prompt\0" + files.PROMPT.encode())))
    with pytest.raises(InvalidWorkflow, match=r"more to look through .* 100,000 bytes"):
        embedded_in(bucket.client, S3Address(IN, "a.png"), what="the picture")
    assert len(bucket.ranges) < 20


def test_a_file_that_takes_too_long_is_given_up_in_time_for_an_answer(
    bucket: Counting, s3: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert embedded._DEADLINE_S < MAX_WAIT_S
    clock = iter(range(0, 1000, 9))
    monkeypatch.setattr(embedded, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(embedded, "_asked", lambda *_, **__: {"missing": [0, 1]})
    s3.put_object(Bucket=IN, Key="film.mp4", Body=film(10_000))
    with pytest.raises(AssetUnavailable, match="could not be looked through for a workflow in 20 s"):
        embedded_in(bucket.client, S3Address(IN, "film.mp4"), what="the film")
    assert len(bucket.ranges) == 2


def test_what_is_not_there_or_not_allowed_is_told_as_of_any_document(s3: S3Client) -> None:
    with pytest.raises(MissingAsset, match=r"the workflow s3://in-bucket/none\.png does not exist"):
        workflow_document(s3, S3Address(IN, "none.png"), what="the workflow")


def test_a_failure_of_s3_is_one_that_passes(bucket: Counting, s3: S3Client) -> None:
    from botocore.exceptions import EndpointConnectionError

    s3.put_object(Bucket=IN, Key="film.mp4", Body=film(3_000_000))

    def fail() -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    bucket.before = [lambda: None, fail]
    with pytest.raises(AssetUnavailable) as error:
        embedded_in(bucket.client, S3Address(IN, "film.mp4"), what="the film")
    assert error.value.retryable


def test_a_workflow_in_s3_may_be_a_picture_or_json(s3: S3Client) -> None:
    s3.put_object(Bucket=IN, Key="w.json", Body=files.PROMPT)
    s3.put_object(Bucket=IN, Key="w.webp", Body=files.WITH_BOTH["webp"])
    assert workflow_document(s3, S3Address(IN, "w.json"), what="the workflow").document == files.GRAPH
    assert workflow_document(s3, S3Address(IN, "w.webp"), what="the workflow").document == files.BOTH
