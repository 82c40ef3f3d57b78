"""A job as the table has it, and what can be asked and answered about it. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from comfy_serverless.aws.dynamodb import Item, now_s
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.document import RETENTION, Job, JobStatus, JobUrls, Output, Progress
from comfy_serverless.jobs.message import JobMessage

TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED})


class JobExists(Exception):
    """There is a job of this id already."""


class LeaseLost(Exception):
    """The run does not own the job (any more): it has ended, or another run has taken it over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is about to be submitted.

    Attributes:
        request_uri: where the request is kept, for the worker, and the workflow with it.
        result_uri: where the worker writes how it ended, before the table has it.
        idempotency_key: of the caller, single-use for 24 h.
        webhook: `{"url": …, "secret": …}`, or None.
        batch: the batch it is a line of.
        is_rerunnable: whether the request that is kept has all the worker needs; a key for partner nodes is not kept.
    """

    job_id: str
    owner: str
    request_uri: str
    result_uri: str
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    webhook: Mapping[str, str] | None = None
    is_rerunnable: bool = True
    batch: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as the table has it.

    Attributes:
        head: the item of the job itself.
        outputs: what the run in hand, or the one that counts, has delivered, in the order of its nodes.
        preview: the newest preview, where it was asked for.
    """

    head: Item
    outputs: tuple[Output, ...] = ()
    preview: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.head["id"])

    @property
    def message(self) -> JobMessage:
        """What asks a worker for it, without what is kept nowhere."""
        return JobMessage(job_id=self.id, address=S3Address.parse(self.head["request"]))

    @property
    def owner(self) -> str:
        """Whose it is."""
        return str(self.head["owner"])

    @property
    def status(self) -> JobStatus:
        """The Comfy API's state."""
        return JobStatus(self.head["status"])

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL

    @property
    def runs(self) -> int:
        """How often it has been begun."""
        return int(self.head.get("runs", 0))

    @property
    def is_of_batch(self) -> bool:
        """Whether nobody waits for it alone."""
        return "batches" in self.head

    @property
    def may_begin(self) -> bool:
        """Whether it waits for a worker, and is not to end."""
        return self.is_unbegun and self.status is not JobStatus.CANCELING

    @property
    def is_parked(self) -> bool:
        """Whether it waits, without a message, for its paused batch to go on."""
        return "is_parked" in self.head and self.is_unbegun

    @property
    def batches(self) -> frozenset[str]:
        """The batches it is a line of: the same line in two of them is one job."""
        return frozenset(self.head.get("batches", ()))

    @property
    def is_unbegun(self) -> bool:
        """Whether it waits for a worker, the first or another."""
        return not self.is_over and "run" not in self.head

    @property
    def waits_in_queue(self) -> bool:
        """Whether it was sent to workers, and none has begun it."""
        return str(self.head.get("lease", "")).startswith("queued")

    @property
    def webhook(self) -> Mapping[str, str] | None:
        """Where its end is to be told, with the secret that signs it."""
        return self.head.get("webhook")

    @property
    def lease_ended(self) -> bool:
        """Whether somebody should have dealt with it, and has not: a worker, the queue, or the webhook."""
        return int(self.head.get("lease_until", now_s())) < now_s()

    def document(self) -> Job:
        """The job as the API answers it, without links."""
        head = self.head
        created = datetime.fromisoformat(head["created_at"])
        if "document" in head:
            job = Job.model_validate_json(head["document"])
            started = job.started_at.isoformat() if job.started_at else None
            return job.model_copy(
                update={
                    "outputs": self.outputs,
                    "metadata": head.get("labels", {}),
                    # The worker's document counts from when it got the job.
                    "created_at": created,
                    "expires_at": created + RETENTION,
                    "metrics": {**(job.metrics or {}), "queue_ms": _between_ms(head["created_at"], started)},
                }
            )
        return Job(
            id=self.id,
            status=self.status,
            created_at=created,
            started_at=head.get("started_at"),
            expires_at=created + RETENTION,
            progress=Progress.model_validate_json(head["progress"]) if "progress" in head else None,
            outputs=self.outputs,
            metrics={"queue_ms": _between_ms(head["created_at"], head.get("started_at")), "execution_ms": None},
            urls=JobUrls.of(self.id),
            metadata=head.get("labels", {}),
        )


class Claim(Enum):
    """What a worker that has got a job's message is to do."""

    RUN = auto()
    CANCELED = auto()
    LEAVE = auto()


@dataclass(frozen=True, slots=True)
class Begun:
    """The answer to `begin`.

    Attributes:
        claim: RUN: the job is this run's now. CANCELED: it is, but only to be ended. LEAVE: it is over, or somebody
            else's.
        is_last: whether a failure of this run is the job's, also one that another try may cure.
    """

    claim: Claim
    is_last: bool = False
    state: JobState | None = None


def _between_ms(first: str, second: str | None) -> int | None:
    if second is None:
        return None
    return round((datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds() * 1000)
