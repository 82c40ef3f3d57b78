"""The releases of a deployed stack as `comfy-serverless release` sees and changes them: `table.live` decides.

releases/NAME ─┐
live ──────────┼─► Standing: what there is, what is live, how many jobs wait where
dispatch ──────┘        └─► one at a time (`table.turn`) ──► live
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import error_code
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.table.dispatch import Endpoint, Gated, Queues, Workers
from comfy_serverless.table.live import DEFAULT, UNNAMED, Live, Release, live_parameter
from comfy_serverless.table.target import EndpointTarget, QueueTarget, parse_target
from comfy_serverless.table.turn import turn

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

    from comfy_serverless.aws.dynamodb import Table

_GONE = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue"})


@dataclass(frozen=True, slots=True)
class Standing:
    """A release as it is now.

    Attributes:
        waiting: how many jobs wait for it, about; None if its queues are gone.
        running: how many its workers have in hand, about.
        announced_at: when its stack made it known, in ISO 8601; "" of `default` and of one that is gone.
    """

    release: Release
    waiting: int | None
    running: int = 0
    announced_at: str = ""

    @property
    def is_there(self) -> bool:
        """Whether jobs can be sent to it."""
        return self.waiting is not None

    @property
    def is_empty(self) -> bool:
        """Whether no job is in it."""
        return not self.waiting and not self.running


@dataclass(frozen=True, slots=True)
class Releases:
    """What is known of the releases of one stack.

    Attributes:
        stack: its name, which the names of the parameters begin with.
        own_queue_url: of the stack's own workers.
    """

    stack: str
    own_queue_url: str
    ssm: SSMClient
    sqs: SQSClient
    table: Table
    endpoint: Callable[[str], Endpoint]

    @property
    def dispatch(self) -> str:
        """The parameter in which a GPU stack without a name says where jobs run."""
        return f"/comfy-serverless/{self.stack}/dispatch"

    def live(self) -> Live:
        """Which release is live, and those before it."""
        return Live.parse(self._parameter(live_parameter(self.dispatch)))

    def all(self) -> list[Standing]:
        """Every release that has announced itself or is remembered, and `default`: the live one first, then by name."""
        path = f"/comfy-serverless/{self.stack}/releases/"
        announced = {}
        for page in self.ssm.get_paginator("get_parameters_by_path").paginate(Path=path):
            for found in page["Parameters"]:
                name = found["Name"].removeprefix(path)
                announced[name] = (Release.announced(name, found["Value"]), _moment(found.get("LastModifiedDate")))
        remembered = {release.name: (release, "") for release in self.live().all()}
        whole = {DEFAULT: (UNNAMED, ""), **remembered, **announced}
        live = self.live().now.name
        names = sorted(whole, key=lambda name: (name != live, name))
        return [self._standing(*whole[name]) for name in names]

    def find(self, name: str) -> Standing:
        """A release by its name, as it has announced itself.

        Raises:
            NotFound: it has not, or its queues are gone.
        """
        standings = {one.release.name: one for one in self.all()}
        found = standings.get(name)
        if found is not None and found.is_there and (found.announced_at or name == DEFAULT):
            return found
        others = ", ".join(one.release.name for one in standings.values() if one.is_there)
        gone = "its stack is gone" if found is not None else "no stack has announced it"
        raise NotFound(
            f"There is no release {name!r} of {self.stack}: {gone}. There are: {others}. To make it: "
            f'make cdk CDK_ARGS="deploy {self.stack}-sagemaker-{name} -c release={name}" (docs/releases.md).'
        )

    def workers(self, release: Release) -> Workers:
        """The workers of a release; of `default` those of the GPU stack without a name, else the stack's own."""
        text = release.target_text or self._parameter(self.dispatch)
        if not text:
            return Queues.at(self.own_queue_url, None, sqs=self.sqs)
        match parse_target(text, what=f"the parameter of the release {release.name}"):
            case QueueTarget(url, batch_url, image):
                return Queues.at(url, batch_url, sqs=self.sqs, image=image)
            case EndpointTarget(name, batch_url, job_url, image):
                queues = Queues.at(job_url or batch_url, batch_url, sqs=self.sqs)
                return Gated(self.endpoint(name), queues.batches, queues.jobs, image)

    def change(self, seen: Live, decide: Callable[[Live, str], Live]) -> Live:
        """Write what `decide` makes of what is live and of the moment; returns it. One at a time.

        Raises:
            InvalidRequest: somebody else has changed it since `seen` was read. Nothing is written.
        """
        with turn(self.table):
            now = self.live()
            if now != seen:
                raise InvalidRequest(
                    f"somebody has made {now.now.name!r} live since this command began (it was {seen.now.name!r}): "
                    "nothing was changed. Look at `comfy-serverless release ls`, and try again."
                )
            changed = decide(now, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
            changed = changed.emptied({one.name for one in changed.left if self._standing(one, "").is_empty})
            self.ssm.put_parameter(
                Name=live_parameter(self.dispatch),
                Description="The release that jobs go to: written by comfy-serverless release",
                Value=changed.to_text(),
                Type="String",
                Overwrite=True,
                Tier="Intelligent-Tiering",  # of many releases it has more than the 4 KB of the standard tier
            )
        return changed

    def _standing(self, release: Release, announced_at: str) -> Standing:
        workers = self.workers(release)
        queues = [queue for queue in (getattr(workers, "jobs", None), getattr(workers, "batches", None)) if queue]
        try:
            waiting = sum(queue.depth() for queue in {queue.url: queue for queue in queues}.values())
            running = sum(queue.hidden() for queue in {queue.url: queue for queue in queues}.values())
        except ClientError as error:
            if error_code(error) not in _GONE:
                raise
            return Standing(release, None, announced_at=announced_at)
        if isinstance(workers, Gated):
            running += workers.endpoint.depth()
        return Standing(release, waiting, running, announced_at)

    def _parameter(self, name: str) -> str:
        found = self.ssm.get_parameters(Names=[name])["Parameters"]
        return found[0]["Value"] if found else ""


def _moment(moment: object) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if isinstance(moment, datetime) else "announced"
