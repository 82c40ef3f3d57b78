"""Every door that takes a request, over one world of a test: what each makes of it, and says."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.batches.drops import Drops
from comfy_serverless.batches.keeper import Keeper
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.handlers import sagemaker_server, wiring_worker
from comfy_serverless.handlers.events import recognise
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.settings import Settings
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.worker.replies import Replies
from comfy_serverless.worker.worker import Call, Outcome, Worker
from tests.unit import editor_samples
from tests.unit.api_world import ASSETS, RESULTS, ApiWorld, api_world
from tests.unit.event_samples import http_event, s3_event, sqs_event
from tests.unit.fakes import FakeEngine, FakeInputs
from tests.unit.jobs_table import NAME, REGION

DROPS = "drops-bucket"
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}, "_meta": {"title": "Ü"}},
}
LOADER: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "2": GRAPH["2"],
}
UI: dict[str, Any] = {"nodes": [], "links": [], "version": 0.4}
#: What the editor saved, and what becomes of it.
SAVED = editor_samples.plain(prefix="x")
OF_SAVED: dict[str, Any] = {
    "1": {**GRAPH["1"], "inputs": {**GRAPH["1"]["inputs"], "width": 16, "height": 8}, "_meta": {"title": "The canvas"}},
    "2": {**GRAPH["2"], "_meta": {"title": "Save Image"}},
}
WITH_SAVED = {"extra_pnginfo": {"workflow": SAVED}}
PNGINFO = {"extra_pnginfo": {"workflow": UI}}
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 60).decode()


@dataclass(frozen=True)
class Seen:
    """What a door has made of a request: what the engine got; or the code and the words of its refusal."""

    graph: Any = None
    extra_data: Any = None
    inputs: Any = None
    labels: Any = None
    warnings: tuple[str, ...] = ()
    code: str = ""
    message: str = field(default="", compare=False)


class Doors:
    """Every door, and one worker behind them all."""

    def __init__(self, api: ApiWorld, monkeypatch: pytest.MonkeyPatch, workflows: Path) -> None:
        self.api, services = api, api.services
        self.s3 = api.s3
        self.s3.create_bucket(Bucket=DROPS, CreateBucketConfiguration={"LocationConstraint": REGION})
        self._numbers = itertools.count()
        self.engine, self.inputs = FakeEngine(declares=editor_samples.OBJECT_INFO), FakeInputs()
        settings = Settings(output_bucket=RESULTS, assets_bucket=ASSETS, workflows_dir=workflows)
        named = services.named
        self.worker = Worker(settings=settings, engine=self.engine, s3=self.s3, inputs=self.inputs, named=named)
        self.batch_queue, self.own_queue = (
            api.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("batches", "manifests")
        )
        workers = Queues.at(api.job_queue_url, self.batch_queue, sqs=api.sqs)
        self.keeper = Keeper(
            jobs=services.jobs,
            batches=BatchStore(services.table),
            workers=workers,
            own_queue=JobQueue(api.sqs, self.own_queue),
            s3=self.s3,
            settings=settings,
            output_bucket=RESULTS,
            named=named,
        )
        self.drops = Drops(
            jobs=services.jobs, workers=workers, s3=self.s3, settings=settings, assets_bucket=ASSETS, keeper=self.keeper
        )
        self.replies = Replies(self.s3, settings)
        for name, value in {
            "worker": self.worker,
            "replies": self.replies,
            "meter": SimpleNamespace(count=lambda _: None),
            "connector": SimpleNamespace(),
            "node_list": None,
        }.items():
            monkeypatch.setattr(wiring_worker, name, lambda value=value: value)
        monkeypatch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 1e6)  # nobody waits

    def _seen(self, outcome: Outcome) -> Seen:
        outcome.release()
        if outcome.error is not None:
            return Seen(code=outcome.error.code, message=outcome.error.message)
        run, prepared = self.engine.runs[-1], self.inputs.calls[-1]
        labels = {name: value for name, value in outcome.job.metadata.items() if name != "source"}
        return Seen(run["workflow"], run["extra_data"] or {}, prepared["inputs"], labels, outcome.job.warnings)

    def _of_event(self, event: object) -> Seen:
        (source,) = recognise(event).sources()
        return self._seen(self.worker.run(source, Call()))

    def _of_queue(self, url: str) -> Seen:
        (message,) = self._messages(url)
        job = JobMessage.parse(message)
        assert job is not None
        seen = self._seen(self.worker.run(job, Call()))
        self._forget(job.job_id)
        return seen

    def _messages(self, url: str) -> list[str]:
        messages = self.api.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            self.api.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [str(message["Body"]) for message in messages]

    def _forget(self, job_id: str) -> None:
        """The next case may be a job of the same id: that of a line is made of its content."""
        for item in self.s3.list_objects_v2(Bucket=RESULTS, Prefix=f"{job_id}/").get("Contents", []):
            self.s3.delete_object(Bucket=RESULTS, Key=item["Key"])
        table: Any = self.api.services.table
        for kind in ("job", "batch"):
            table._client.delete_item(TableName=NAME, Key={"pk": {"S": f"job#{job_id}"}, "sk": {"S": kind}})

    def direct(self, content: bytes) -> Seen:
        """As Lambda hands over a payload: JSON that is read already."""
        return self._of_event(json.loads(content))

    def text_as_payload(self, content: bytes) -> Seen:
        return self._of_event(content.decode())

    def http(self, content: bytes) -> Seen:
        return self._of_event(http_event(content.decode()))

    def http_of_bytes(self, content: bytes) -> Seen:
        event = http_event("") | {"body": base64.b64encode(content).decode(), "isBase64Encoded": True}
        return self._of_event(event)

    def sqs(self, content: bytes) -> Seen:
        event = sqs_event(content.decode())
        event["Records"][0]["messageId"] = f"message-{next(self._numbers)}"
        return self._of_event(event)

    def sagemaker(self, content: bytes) -> Seen:
        server = sagemaker_server.SageMakerServer(in_flight=1)
        runs = len(self.engine.runs)
        status, document = server.invoke(content, "")
        if status != 200:
            return Seen(code=document["error"]["code"], message=document["error"]["message"])
        assert len(self.engine.runs) == runs + 1
        run, prepared = self.engine.runs[-1], self.inputs.calls[-1]
        warnings = tuple(document["warnings"])
        return Seen(run["workflow"], run["extra_data"] or {}, prepared["inputs"], document["metadata"], warnings)

    def drop_to_the_worker(self, content: bytes) -> Seen:
        key = f"jobs/{next(self._numbers)}.json"
        self.s3.put_object(Bucket=DROPS, Key=key, Body=content)
        return self._of_event(s3_event(key, bucket=DROPS))

    def drop(self, content: bytes) -> Seen:
        dropped = self._put(f"jobs/{next(self._numbers)}.json", content)
        self.drops.drop(dropped)
        return self._of_queue(self.api.job_queue_url) if not self._refused(dropped) else self._refusal(dropped)

    def manifest(self, content: bytes) -> Seen:
        dropped = self._put(f"batches/{next(self._numbers)}.jsonl", content)
        self.drops.drop(dropped)
        if self._refused(dropped):
            return self._refusal(dropped)
        for order in map(json.loads, self._messages(self.own_queue)):
            self.keeper.read_or_pass_on(order["batch"], order["start"], until=float("inf"))
        bad = list(self.keeper.batches.bad_lines(dropped.default_id))
        return Seen(code="invalid_request", message=str(bad)) if bad else self._of_queue(self.batch_queue)

    def generate(self, content: bytes) -> Seen:
        answer = self.api.request("POST", "/generate", body=content)
        if answer.status != 202:
            return Seen(code=answer.code, message=answer.json["error"]["message"])
        return self._of_queue(self.api.job_queue_url)

    def kept_objects(self) -> set[tuple[str, str, str]]:
        """The bucket, key and ETag of everything in our buckets, but the copies of manifests."""
        return {
            (bucket, item["Key"], item["ETag"])
            for bucket in (ASSETS, RESULTS)
            for item in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
            if not item["Key"].startswith("requests/batches/")
        }

    def kept_since(self, before: Collection[tuple[str, str, str]]) -> str:
        """Everything in the table, and what of our buckets was not there `before`."""
        table: Any = self.api.services.table
        kept = [str(table._client.scan(TableName=NAME)["Items"])]
        for bucket, key, _ in self.kept_objects().difference(before):
            kept.append(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode("latin-1"))
        return " ".join(kept)

    def _put(self, key: str, content: bytes) -> DroppedObject:
        version = self.s3.put_object(Bucket=DROPS, Key=key, Body=content)["ETag"]
        return DroppedObject(address=S3Address(DROPS, key), version=version)

    def _refused(self, dropped: DroppedObject) -> bool:
        return "Contents" in self.s3.list_objects_v2(Bucket=RESULTS, Prefix=f"{dropped.default_id}/result.json")

    def _refusal(self, dropped: DroppedObject) -> Seen:
        body = self.s3.get_object(Bucket=RESULTS, Key=f"{dropped.default_id}/result.json")["Body"].read()
        error = json.loads(body)["error"]
        return Seen(code=error["code"], message=error["message"])


BYTES = ("http_of_bytes", "sagemaker", "drop_to_the_worker", "drop", "manifest", "generate")
TEXTS = (*BYTES, "text_as_payload", "http", "sqs")
ALL = (*TEXTS, "direct")


@contextmanager
def opened(folder: Path) -> Iterator[Doors]:
    """The doors of a new world, with some workflows that have names."""
    (folder / "pair.json").write_bytes(json.dumps({"prompt": GRAPH, "workflow": UI}).encode("utf-16"))
    (folder / "[v2] poster.json").write_text(json.dumps(GRAPH))
    (folder / "saved.json").write_text(json.dumps(SAVED))
    with pytest.MonkeyPatch.context() as patch, api_world(patch, workflows_dir=folder) as api:
        yield Doors(api, patch, folder)
