"""The releases of a deployed stack as `comfy-serverless release` sees and changes them: `table.live` decides.

releases/NAME ─┐
live ──────────┼─► Standing: what there is, what is live, how many jobs wait where
dispatch ──────┘        └─► one at a time (`table.one_at_a_time`) ──► live
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import error_code
from comfy_serverless.errors import InvalidRequest, InvalidSetting, NotFound
from comfy_serverless.table.dispatch import TARGET_KNOWN_S, Endpoint, Gated, Queues
from comfy_serverless.table.live import DEFAULT, NAME, Live, Release, live_parameter
from comfy_serverless.table.one_at_a_time import one_at_a_time
from comfy_serverless.table.target import EndpointTarget, QueueTarget, parse_target
from comfy_serverless.table.workers import Workers

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

    from comfy_serverless.aws.dynamodb import Table

_GONE = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "NonExistentQueue"})
#: The most that a parameter of SSM holds, of the advanced tier, in bytes.
MAX_PARAMETER_BYTES = 8192
#: How long after a change functions may still send jobs to where they went before, in seconds: twice what they say.
SETTLED_S = 2 * TARGET_KNOWN_S


@dataclass(frozen=True, slots=True)
class Standing:
    """A release as it is now.

    Attributes:
        waiting: how many jobs wait for it, about; None if its queues are gone.
        running: how many its workers have in hand, about.
        announced_at: when its stack made it known, in ISO 8601; "" of `default` and of one that is gone.
        problem: why its parameter cannot be used; "" if it can.
    """

    release: Release
    waiting: int | None
    running: int = 0
    announced_at: str = ""
    problem: str = ""

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
        own_queue_url, own_batch_url: of the stack's own workers.
    """

    stack: str
    own_queue_url: str
    own_batch_url: str
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
        path, live = f"/comfy-serverless/{self.stack}/releases/", self.live()
        found = {release.name: self._standing(release) for release in live.all()}
        for page in self.ssm.get_paginator("get_parameters_by_path").paginate(Path=path):
            for one in page["Parameters"]:
                name, at = one["Name"].removeprefix(path), _moment(one.get("LastModifiedDate"))
                try:
                    found[name] = self._standing(Release.announced(name, one["Value"]), at)
                except InvalidSetting as error:
                    found[name] = Standing(Release(name, {}), None, announced_at=at, problem=error.message)
        return [found[name] for name in sorted(found, key=lambda name: (name != live.now.name, name))]

    def find(self, name: str) -> Standing:
        """A release by its name, as it has announced itself.

        Raises:
            NotFound: it has not, or its queues are gone.
            InvalidRequest: no release can be called so.
            InvalidSetting: what it has announced cannot be used.
        """
        if not NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is no name of a release: at most 20 small letters, digits and hyphens between."
            )
        standings = {one.release.name: one for one in self.all()}
        found = standings.get(name)
        if found is not None and found.is_there and (found.announced_at or name == DEFAULT):
            return found
        if found is not None and found.problem:
            raise InvalidSetting(found.problem)
        others = ", ".join(one.release.name for one in standings.values() if one.is_there)
        gone = "its stack is gone" if found is not None else "no stack has announced it"
        raise NotFound(
            f"There is no release {name!r} of {self.stack}: {gone}. There are: {others}. To make it: "
            f'make cdk CDK_ARGS="deploy {self.stack}-sagemaker-{name} -c release={name}" (docs/releases.md).'
        )

    def workers(self, release: Release) -> Workers:
        """The workers of a release; of `default` those of the GPU stack without a name, else the stack's own.

        Raises InvalidSetting if what it has announced is no target.
        """
        text = release.target_text or self._parameter(self.dispatch)
        if not text:
            return Queues.at(self.own_queue_url, self.own_batch_url, sqs=self.sqs)
        match parse_target(text, what=f"the parameter of the release {release.name}"):
            case QueueTarget(url, batch_url, image):
                return Queues.at(url, batch_url, sqs=self.sqs, image=image)
            case EndpointTarget(name, batch_url, job_url, image):
                queues = Queues.at(job_url or batch_url, batch_url, sqs=self.sqs)
                return Gated(self.endpoint(name), queues.batches, queues.jobs, image)

    def change(self, seen: Live, decide: Callable[[Live, str], Live]) -> Live:
        """Write what `decide` makes of what is live and of the moment; returns it. One at a time.

        Raises:
            InvalidRequest: somebody else has changed it since `seen` was read, or it is more than a parameter holds.
                Nothing is written.
        """
        with one_at_a_time(self.table):
            now = self.live()
            if now != seen:
                raise InvalidRequest(
                    f"somebody has made {now.now.name!r} live since this command began (it was {seen.now.name!r}): "
                    "nothing was changed. Look at `comfy-serverless release ls`, and try again."
                )
            changed = decide(now, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
            changed = changed.emptied({one.name for one in _settled(now) if self._standing(one).is_empty})
            text = changed.to_text()
            if len(text.encode()) > MAX_PARAMETER_BYTES:
                raise InvalidRequest(
                    f"{len([*changed.all()])} releases are more than the parameter `live` can remember "
                    f"({len(text.encode()):,} bytes of {MAX_PARAMETER_BYTES:,}): nothing was changed. Give a smaller "
                    "--keep, and delete those in which no jobs are."
                )
            self.ssm.put_parameter(
                Name=live_parameter(self.dispatch),
                Description="The release that jobs go to: written by comfy-serverless release",
                Value=text,
                Type="String",
                Overwrite=True,
                Tier="Intelligent-Tiering",  # of many releases it has more than the 4 KB of the standard tier
            )
        return changed

    def is_there(self, release: Release) -> bool:
        """Whether jobs can be sent to a release that is remembered."""
        return self._standing(release).is_there

    def _standing(self, release: Release, announced_at: str = "") -> Standing:
        try:
            workers = self.workers(release)
        except InvalidSetting as error:  # one stack's mistake: the others can be used
            return Standing(release, None, announced_at=announced_at, problem=error.message)
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


def _settled(live: Live) -> tuple[Release, ...]:
    """Those left to which nobody sends jobs any more: it is some time since any of them was live."""
    try:
        is_over = datetime.now(UTC) - datetime.fromisoformat(live.now.since) > timedelta(seconds=SETTLED_S)
    except ValueError:
        return ()
    return live.left if is_over else ()


def _moment(moment: object) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if isinstance(moment, datetime) else "announced"
