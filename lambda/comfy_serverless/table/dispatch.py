"""Sends jobs to the workers that DISPATCH_PARAMETER names.

    DISPATCH_PARAMETER ──► a queue of SQS, with Lambda functions behind it (our own, or those of a GPU stack)
                      └──► a SageMaker endpoint, with two queues and a gate before it (`table.gate`)

    {"backend": "sagemaker", "endpoint_name": …, "job_queue_url": …, "batch_queue_url": …, "image": …}
    {"backend": "queue", "job_queue_url": …, "batch_queue_url": …, "image": …}

`image` names the workers' image (`WORKER_IMAGE`), and a `release_version` beside it what that was built from; stacks of
older releases do not say them. A GPU stack (`infra/`) writes
that parameter, and is seen within a minute: nothing is deployed again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, Self

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import error_code
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.observability import log

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

#: How long it may take until a GPU stack, or its end, is seen, in seconds.
TARGET_KNOWN_S = 60.0
#: How long SageMaker lets an invocation wait, and last, at most, in seconds. The worker itself keeps deadlines.
REQUEST_TTL_S, INVOCATION_TIMEOUT_S = 6 * 3600, 3600
#: The error codes of missing endpoints (and of other mistakes), and of missing queues.
_GONE = frozenset(
    {"ValidationError", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue"}
)
#: The name of an invocation's output, below the endpoint's output path and the job's id.
ANSWER_NAME = "answer.json"


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """An endpoint of SageMaker, and the queues before it.

    Attributes:
        job_queue_url: empty if a GPU stack of the release before has written it: callers' jobs go straight to its
            endpoint.
    """

    endpoint_name: str
    batch_queue_url: str
    job_queue_url: str = ""
    image: str = ""
    release_version: str = ""

    def to_text(self) -> str:
        """The parameter's value."""
        return _target_text("sagemaker", asdict(self))


@dataclass(frozen=True, slots=True)
class QueueTarget:
    """Two queues with Lambda functions behind them."""

    job_queue_url: str
    batch_queue_url: str
    image: str = ""
    release_version: str = ""

    def to_text(self) -> str:
        """The parameter's value."""
        return _target_text("queue", asdict(self))


def _target_text(backend: str, fields: Mapping[str, str | None]) -> str:
    return json.dumps({"backend": backend, **{name: value for name, value in fields.items() if value}})


def parse_target(text: str) -> EndpointTarget | QueueTarget:
    """Read the parameter's value; further fields are ignored. Raises InvalidSetting if it is neither of the two."""
    try:
        match fields := json.loads(text):
            case {"backend": "sagemaker", "endpoint_name": str(name), "batch_queue_url": str(batch_url)}:
                return EndpointTarget(name, batch_url, str(fields.get("job_queue_url", "")), *_build_of(fields))
            case {"backend": "queue", "job_queue_url": str(url), "batch_queue_url": str(batch_url)}:
                return QueueTarget(url, batch_url, *_build_of(fields))
    except ValueError:
        pass
    raise InvalidSetting(
        f"the parameter of DISPATCH_PARAMETER holds {text[:200]!r}; it must be "
        '{"backend": "sagemaker", "endpoint_name": …, "job_queue_url": …, "batch_queue_url": …} or '
        '{"backend": "queue", "job_queue_url": …, "batch_queue_url": …}'
    )


def _build_of(fields: Mapping[str, object]) -> tuple[str, str]:
    """The workers' image, and what it was built from, as far as a target says it."""
    return str(fields.get("image", "")), str(fields.get("release_version", ""))


class Workers(Protocol):
    """The workers that run jobs, behind a queue or an endpoint."""

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        """Send them a job.

        Args:
            delay_s: how long the message stays invisible, if that is possible.
            is_batch: whether it is a job of a batch: jobs that a caller waits for go first.
        """

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        """Send them jobs of a batch, in as few calls as possible."""
        for message in messages:
            self.send(message, is_batch=True)

    def depth(self, *, is_batch: bool = False) -> int:
        """How many jobs wait, about: jobs of batches, or those that a caller waits for."""

    def may_hold(self, *, is_batch: bool = False) -> bool:  # noqa: ARG002
        """Whether invisible messages may wait for a machine, which can take hours with GPUs."""
        return False

    def worker_image(self) -> str:
        """The name of their image, which says what nodes they have; "" if it is not known."""
        return ""

    def release_version(self) -> str:
        """What that image was built from: one build has the same nodes for good; "" if it is not known."""
        return ""


@dataclass(frozen=True, slots=True)
class Queues(Workers):
    """Two queues of SQS: workers take from both, so that a large batch does not delay other jobs.

    Attributes:
        is_slow: whether Lambda may have to find a machine first. It keeps the messages meanwhile, and hides them.
        image, release: see `worker_image` and `release_version`.
    """

    jobs: JobQueue
    batches: JobQueue
    is_slow: bool = False
    image: str = ""
    release: str = ""

    @classmethod
    def at(
        cls,
        url: str,
        batch_url: str | None,
        *,
        sqs: SQSClient,
        is_slow: bool = False,
        image: str = "",
        release: str = "",
    ) -> Self:
        """The queues with these addresses; without the second, one queue has all jobs."""
        jobs = JobQueue(sqs, url)
        return cls(jobs, JobQueue(sqs, batch_url) if batch_url else jobs, is_slow, image, release)

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        self._queue(is_batch).send(message.to_text(), tenant=message.owner_name, delay_s=delay_s)

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        self.batches.send_many([(message.owner_name, message.to_text()) for message in messages])

    def depth(self, *, is_batch: bool = False) -> int:
        return self._queue(is_batch).depth()

    def may_hold(self, *, is_batch: bool = False) -> bool:
        return self.is_slow and self._queue(is_batch).hidden() > 0

    def worker_image(self) -> str:
        return self.image

    def release_version(self) -> str:
        return self.release

    def _queue(self, is_batch: bool) -> JobQueue:
        return self.batches if is_batch else self.jobs


@dataclass(slots=True)
class Endpoint(Workers):
    """An asynchronous endpoint of SageMaker."""

    runtime: SageMakerRuntimeClient
    metrics: CloudWatchClient
    name: str
    _depth: int = 0
    _depth_at: float = field(default=-TARGET_KNOWN_S)

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:  # noqa: ARG002  (SageMaker has neither)
        """See `Workers`. The message has a few hundred bytes, so that it is always sent inline."""
        self.runtime.invoke_endpoint_async(
            EndpointName=self.name,
            ContentType="application/json",
            Accept="application/json",
            Body=message.to_text().encode(),
            InferenceId=message.job_id,
            RequestTTLSeconds=REQUEST_TTL_S,
            InvocationTimeoutSeconds=INVOCATION_TIMEOUT_S,
            S3OutputPathExtension=message.job_id,
            Filename=ANSWER_NAME,
        )

    def depth(self, *, is_batch: bool = False) -> int:  # noqa: ARG002
        """How many invocations wait or are with a container: CloudWatch's newest figure, a minute or two old."""
        if time.monotonic() - self._depth_at >= TARGET_KNOWN_S:
            now = datetime.now(UTC)
            answer = self.metrics.get_metric_statistics(
                Namespace="AWS/SageMaker",
                MetricName="ApproximateBacklogSize",
                Dimensions=[{"Name": "EndpointName", "Value": self.name}],
                StartTime=now - timedelta(minutes=5),
                EndTime=now + timedelta(minutes=1),  # the end is exclusive
                Period=60,
                Statistics=["Maximum"],
            )
            points = sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])
            self._depth = int(points[-1]["Maximum"]) if points else 0
            self._depth_at = time.monotonic()
        return self._depth


@dataclass(frozen=True, slots=True)
class Gated(Workers):
    """An endpoint, and queues before it: `table.gate` lets as many jobs pass as it can run.

    Attributes:
        jobs: None if callers' jobs go straight to the endpoint (see `EndpointTarget`).
    """

    endpoint: Endpoint
    batches: JobQueue
    jobs: JobQueue | None
    image: str = ""
    release: str = ""

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        if (queue := self._queue(is_batch)) is not None:
            queue.send(message.to_text(), tenant=message.owner_name, delay_s=delay_s)
        else:
            self.endpoint.send(message)

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        self.batches.send_many([(message.owner_name, message.to_text()) for message in messages])

    def depth(self, *, is_batch: bool = False) -> int:
        """See `Workers`. A job may wait in the endpoint or before it."""
        queue = self._queue(is_batch)
        return self.endpoint.depth() + (queue.depth() if queue is not None else 0)

    def _queue(self, is_batch: bool) -> JobQueue | None:
        return self.batches if is_batch else self.jobs

    def worker_image(self) -> str:
        return self.image

    def release_version(self) -> str:
        return self.release


@dataclass(slots=True)
class Switch(Workers):
    """The workers that the parameter names now, or without it our own queues. `endpoint` returns that of a name."""

    own: Queues
    parameter: str
    ssm: SSMClient
    endpoint: Callable[[str], Endpoint]
    _target: Workers | None = None
    _value: str = ""
    _known_at: float = field(default=-TARGET_KNOWN_S)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        self._to_target(lambda target: target.send(message, delay_s=delay_s, is_batch=is_batch))

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        self._to_target(lambda target: target.send_many(messages))

    def depth(self, *, is_batch: bool = False) -> int:
        return self.target().depth(is_batch=is_batch)

    def may_hold(self, *, is_batch: bool = False) -> bool:
        return self.target().may_hold(is_batch=is_batch)

    def worker_image(self) -> str:
        return self.target().worker_image()

    def release_version(self) -> str:
        return self.target().release_version()

    def target(self) -> Workers:
        """The workers that the parameter names; it is read again once a minute."""
        with self._reading:  # once, for threads that ask at the same time
            if self._target is None or time.monotonic() - self._known_at >= TARGET_KNOWN_S:
                self._read()
            return self._target or self.own

    def _to_target(self, send: Callable[[Workers], None]) -> None:
        """Send to the target; if it has gone within the last minute, another may have replaced it."""
        target = self.target()
        try:
            send(target)
        except ClientError as error:
            if error_code(error) not in _GONE:
                raise
            with self._reading:
                self._read()
            if self.target() is target:
                raise
            send(self.target())

    def _read(self) -> None:
        try:
            value = self.ssm.get_parameter(Name=self.parameter)["Parameter"]["Value"]
        except (ClientError, BotoCoreError) as error:
            if error_code(error) == "ParameterNotFound":
                value = ""
            elif self._target is None:
                raise
            else:
                log.warning("where jobs run cannot be read: it stays as it was", exc_info=True)
                value = self._value
        if self._target is None or value != self._value:
            match parse_target(value) if value else None:
                case EndpointTarget(name, batch_url, job_url, image, release):
                    sqs = self.own.jobs.sqs
                    jobs = JobQueue(sqs, job_url) if job_url else None
                    self._target = Gated(self.endpoint(name), JobQueue(sqs, batch_url), jobs, image, release)
                case QueueTarget(url, batch_url, image, release):
                    sqs = self.own.jobs.sqs
                    self._target = Queues.at(url, batch_url, sqs=sqs, is_slow=True, image=image, release=release)
                case None:
                    self._target = self.own
            self._value = value
        self._known_at = time.monotonic()
