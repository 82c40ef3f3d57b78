"""Sends jobs to the workers that DISPATCH_PARAMETER names, or the parameter `live` beside it (`table.live`).

    live, else DISPATCH_PARAMETER ──► a queue of SQS, with Lambda functions behind it (our own, or those of a GPU stack)
                                 └──► a SageMaker endpoint, with two queues and a gate before it (`table.gate`)

`table.target` says what stands in the parameters. A GPU stack (`infra/`) writes the one, `comfy-serverless release` the
other, and both are seen within a minute: nothing is deployed again. Whose queues are gone is passed over, and told:

    live, and the releases before it ──► DISPATCH_PARAMETER ──► our own

A message stays in the queue that it was sent to: jobs in flight end where they began, as long as there are workers
there. What the caretaker sends again goes where jobs go now: its worker, or its message, is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import error_code
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.errors import InvalidSetting, Kind
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.observability import emit_failure, log
from comfy_serverless.table.live import DEFAULT, NAME, Live, Release, live_parameter
from comfy_serverless.table.target import EndpointTarget, QueueTarget, parse_target
from comfy_serverless.table.workers import Workers

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

T = TypeVar("T")

#: How long it may take until a GPU stack, or its end, is seen, in seconds.
TARGET_KNOWN_S = 60.0
#: How long SageMaker lets an invocation wait, and last, at most, in seconds. The worker itself keeps deadlines.
REQUEST_TTL_S, INVOCATION_TIMEOUT_S = 6 * 3600, 3600
#: What a live release whose queues are gone counts as among the failures, once a minute for each process.
RELEASE_GONE = "release_gone"
#: The error codes of missing endpoints (and of other mistakes), and of missing queues.
_GONE = frozenset(
    {"ValidationError", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue"}
)
#: The name of an invocation's output, below the endpoint's output path and the job's id.
ANSWER_NAME = "answer.json"


@dataclass(frozen=True, slots=True)
class Queues(Workers):
    """Two queues of SQS: workers take from both, so that a large batch does not delay other jobs.

    Attributes:
        is_slow: whether Lambda may have to find a machine first. It keeps the messages meanwhile, and hides them.
        image, version: see `worker_image` and `release`.
    """

    jobs: JobQueue
    batches: JobQueue
    is_slow: bool = False
    image: str = ""
    version: str = ""

    @classmethod
    def at(
        cls,
        url: str,
        batch_url: str | None,
        *,
        sqs: SQSClient,
        is_slow: bool = False,
        image: str = "",
        version: str = "",
    ) -> Self:
        """The queues with these addresses; without the second, one queue has all jobs."""
        jobs = JobQueue(sqs, url)
        return cls(jobs, JobQueue(sqs, batch_url) if batch_url else jobs, is_slow, image, version)

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

    def release(self) -> tuple[str, str]:
        return DEFAULT, self.version

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
    version: str = ""

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

    def release(self) -> tuple[str, str]:
        return DEFAULT, self.version


@dataclass(frozen=True, slots=True)
class _Place:
    """Where jobs go, or went: a release, and its workers."""

    release: Release
    workers: Workers

    def is_there(self) -> bool:
        """Whether its queues are: those of one class may be gone before those of the other.

        A queue that cannot be asked now, because there are too many requests or AWS is in trouble, is not gone.
        """
        try:
            return self.answers(lambda workers: all(workers.depth(is_batch=one) >= 0 for one in (False, True)))
        except (ClientError, BotoCoreError):
            log.warning("whether a release is there cannot be seen", release=self.release.name, exc_info=True)
            return True

    def answers(self, ask: Callable[[Workers], bool]) -> bool:
        """Whether its workers say yes. Those that are gone do not."""
        try:
            return ask(self.workers)
        except ClientError as error:
            if error_code(error) not in _GONE:
                raise
            return False


@dataclass(slots=True)
class Switch(Workers):
    """The workers that the parameters name now, or without them our own queues. `endpoint` returns that of a name."""

    own: Queues
    parameter: str
    ssm: SSMClient
    endpoint: Callable[[str], Endpoint]
    _places: tuple[_Place, ...] = ()
    _now: _Place | None = None
    _told: tuple[str, str] = ("", "")
    _known_at: float = field(default=-TARGET_KNOWN_S)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: JobMessage, *, delay_s: int = 0, is_batch: bool = False) -> None:
        self._of_target(lambda target: target.send(message, delay_s=delay_s, is_batch=is_batch))

    def send_many(self, messages: Sequence[JobMessage]) -> None:
        self._of_target(lambda target: target.send_many(messages))

    def depth(self, *, is_batch: bool = False) -> int:
        return self._of_target(lambda target: target.depth(is_batch=is_batch))

    def still_wait(self, *, is_batch: bool = False) -> bool:
        """See `Workers`. Jobs that were sent to a release before the live one wait there, and for nobody else."""
        return self._in_any(lambda workers: workers.still_wait(is_batch=is_batch))

    def may_hold(self, *, is_batch: bool = False) -> bool:
        return self._in_any(lambda workers: workers.may_hold(is_batch=is_batch))

    def worker_image(self) -> str:
        return self.target().worker_image()

    def release(self) -> tuple[str, str]:
        """See `Workers`. What a target says of itself is newer than what `live` has noted of it."""
        place = self._place()
        _, version = place.workers.release()
        return place.release.name, version or place.release.version

    def build_of(self, release: str) -> tuple[str, str] | None:
        """See `Workers`. What a release announces is newer than what `live` has noted; it need not have been live."""
        self._place()
        found = next((place for place in self._places if place.release.name == release), None)
        announced = self._announced(release) if NAME.fullmatch(release) and release != DEFAULT else ""
        if announced:
            named = Release.announced(release, announced)
            target = parse_target(named.target_text, what=f"the parameter of the release {release}")
            return target.image, target.release_version or named.version
        if found is None:
            return None
        return found.workers.worker_image(), found.workers.release()[1] or found.release.version

    def _announced(self, release: str) -> str:
        """What a release's own parameter says; "" if there is none."""
        name = f"{self.parameter.rpartition('/')[0]}/releases/{release}"
        return next((one["Value"] for one in self.ssm.get_parameters(Names=[name])["Parameters"]), "")

    def target(self) -> Workers:
        """The workers that jobs go to; the parameters are read again once a minute."""
        return self._place().workers

    def _place(self) -> _Place:
        with self._reading:  # once, for threads that ask at the same time
            if self._now is None or time.monotonic() - self._known_at >= TARGET_KNOWN_S:
                self._now = self._read()
            return self._now

    def _in_any(self, ask: Callable[[Workers], bool]) -> bool:
        """Whether it is so of any workers that jobs may be at. Those that are gone have none."""
        self._place()
        return any(place.answers(ask) for place in self._places)

    def _of_target(self, do: Callable[[Workers], T]) -> T:
        """What the target answers; if it has gone within the last minute, another may have replaced it."""
        place = self._place()
        try:
            return do(place.workers)
        except ClientError as error:
            if error_code(error) not in _GONE:
                raise
            with self._reading:
                self._now = self._read(gone=place)
            if self.target() is place.workers:
                raise
            return do(self.target())

    def _read(self, *, gone: _Place | None = None) -> _Place:
        """Where jobs go now: to the first place that is there. DISPATCH_PARAMETER alone has no other to go to.

        `gone` is known not to be there.
        """
        live, dispatch = told = self._parameters()
        if not self._places or told != self._told:
            self._places, self._told = tuple(self._named(Live.parse(live), dispatch)), told
        self._known_at = time.monotonic()
        wanted = self._places[0]
        if not live:
            return wanted
        standing = (place for place in self._places if place.workers is self.own or place.is_there())
        found = next(place for place in standing if place.workers is self.own or place is not gone)
        if found.release.name != wanted.release.name:
            emit_failure(RELEASE_GONE, Kind.INFRASTRUCTURE)
            log.error(
                "the live release is gone, and jobs go to another: promote one (comfy-serverless release ls)",
                release=wanted.release.name,
                now=found.release.name,
            )
        return found

    def _parameters(self) -> tuple[str, str]:
        """What `live` and DISPATCH_PARAMETER say now; "" for what is not there."""
        names = [live_parameter(self.parameter), self.parameter]
        try:
            answer = self.ssm.get_parameters(Names=names)["Parameters"]
        except (ClientError, BotoCoreError):
            if not self._places:
                raise
            log.warning("where jobs run cannot be read: it stays as it was", exc_info=True)
            return self._told
        values = {found["Name"]: found["Value"] for found in answer}
        return values.get(names[0], ""), values.get(names[1], "")

    def _named(self, live: Live, dispatch: str) -> Iterator[_Place]:
        """Every place that jobs may be in, in the order in which they would go there.

        Raises:
            InvalidSetting: where jobs go now cannot be understood. Where they went before must not stop them.
        """
        for release in live.all():
            text, what = release.target_text, f"the release {release.name} in `live`"
            if release.name == DEFAULT:
                text, what = dispatch, "the parameter of DISPATCH_PARAMETER"
            try:
                found = self._workers(text, what) if text else None
            except InvalidSetting:
                if release.name == live.now.name:
                    raise
                log.error("a release that was live before cannot be used", release=release.name, exc_info=True)
                found = None
            if found is not None:
                yield _Place(release, found)
            if release.name == DEFAULT:
                yield _Place(release, self.own)

    def _workers(self, text: str, what: str) -> Workers:
        sqs = self.own.jobs.sqs
        match parse_target(text, what=what):
            case EndpointTarget(name, batch_url, job_url, image, version):
                jobs = JobQueue(sqs, job_url) if job_url else None
                return Gated(self.endpoint(name), JobQueue(sqs, batch_url), jobs, image, version)
            case QueueTarget(url, batch_url, image, version):
                return Queues.at(url, batch_url, sqs=sqs, is_slow=True, image=image, version=version)
