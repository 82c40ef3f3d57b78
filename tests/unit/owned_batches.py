"""The API with the `ingest` behind it that reads owners' batches, and a worker that ends jobs, in this process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from comfy_serverless.batches.batch import Batch
from comfy_serverless.batches.store import hold_back
from comfy_serverless.errors import EngineCrashed
from comfy_serverless.handlers import wiring_ingest
from comfy_serverless.jobs.document import Job, JobError, Output
from comfy_serverless.jobs.message import JobMessage
from tests.unit.api_world import ASSETS, RESULTS, Answer, ApiWorld
from tests.unit.batch_world import ended
from tests.unit.jobs_table import REGION, aws
from tests.unit.wired import wired

#: A graph that no node list refuses.
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
LOADS = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "standing.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}
URL = "/api/v2/batches"


def line(number: int, **more: Any) -> dict[str, Any]:
    return {"workflow": GRAPH, "set": {"1.width": number}, **more}


class Batches(ApiWorld):
    """The API's world, with a keeper. Two owners, `team` and `rivals`, ask it."""

    def __init__(self, session: Any, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        sqs = session.client("sqs")
        self.urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("manifests", "batches")}
        queues = {"manifest_queue_url": self.urls["manifests"], "batch_queue_url": self.urls["batches"]}
        super().__init__(session, monkeypatch, **queues, **settings)
        with wired(monkeypatch, self.services.settings):
            # What it asks about lines is made when it is asked, and there is no wiring then.
            self.keeper = replace(
                wiring_ingest.ingest().keeper, named=self.services.named, behind=lambda: self.services
            )

    @property
    def table(self) -> Any:
        return self.services.table

    def post(self, body: Mapping[str, Any], *, owner: str = "team", **more: Any) -> Answer:
        return self.request("POST", URL, body=body, owner=owner, **more)

    def get(self, name: str, *, owner: str = "team") -> Any:
        answer = self.request("GET", f"{URL}/{name}", owner=owner)
        assert answer.status == 200, answer.text
        return answer.json

    def do(self, name: str, action: str, *, owner: str = "team", body: object = None) -> Answer:
        return self.request("POST", f"{URL}/{name}/{action}", owner=owner, body=body)

    def batch(self, name: str, *, owner: str = "team") -> Batch:
        found = self.services.batches.named(owner, name)
        assert found is not None
        return found

    def follow_orders(self) -> None:
        """What `ingest` does with its messages, until there are none."""
        while messages := self.messages(self.urls["manifests"]):
            for message in messages:
                until = float("inf")
                if message.get("resume"):
                    self.keeper.resume(message["batch"], start=message["start"], until=until)
                elif "start" in message:
                    self.keeper.read_or_pass_on(message["batch"], message["start"], until=until)
                else:
                    self.keeper.advance(message["batch"], until=until)

    def look(self, name: str, *, owner: str = "team") -> None:
        """What the caretaker's order does."""
        self.follow_orders()
        self.keeper.advance(self.batch(name, owner=owner).id, until=float("inf"))
        self.follow_orders()

    def work(self, *, failing: frozenset[int] = frozenset()) -> list[tuple[JobMessage, Any]]:
        """What workers do with the messages: each job makes a picture, or fails by its place. Returns the requests."""
        done: list[tuple[JobMessage, Any]] = []
        for text in self.messages(self.urls["batches"]):
            job = JobMessage.parse(json.dumps(text))
            assert job is not None
            if hold_back(self.services.jobs, self.services.batches, job):
                continue
            request = job.read(s3=self.s3, settings=self.services.settings)
            begun = self.services.jobs.begin(job.job_id, run="run")
            if begun.claim.name != "RUN" or begun.state is None:
                continue
            error = JobError.of(EngineCrashed("it died")) if len(done) in failing else None
            done.append((job, request))
            outputs = () if error else (self._made(job.job_id, request),)
            document = ended(job.job_id, error)
            document = Job.model_validate({**document.model_dump(), "outputs": [one.model_dump() for one in outputs]})
            self.services.jobs.put_outputs(begun.state, list(enumerate(outputs)), run="run")
            places = list(range(len(outputs)))
            assert self.services.jobs.finish(job.job_id, document, run="run", webhook=False, places=places)
        return done

    def _made(self, job_id: str, request: Any) -> Output:
        key = f"{request.output.prefix}/{job_id}/2/x.png"
        self.s3.put_object(Bucket=RESULTS, Key=key, Body=job_id.encode())
        return Output(
            node_id="2",
            name="x.png",
            type="image",
            content_type="image/png",
            size_bytes=len(job_id),
            id=f"{job_id}-2",
            job_id=job_id,
            s3_uri=f"s3://{RESULTS}/{key}",
            sha256="0" * 64,
        )

    def upload(self, path: str, content: bytes, *, owner: str = "team") -> str:
        """An uploaded file's id."""
        answer = self.request(
            "POST", "/api/v2/uploads", body={"file_path": path, "size_bytes": len(content)}, owner=owner
        )
        upload = self.services.uploads.get(owner, answer.json["id"])
        address = self.services.uploads.address(upload)
        self.s3.put_object(Bucket=address.bucket, Key=address.key, Body=content)
        return str(answer.json["id"])

    def asset(self, path: str, content: bytes, *, owner: str = "team") -> str:
        """The same, completed."""
        upload_id = self.upload(path, content, owner=owner)
        assert self.request("POST", f"/api/v2/uploads/{upload_id}/complete", owner=owner).status == 201
        return upload_id

    def all_items(self) -> list[dict[str, Any]]:
        """Everything in the table."""
        client = self.services.table._client
        return [dict(item) for item in client.scan(TableName=self.services.table.name)["Items"]]


@contextmanager
def batches_world(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Batches]:
    """The world, from `with` to the end of the block."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with aws() as session, contextlib.ExitStack() as stack:
        world = Batches(session, monkeypatch, **settings)
        stack.callback(world.services.beside.shutdown)
        yield world


__all__ = ["ASSETS", "GRAPH", "LOADS", "RESULTS", "URL", "Batches", "batches_world", "line"]
