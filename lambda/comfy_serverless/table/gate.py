"""The gate before an endpoint: few jobs wait in it, callers' before those of batches, and all others in fair queues.

    job queue ────┐
                  ├─► gate ──► endpoint ──► a worker begins the job
    batch queue ──┘    ▲                          │
                       └──── its place is free ◄──┘

SageMaker's own queue is first come, first served: what is in it stands before everybody else's jobs. So a job gets into
it only with a place, and there are just enough of them that no instance waits for the next job. Any number of
functions may let jobs through at once: the places are one item of the table, and a place is one conditional write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.dynamodb import EXPIRES, Item, Table, Update, not_there, now_s
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.observability import log
from comfy_serverless.table.columns import read_columns
from comfy_serverless.table.dispatch import REQUEST_TTL_S, Endpoint
from comfy_serverless.table.jobs import JobStore

if TYPE_CHECKING:
    from comfy_serverless.table.job_state import JobState

#: How long the number of instances counts as known, in seconds.
FLEET_KNOWN_S = 10.0
#: The places that callers' jobs have beside those of batches, for each instance: with them they go first.
CALLERS_OWN = 1
_PLACES = "places"


def places_for(instances: int, *, per_instance: int, is_batch: bool) -> int:
    """How many jobs may wait in an endpoint for a job of this class to join them.

    An endpoint without instances has the places of one: a job must wait in it for its first instance to start.
    """
    return max(1, instances) * (per_instance + (0 if is_batch else CALLERS_OWN))


@dataclass(frozen=True, slots=True)
class Places:
    """The jobs that wait in an endpoint.

    Attributes:
        sent: when each was sent there, in seconds since 1970.
        version: counts changes: each is written only over the one that was read.
    """

    sent: Mapping[str, int] = field(default_factory=dict)
    version: int = 0

    @classmethod
    def from_item(cls, item: Item) -> Self:
        return cls(**read_columns(cls, item))

    def of_waiting(self, known: Mapping[str, JobState], *, now: int) -> dict[str, int]:
        """The places that are still taken: of jobs that no worker has begun, and that have not expired there."""
        return {
            job_id: at
            for job_id, at in self.sent.items()
            if at >= now - REQUEST_TTL_S
            and (state := known.get(job_id)) is not None
            and state.may_begin
            and not state.is_parked
        }


@dataclass(frozen=True, slots=True)
class PlaceStore:
    """The places of one endpoint, in the table."""

    table: Table
    endpoint: str

    def read(self) -> Places:
        """All places that are taken, as far as that is known."""
        return Places.from_item(self.table.get(self._pk, _PLACES) or {})

    def replace(self, seen: Places, sent: Mapping[str, int]) -> bool:
        """Write which jobs have places. Returns False if that has changed since it was read."""
        change = Update(
            pk=self._pk,
            sk=_PLACES,
            assign={"sent": dict(sent), "version": seen.version + 1, "expires": now_s() + 2 * REQUEST_TTL_S},
            condition="#version = :seen" if seen.version else f"attribute_not_exists(#version) OR #{EXPIRES} <= :now",
            values={"seen": seen.version} if seen.version else not_there(),
        )
        return self.table.try_update(change)

    @property
    def _pk(self) -> str:
        return f"gate#{self.endpoint}"


class DescribesEndpoints(Protocol):
    """What we use of SageMaker's client."""

    def describe_endpoint(self, *, EndpointName: str) -> Any:  # noqa: ANN401, N803  (as boto3 has it)
        """See SageMaker's API."""


@dataclass(slots=True)
class Fleet:
    """The instances of an endpoint."""

    sagemaker: DescribesEndpoints
    endpoint: str
    _size: int = 0
    _known_at: float = field(default=-FLEET_KNOWN_S)

    def size(self) -> int:
        """How many there are, as of some seconds ago; the last number known if SageMaker does not say."""
        if time.monotonic() - self._known_at >= FLEET_KNOWN_S:
            try:
                variants = self.sagemaker.describe_endpoint(EndpointName=self.endpoint).get("ProductionVariants", [])
                self._size = sum(variant.get("CurrentInstanceCount", 0) for variant in variants)
            except (ClientError, BotoCoreError):
                log.warning("how many instances there are is not known: it stays as it was", exc_info=True)
            self._known_at = time.monotonic()
        return self._size


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets jobs into an endpoint.

    Attributes:
        per_instance: how many jobs of batches may wait in the endpoint for each instance.
        hold_back: keeps a job of paused or canceled batches from being run; returns whether it did
            (`batches.store`).
    """

    endpoint: Endpoint
    fleet: Fleet
    jobs: JobStore
    places: PlaceStore
    per_instance: int
    hold_back: Callable[[JobMessage], bool]

    def let_through(self, job: JobMessage) -> bool:
        """Send a job to the endpoint if it still is to run, and if there is room.

        Returns whether its message is done with; False if the job must wait. A failure to send it leaves it its place:
        it is sent when its message comes again.
        """
        while True:
            seen = self.places.read()
            known = self.jobs.many([job.job_id, *seen.sent])
            state = known.get(job.job_id)
            if state is None or not state.may_begin:
                return True
            sent = seen.of_waiting(known, now=now_s())
            if job.job_id not in sent and len(sent) >= self._room(job):
                return False
            if self.hold_back(job):
                return True
            if self.places.replace(seen, {**sent, job.job_id: now_s()}):
                self.endpoint.send(job)
                return True

    def _room(self, job: JobMessage) -> int:
        is_batch = job.batch_id is not None
        return places_for(self.fleet.size(), per_instance=self.per_instance, is_batch=is_batch)
