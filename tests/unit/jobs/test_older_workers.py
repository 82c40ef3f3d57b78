"""What this release writes for workers is read by those of the last one too: its own code reads it here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import StoredRequest
from comfy_serverless.settings import Settings
from tests.releases import LAST, unpack
from tests.unit.batch_world import ASSETS, GRAPH, World
from tests.unit.handlers.test_same_request_everywhere import SHAPES
from tests.unit.jobs_table import aws

READER = """
import json, sys
from io import BytesIO
from comfy_serverless.errors import ComfyError
from comfy_serverless.handlers.events import QueuedJob, S3Address
asked = json.load(sys.stdin)
class S3:
    def get_object(self, Bucket, Key, Range=None, **_):
        content = asked["objects"][Key].encode("latin-1")
        first, last = map(int, Range.removeprefix("bytes=").split("-")) if Range else (0, len(content))
        body = content[first : last + 1]
        return {"Body": BytesIO(body), "ContentLength": len(body), "ETag": "e"}
def read(job_id, address):
    try:
        found = QueuedJob(job_id=job_id, address=S3Address.parse(address)).read(s3=S3(), settings=None)
    except ComfyError as error:
        return {"error": error.message}
    return found.model_dump(mode="json", by_alias=True)
json.dump([read(*job) for job in asked["jobs"]], sys.stdout)
"""
PNGINFO: Mapping[str, Any] = {"extra_pnginfo": {"workflow": {"nodes": []}}}
MORE: Mapping[str, object] = {
    "a comma behind it": json.dumps({"workflow": GRAPH}) + ",",
    "a mark before it": "\ufeff" + json.dumps({"workflow": GRAPH}),
    "null": {"workflow": GRAPH, "metadata": None, "deadline_s": None, "output": None},
    "an id that is a number": {"workflow": GRAPH, "job_id": 12},
    "a drawn seed, and data": {
        "workflow": {"3": {"class_type": "KSampler", "inputs": {"seed": -1}}},
        "extra_data": PNGINFO,
    },
    "letters beyond ASCII": {"workflow": GRAPH, "metadata": {"of": "Ünï", "in": 1}},
}

Reader = Callable[[dict[str, bytes], list[tuple[str, str]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def as_last_release(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Has workers of the last release read requests, of objects by their keys and jobs with their addresses."""
    packages = unpack(LAST, tmp_path_factory.mktemp("release"))

    def read(objects: dict[str, bytes], jobs: list[tuple[str, str]]) -> list[dict[str, Any]]:
        asked = json.dumps({"objects": {key: body.decode("latin-1") for key, body in objects.items()}, "jobs": jobs})
        ran = subprocess.run(
            [sys.executable, "-c", READER],
            input=asked,
            env={**os.environ, "PYTHONPATH": str(packages)},
            cwd=packages,
            check=False,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        return list(json.loads(ran.stdout))

    return read


@pytest.fixture
def world() -> Iterator[World]:
    with aws() as session:
        yield World(session)  # no folder: names are left to the workers


def test_a_stored_request_of_any_shape_is_read_by_them(as_last_release: Reader) -> None:
    requests = [
        JobRequest.parse(sent).model_copy(update={"job_id": f"job-{number}"}).with_warnings(["left out"])
        for number, (sent, _, _) in enumerate(SHAPES.values())
    ]
    assert any(request.extra_data for request in requests)
    objects = {f"requests/{one.job_id}.json": StoredRequest(one, one.workflow).to_bytes() for one in requests}
    read = as_last_release(
        objects, [(str(one.job_id), f"s3://{ASSETS}/requests/{one.job_id}.json") for one in requests]
    )
    for name, one, found in zip(SHAPES, requests, read, strict=True):
        assert found == one.model_dump(mode="json", by_alias=True, exclude={"extra_data"}), name
        again = StoredRequest.parse(json.loads(objects[f"requests/{one.job_id}.json"])).request
        assert (again.extra_data, again.warnings) == (one.extra_data, ("left out",)), name


def test_a_line_of_any_shape_is_read_by_them_as_by_us(world: World, as_last_release: Reader) -> None:
    shapes = {name: sent for name, (sent, _, _) in SHAPES.items()} | dict(MORE)
    texts = [sent if name in MORE and isinstance(sent, str) else json.dumps(sent) for name, sent in shapes.items()]
    batch = world.begin("\n".join(texts).encode())
    world.read_all()
    assert list(world.batches.bad_lines(batch.id)) == []
    jobs = [JobMessage.parse(json.dumps(message)) for message in world.messages("batches")]
    ours = {job.job_id: (str(job.address), job.read(s3=world.s3, settings=Settings())) for job in jobs if job}
    keys = [one["Key"] for one in world.s3.list_objects_v2(Bucket=ASSETS)["Contents"]]
    objects = {key: world.s3.get_object(Bucket=ASSETS, Key=key)["Body"].read() for key in keys}
    read = as_last_release(objects, [(job_id, address) for job_id, (address, _) in ours.items()])
    for found, (_, request) in zip(read, ours.values(), strict=True):
        assert found == request.model_dump(mode="json", by_alias=True, exclude={"extra_data"})
    expected = [JobRequest.parse(json.loads(text.lstrip("\ufeff").rstrip(","))) for text in texts]
    wanted = {json.dumps([one.extra_data, one.warnings, one.metadata], sort_keys=True) for one in expected}
    got = {json.dumps([one.extra_data, one.warnings, one.metadata], sort_keys=True) for _, one in ours.values()}
    assert got == wanted, "and ours lose nothing of it"


def test_lines_that_they_know_are_read_where_they_stand(world: World) -> None:
    plain = [{"workflow": GRAPH}, GRAPH, {"workflow": GRAPH, "set": {"1.width": 9}, "metadata": {"a": "b"}}]
    world.begin("\n".join(map(json.dumps, plain)).encode())
    world.read_all()
    assert len(world.messages("batches")) == 3
    keys = [one["Key"] for one in world.s3.list_objects_v2(Bucket=ASSETS)["Contents"]]
    assert len(keys) == 1, keys


UNHASHED = {"workflow": GRAPH, "models": [{"url": "https://example.com/a.safetensors", "folder": "vae"}]}


def test_a_model_without_a_hash_is_refused_by_them_and_its_version_says_so_to_later_ones(
    as_last_release: Reader,
) -> None:
    request = JobRequest.parse({**UNHASHED, "job_id": "job-1"})
    stored = StoredRequest(request, request.workflow).to_bytes()
    [found] = as_last_release({"requests/a.json": stored}, [("job-1", f"s3://{ASSETS}/requests/a.json")])
    assert "models.0.sha256" in found["error"], "0.1.0 knows of no versions: it refuses, and runs nothing wrong"
    assert json.loads(stored)["version"] == 2
    assert StoredRequest.parse(json.loads(stored)).request.models == request.models


def test_a_line_with_such_a_model_says_so_in_its_message(world: World) -> None:
    world.begin("\n".join(map(json.dumps, [UNHASHED, {"workflow": GRAPH}])).encode())
    world.read_all()
    assert sorted(message.get("version", 1) for message in world.messages("batches")) == [1, 2]
