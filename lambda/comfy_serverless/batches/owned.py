"""Batches of owners, which came to the API: how one is made, what their lines may say, and what is asked about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy_serverless.aws.dynamodb import now_text
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.ranges import OF_API
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.jobs.lines import manifest_address
from comfy_serverless.jobs.request import MAX_LABELS, JobRequest
from comfy_serverless.jobs.runnable import check_places

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.declarations import DeclarationsReader
    from comfy_serverless.jobs.node_list import NodeListReader
    from comfy_serverless.jobs.stored_request import LineRequest
    from comfy_serverless.settings import Settings
    from comfy_serverless.table.assets import AssetStore

#: The label of jobs of owners' batches: which batch they are of.
BATCH_LABEL = "batch"
#: Characters of a batch's name in its id.
_MAX_NAME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class OfOwners:
    """What `ingest` asks about lines of owners' batches (`runnable.Behind`)."""

    s3: S3Client
    settings: Settings
    assets: AssetStore
    node_list: NodeListReader
    declarations: DeclarationsReader
    assets_bucket: str
    output_bucket: str


def owned_batch(
    owner: str, name: str, *, of: str, bucket: str, take_from: str | None = None, key_id: str = ""
) -> Batch:
    """A new batch of an owner. The same name with the same lines is the same batch, however often it is sent.

    Args:
        of: says what its lines are: a hash of them, or what names them for ever.
        bucket: where our copy of its lines goes.
        take_from: where they are, if they are copied later.
    """
    batch_id = f"{name[:_MAX_NAME]}{OF_API}{digest(owner, name, of)[:20]}"
    manifest = str(manifest_address(bucket, batch_id))
    return Batch(
        id=batch_id,
        owner=owner,
        name=name,
        source=manifest,
        manifest=manifest,
        size_bytes=0,  # until its lines are stored
        status=BatchStatus.RUNNING,
        created_at=now_text(),
        take_from=take_from,
        key_id=key_id or None,
    )


def digest(*parts: str) -> str:
    """A hash of several texts; other texts have another."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def check_line(request: JobRequest, owner: str, settings: Settings) -> None:
    """Raise InvalidRequest if a line of an owner's batch names a place that is not his. No IO."""
    buckets = (settings.assets_bucket or "", settings.output_bucket or "")
    try:
        check_places(request, owner, settings, buckets=buckets)
    except MissingAsset as error:
        raise InvalidRequest(error.message, details=error.details) from error
    if len(request.metadata) >= MAX_LABELS and BATCH_LABEL not in request.metadata:
        raise InvalidRequest(f"`metadata` has no room for the label {BATCH_LABEL!r}.")


def with_label(request: JobRequest, batch: Batch) -> JobRequest:
    """The request with the label that says its batch, unless it has one of that name."""
    return request.model_copy(update={"metadata": {BATCH_LABEL: batch.called, **request.metadata}})


class IdsOfLines:
    """The ids that lines of one manifest name themselves, as far as it was seen: each counts for one request."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, str]] = {}

    def check(self, found: LineRequest, number: int) -> None:
        """See the line of this number. Raises InvalidRequest if an earlier one has its id for another thing."""
        if found.asked_sha256 is None:
            return
        job_id = str(found.request.job_id)
        first, asked_sha256 = self._first.setdefault(job_id, (number, found.asked_sha256))
        if asked_sha256 != found.asked_sha256:
            raise InvalidRequest(
                f"its job_id {job_id!r} is that of line {first}, which asks for something else: choose another, or "
                "leave it out."
            )


def used(job_id: str) -> str:
    """What is said of a line or a drop under the id of a job of the same owner that was made of another request."""
    return f"the job_id {job_id!r} has been used for another request: choose another, or leave it out."


def taken(job_id: str) -> str:
    """What is said of a line whose job's id another owner's job has, as any door says it."""
    return f"the job_id {job_id!r} is taken: choose another."
