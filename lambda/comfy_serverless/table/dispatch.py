"""Where a job is sent to be run.

    DISPATCH_PARAMETER tells ──► a queue of SQS, with Lambda functions behind it (our own, or those of a GPU stack)
                            └──► a SageMaker endpoint, with a queue of its own

A GPU stack announces itself by writing that parameter, and is seen within a minute: nothing is deployed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, Self

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import error_code
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.observability import log
from comfy_serverless.table.target import EndpointTarget, QueueTarget, parse_target

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

#: How long it may take until a GPU stack is seen, or seen to be gone, in seconds.
TARGET_KNOWN_S = 60.0
#: The longest SageMaker keeps an invocation waiting, and lets one last, in seconds. Deadlines are the worker's to keep.
REQUEST_TTL_S, INVOCATION_TIMEOUT_S = 6 * 3600, 3600
#: What is said of an endpoint (of other mistakes, too) and of queues that are not there.
_GONE = frozenset(
    {"ValidationError", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue"}
)
#: What an invocation's answer is called, below the endpoint's output path and the job's id.
ANSWER_NAME = "answer.json"


class Workers(Protocol):
    """Whoever runs jobs, as far away as a queue is."""

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        """Send them a job.

        Args:
            delay_s: how long nobody sees it yet, where that can be.
            is_batch: whether nobody waits for this very one: those who do go first.
        """

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        """Send them jobs of a batch, in as few calls as there can be."""

    def depth(self, *, is_batch: bool = False) -> int:
        """How many jobs wait, about; of batches, or of those that are waited for."""

    def may_hold(self, *, is_batch: bool = False) -> bool:
        """Whether messages that nobody sees may wait for a machine: with GPUs, that can take hours."""


@dataclass(frozen=True, slots=True)
class Queues:
    """Two queues of SQS: whoever works takes from both, so that a large batch is in nobody's way.

    Attributes:
        is_slow: whether Lambda may have to find a machine first. It keeps the messages meanwhile, and hides them.
    """

    jobs: JobQueue
    batches: JobQueue
    is_slow: bool = False

    @classmethod
    def at(cls, url: str, batch_url: str | None, *, sqs: SQSClient, is_slow: bool = False) -> Self:
        """The queues with these addresses; without the second there is one for everything."""
        jobs = JobQueue(sqs, url)
        return cls(jobs, JobQueue(sqs, batch_url) if batch_url else jobs, is_slow)

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        """See `Workers`."""
        self._queue(is_batch).send(message.to_text(), delay_s=delay_s)

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        """See `Workers`."""
        self.batches.send_many([message.to_text() for message in messages])

    def depth(self, *, is_batch: bool = False) -> int:
        """See `Workers`."""
        return self._queue(is_batch).depth()

    def may_hold(self, *, is_batch: bool = False) -> bool:
        """See `Workers`."""
        return self.is_slow and self._queue(is_batch).hidden() > 0

    def _queue(self, is_batch: bool) -> JobQueue:
        return self.batches if is_batch else self.jobs


@dataclass(slots=True)
class Endpoint:
    """An asynchronous endpoint of SageMaker."""

    runtime: SageMakerRuntimeClient
    metrics: CloudWatchClient
    name: str
    _depth: int = 0
    _depth_at: float = field(default=-TARGET_KNOWN_S)

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:  # noqa: ARG002  (SageMaker has neither)
        """See `Workers`. The message is a few hundred bytes, so that it always travels inline."""
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

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        """See `Workers`."""
        for message in messages:
            self.send(message)

    def depth(self, *, is_batch: bool = False) -> int:  # noqa: ARG002
        """How many invocations wait or are with a container: CloudWatch's newest figure, a minute or two old."""
        if time.monotonic() - self._depth_at >= TARGET_KNOWN_S:
            now = datetime.now(UTC)
            answer = self.metrics.get_metric_statistics(
                Namespace="AWS/SageMaker",
                MetricName="ApproximateBacklogSize",
                Dimensions=[{"Name": "EndpointName", "Value": self.name}],
                StartTime=now - timedelta(minutes=5),
                EndTime=now + timedelta(minutes=1),  # which does not belong to it
                Period=60,
                Statistics=["Maximum"],
            )
            points = sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])
            self._depth = int(points[-1]["Maximum"]) if points else 0
            self._depth_at = time.monotonic()
        return self._depth

    def may_hold(self, *, is_batch: bool = False) -> bool:  # noqa: ARG002
        """No: what waits for an instance is counted by `depth`."""
        return False


@dataclass(frozen=True, slots=True)
class Batched:
    """An endpoint, and a queue before it for jobs of batches: `handlers/forward` lets through as many as it can run."""

    endpoint: Endpoint
    batches: JobQueue

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        """See `Workers`."""
        if is_batch:
            self.batches.send(message.to_text(), delay_s=delay_s)
        else:
            self.endpoint.send(message)

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        """See `Workers`."""
        self.batches.send_many([message.to_text() for message in messages])

    def depth(self, *, is_batch: bool = False) -> int:
        """See `Workers`. A job of a batch may wait in either."""
        return self.endpoint.depth() + (self.batches.depth() if is_batch else 0)

    def may_hold(self, *, is_batch: bool = False) -> bool:  # noqa: ARG002
        """See `Endpoint`."""
        return False


@dataclass(slots=True)
class Switch:
    """Whoever runs jobs now: as the parameter says, or without it our own queues.

    Attributes:
        endpoint: returns the endpoint of a name.
    """

    own: Queues
    parameter: str
    ssm: SSMClient
    endpoint: Callable[[str], Endpoint]
    _target: Workers | None = None
    _value: str = ""
    _known_at: float = field(default=-TARGET_KNOWN_S)

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        """See `Workers`."""
        self._to_target(lambda target: target.send(message, delay_s=delay_s, is_batch=is_batch))

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        """See `Workers`."""
        self._to_target(lambda target: target.send_many(messages))

    def depth(self, *, is_batch: bool = False) -> int:
        """See `Workers`."""
        return self.target().depth(is_batch=is_batch)

    def may_hold(self, *, is_batch: bool = False) -> bool:
        """See `Workers`."""
        return self.target().may_hold(is_batch=is_batch)

    def target(self) -> Workers:
        """Who it is; asked again once a minute."""
        if self._target is None or time.monotonic() - self._known_at >= TARGET_KNOWN_S:
            self._look()
        return self._target or self.own

    def _to_target(self, send: Callable[[Workers], None]) -> None:
        """Send to whoever it is; what has gone within the last minute may have another in its place."""
        target = self.target()
        try:
            send(target)
        except ClientError as error:
            if error_code(error) not in _GONE:
                raise
            self._look()
            if self.target() is target:
                raise
            send(self.target())

    def _look(self) -> None:
        try:
            value = self.ssm.get_parameter(Name=self.parameter)["Parameter"]["Value"]
        except (ClientError, BotoCoreError) as error:
            if error_code(error) == "ParameterNotFound":
                value = ""
            elif self._target is None:
                raise
            else:
                log.warning("where jobs are to be run cannot be read: it stays as it was", exc_info=True)
                value = self._value
        if self._target is None or value != self._value:
            self._target = self._workers_at(parse_target(value)) if value else self.own
            self._value = value
        self._known_at = time.monotonic()

    def _workers_at(self, target: EndpointTarget | QueueTarget) -> Workers:
        """The workers that the parameter names."""
        match target:
            case EndpointTarget(name, batch_url):
                return Batched(self.endpoint(name), JobQueue(self.own.jobs.sqs, batch_url))
            case QueueTarget(url, batch_url):
                return Queues.at(url, batch_url, sqs=self.own.jobs.sqs, is_slow=True)
