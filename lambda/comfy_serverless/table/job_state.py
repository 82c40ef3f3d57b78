"""A job as the table has it, and what follows from its columns. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from comfy_serverless import moments
from comfy_serverless.aws.dynamodb import now_s
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.document import RETENTION, Job, JobStatus, JobUrls, Output, Progress
from comfy_serverless.jobs.keys import RESULT_NAME
from comfy_serverless.jobs.lines import LineAddress
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.outward import outward_job
from comfy_serverless.moments import moment_text
from comfy_serverless.table.job_item import JobItem, Preview
from comfy_serverless.table.usage_items import Account
from comfy_serverless.table.webhook_item import Webhook
from comfy_serverless.tracing import Trace

TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED})


class JobExists(Exception):
    """A job of this id exists already.

    Attributes:
        asked_sha256: of what was asked for under it now (`JobRequest.digest`), if the API has asked.
    """

    asked_sha256: str | None = None


class UsedForAnother(JobExists):
    """The job of this id was made of another request of the same owner."""


class LeaseLost(Exception):
    """The run does not own the job: it has ended, or another run has taken it over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is about to be submitted.

    Attributes:
        request_uri, result_uri: see `JobItem.request` and `JobItem.result`.
        idempotency_key: the caller's key, single-use for 24 h.
        webhook: where its end must be reported, if anywhere.
        batch: the batch it is a line of.
        line: see `JobItem`.
        trace: the span that its run is a child of; None if it is in no trace.
        is_rerunnable, release, version, key_id: see `JobItem`.
        asked_sha256: of what is asked for (`JobRequest.digest`), before names lead anywhere and files have addresses;
            None if the id is one that we have made.
    """

    job_id: str
    owner: str
    request_uri: str
    result_uri: str
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    webhook: Webhook | None = None
    is_rerunnable: bool = True
    release: str | None = None
    batch: str | None = None
    line: str | None = None
    trace: Trace | None = None
    version: int = 1
    key_id: str = ""
    asked_sha256: str | None = None
    created_at: datetime = field(default_factory=moments.now)

    def waiting(self, *, keeper: str, keeper_due: int) -> JobState:
        """The job as it is first written: it waits."""
        created = moment_text(self.created_at)
        return JobState(
            id=self.job_id,
            owner=self.owner,
            status=JobStatus.QUEUED,
            created_at=created,
            updated_at=created,
            created_id=f"{created}#{self.job_id}",
            request=self.request_uri,
            result=self.result_uri,
            labels=dict(self.labels),
            runs=0,
            is_rerunnable=self.is_rerunnable,
            release=self.release,
            # Jobs of batches do not count: a batch may have any number of them.
            open_owner=self.owner if self.batch is None else None,
            webhook={} if self.webhook else None,
            batches=frozenset({self.batch} if self.batch else ()),
            line=self.line,
            expires=int(self.created_at.timestamp() + RETENTION.total_seconds()),
            keeper=keeper,
            keeper_due=keeper_due,
            trace=self.trace.fields() if self.trace else None,
            version=self.version,
            key_id=self.key_id or None,
            asked_sha256=self.asked_sha256,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState(JobItem):
    """A job as the table has it: its columns (see `JobItem`), its outputs and its newest preview, if they were read.

    The outputs are those of the current run, or of the run that counts, in the order of its nodes; `places` are theirs
    among all that the run has made, which they keep.
    """

    outputs: tuple[Output, ...] = ()
    places: tuple[int, ...] = ()
    preview: Preview | None = None

    @property
    def message(self) -> JobMessage:
        """The message that asks a worker for it, without its extra data, which is kept nowhere."""
        address = S3Address.parse(self.request)
        line = LineAddress.parse(address)
        # A line that got its id from us stands beside the manifest.
        batch = min(self.batches, default=None) if line and line.batch_id not in self.batches else None
        return JobMessage(
            job_id=self.id,
            address=address,
            owner=self.owner,
            batch=batch,
            result=S3Address.parse(self.result),
            trace=self.place_in_trace,
            version=self.version,
        )

    @property
    def place_in_trace(self) -> Trace | None:
        """The span that its run, and the call of its webhook, are children of."""
        return Trace.of(self.trace) if self.trace else None

    @property
    def account(self) -> Account:
        """Whom it is counted for when it has ended."""
        return Account.of(self.owner, self.key_id, self.labels)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL

    @property
    def has_webhook(self) -> bool:
        """Whether its end must be reported to an address of its owner."""
        return self.webhook is not None

    @property
    def is_of_batch(self) -> bool:
        """Whether it is a line of a batch, so that no caller waits for it alone."""
        return bool(self.batches)

    @property
    def may_begin(self) -> bool:
        """Whether it waits for a worker, and must not end."""
        return self.is_unbegun and self.status is not JobStatus.CANCELING

    @property
    def is_parked(self) -> bool:
        """Whether it waits, without a message, for its paused batch to be resumed."""
        return self.was_parked and self.is_unbegun

    @property
    def is_unbegun(self) -> bool:
        """Whether it waits for its first worker or for another one."""
        return not self.is_over and self.run is None

    @property
    def waits_in_queue(self) -> bool:
        """Whether it was sent to workers, and none has begun it."""
        return self.keeper is not None and self.keeper.startswith("queued")

    @property
    def lease_ended(self) -> bool:
        """Whether its lease is over: its keeper (worker, queue or webhook) has not acted in time."""
        return self.keeper_due is not None and self.keeper_due < now_s()

    def is_of_another(self, asked_sha256: str | None) -> bool:
        """Whether it is known that it was made of another request than this one: see `NewJob.asked_sha256`."""
        return asked_sha256 is not None and self.asked_sha256 not in (None, asked_sha256)

    def outputs_beside(self, result: str) -> tuple[str, ...] | None:
        """The addresses of its outputs, which are beside its result; None if only their own items say them."""
        if self.output_names is None:
            return None
        folder = result.removesuffix(RESULT_NAME)
        return tuple(folder + name for name in self.output_names.split("\n") if name)

    def document(self) -> Job:
        """The job as the API shows it, without links; its texts are for key holders (`jobs.outward`)."""
        return outward_job(self.whole_document())

    def whole_document(self) -> Job:
        """The same with all that its texts tell the operator."""
        created = datetime.fromisoformat(self.created_at)
        if self.document_json is not None:
            job = Job.model_validate_json(self.document_json)
            started = job.started_at.isoformat() if job.started_at else None
            return job.model_copy(
                update={
                    "outputs": self.outputs,
                    "metadata": self.labels,
                    # The worker's document counts from when it got the job.
                    "created_at": created,
                    "expires_at": created + RETENTION,
                    "metrics": {**(job.metrics or {}), "queue_ms": _between_ms(self.created_at, started)},
                }
            )
        return Job(
            id=self.id,
            status=self.status,
            created_at=created,
            started_at=datetime.fromisoformat(self.started_at) if self.started_at is not None else None,
            expires_at=created + RETENTION,
            progress=Progress.model_validate_json(self.progress_json) if self.progress_json is not None else None,
            outputs=self.outputs,
            metrics={"queue_ms": _between_ms(self.created_at, self.started_at), "execution_ms": None},
            urls=JobUrls.of(self.id),
            metadata=dict(self.labels),
            release_version=self.release_version,
        )


class Claim(Enum):
    """What a worker must do with a job whose message it has received."""

    RUN = auto()
    CANCELED = auto()
    LEAVE = auto()


@dataclass(frozen=True, slots=True)
class Begun:
    """The result of `begin`.

    Attributes:
        claim: RUN: the run owns the job now. CANCELED: it does, but only to end it. LEAVE: the job is over, or another
            run owns it.
        is_last: whether a failure of this run ends the job, also one that another try may cure.
    """

    claim: Claim
    is_last: bool = False
    state: JobState | None = None


def _between_ms(first: str, second: str | None) -> int | None:
    if second is None:
        return None
    return round((datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds() * 1000)
