"""An ingest with everything behind it, and a worker that ends jobs, in this process."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import EndpointConnectionError

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import JobQueue, WebhookQueue
from comfy_serverless.batches.batch import Batch
from comfy_serverless.batches.drops import Drops
from comfy_serverless.batches.fates import fates
from comfy_serverless.batches.keeper import Keeper
from comfy_serverless.batches.store import BatchStore, hold_back
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.jobs.document import Job, JobError, JobStatus, JobUrls
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.reserved import Reserved
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.settings import Settings
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.table.jobs import JobStore
from comfy_serverless.worker.journal import Journal
from tests.unit.fakes import files_in
from tests.unit.jobs_table import REGION, create_table

DROPS, ASSETS, RESULTS = "drops-bucket", "assets-bucket", "results-bucket"
GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}, "2": {"class_type": "SaveImage", "inputs": {}}}


class Clock:
    """Moves on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def job_of(message: object) -> JobMessage:
    """The job that a message of a queue tells a worker to run."""
    job = JobMessage.parse(json.dumps(message))
    assert job is not None
    return job


class World:
    """An ingest with everything behind it, a worker that ends jobs, and AWS calls that can be made to fail."""

    def __init__(self, session: Any, **options: Any) -> None:
        self.table, self.calls = create_table(session)
        self.s3, self.sqs = session.client("s3"), session.client("sqs")
        for bucket in (DROPS, ASSETS, RESULTS):
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        names = ("jobs", "batches", "manifests", "webhooks")
        self.urls = {name: self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in names}
        self.jobs = JobStore(self.table, lease_s=30, max_runs=3)
        self.batches = BatchStore(self.table)
        workers = Queues.at(self.urls["jobs"], self.urls["batches"], sqs=self.sqs)
        settings = Settings(output_bucket=RESULTS, assets_bucket=ASSETS, **options)
        self.keeper = Keeper(
            jobs=self.jobs,
            batches=self.batches,
            workers=workers,
            own_queue=JobQueue(self.sqs, self.urls["manifests"]),
            s3=self.s3,
            settings=settings,
            output_bucket=RESULTS,
            named=files_in(settings.workflows_dir),
        )
        self.drops = Drops(
            jobs=self.jobs, workers=workers, s3=self.s3, settings=settings, assets_bucket=ASSETS, keeper=self.keeper
        )
        self.journal = Journal(
            self.jobs, workers, WebhookQueue(self.sqs, None), partial(hold_back, self.jobs, self.batches)
        )
        self.clients = [self.table._client, self.s3, self.sqs]

    def drop(self, key: str, content: bytes) -> DroppedObject:
        version = self.s3.put_object(Bucket=DROPS, Key=key, Body=content)["ETag"]
        return DroppedObject(address=S3Address(DROPS, key), version=version)

    def begin(self, content: bytes, key: str = "batches/many.jsonl") -> Batch:
        return self.drops.begin_batch(self.drop(key, content))

    def drop_surely(self, key: str, content: bytes) -> DroppedObject:
        while True:
            try:
                return self.drop(key, content)
            except EndpointConnectionError:
                continue

    @staticmethod
    def attempt(action: Any) -> None:
        """As Lambda does it: what fails is tried again later, by whoever looks after it."""
        with contextlib.suppress(EndpointConnectionError):
            action()

    def open_jobs(self, batch: Batch) -> list[Any]:
        states = [
            fate.state
            for part in self.batches.ranges(batch.id)
            for chunk in fates(self.s3, self.jobs, batch, part, reserved=Reserved.of(Settings()))
            for fate in chunk.lines
            if fate.state is not None
        ]
        return [state for state in states if not state.is_over]

    def requeue(self, messages: list[Any]) -> None:
        self.keeper.workers.send_many(
            [JobMessage(job_id=message["job"], address=S3Address.parse(message["request"])) for message in messages]
        )

    def messages(self, name: str) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = self.sqs.receive_message(QueueUrl=self.urls[name], MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return found
            for message in answer["Messages"]:
                self.sqs.delete_message(QueueUrl=self.urls[name], ReceiptHandle=message["ReceiptHandle"])
                found.append(json.loads(message["Body"]))

    def read_all(self) -> None:
        while messages := self.messages("manifests"):
            for message in messages:
                if "start" in message:
                    self.keeper.read_or_pass_on(message["batch"], message["start"], until=float("inf"))

    def work(self, *, failing: int = 0, some: int = 10**9) -> list[str]:
        """What workers do with the messages; every `failing`-th job fails. Answers the jobs that ran."""
        ran: list[str] = []
        for message in self.messages("batches")[:some]:
            job = JobMessage(job_id=message["job"], address=S3Address.parse(message["request"]))
            assert job.read(s3=self.s3, settings=self.keeper.settings).job_id == job.job_id
            if hold_back(self.jobs, self.batches, job):
                continue
            begun = self.jobs.begin(job.job_id, run="run")
            if begun.claim.name != "RUN" or begun.state is None:
                continue
            ran.append(job.job_id)
            error = JobError.of(NodeExecutionError("no")) if failing and len(ran) % failing == 0 else None
            assert self.jobs.finish(job.job_id, ended(job.job_id, error), run="run", webhook=False, places=())
        return ran

    def look(self, batch: Batch) -> Batch:
        self.keeper.advance(batch.id, until=float("inf"))
        found = self.batches.get(batch.id)
        assert found is not None
        return found

    def report(self, batch: Batch) -> tuple[dict[str, Any], list[dict[str, str]], list[dict[str, Any]]]:
        def text(kind: str) -> str:
            content: bytes = self.s3.get_object(Bucket=RESULTS, Key=f"batches/{batch.id}.{kind}")["Body"].read()
            return content.decode()

        rows = list(csv.DictReader(io.StringIO(text("report.csv"))))
        return json.loads(text("report.json")), rows, [json.loads(line) for line in text("failed.jsonl").splitlines()]


def ended(job_id: str, error: JobError | None) -> Job:
    now = datetime.now(UTC)
    return Job(
        id=job_id,
        status=JobStatus.FAILED if error else JobStatus.SUCCEEDED,
        created_at=now,
        started_at=now,
        completed_at=now,
        expires_at=now + timedelta(days=30),
        error=error,
        urls=JobUrls.of(job_id),
    )


def manifest(count: int, *, bad: int = 0, first: int = 0) -> bytes:
    """So many good lines, and bad ones among them."""
    lines = [json.dumps({"workflow": GRAPH, "set": {"1.width": number}}) for number in range(first, first + count)]
    chance = random.Random(7)
    for number in range(bad):
        lines.insert(chance.randrange(len(lines) + 1), ["{", "[]", '{"workflow": 1}', "nonsense"][number % 4])
    return "\n".join(lines).encode()
