"""The sources of job requests: what was sent to us, and what was dropped into S3 (the third one is `jobs.message`).

The worker reads a request inside the job: one that cannot be read is a job that failed, with an id, a report and a log
line like any other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import unquote_plus

from comfy_serverless.aws.s3 import S3Address, read_json
from comfy_serverless.errors import InvalidRequest, PayloadTooLarge
from comfy_serverless.graph.nodes import DROPPED_IMAGE_LOADER
from comfy_serverless.jobs.request import MAX_LABEL_CHARACTERS, JobRequest
from comfy_serverless.jobs.workflow_source import named_workflow
from comfy_serverless.json_text import parse_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

#: Largest request that can be sent: Lambda's own limit, each way.
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024

#: The owner of jobs that come without a key: who may invoke the function, or drop into its bucket, is the operator.
OPERATOR = ""
ACCEPTED_DROPS = (
    "Accepted are *.json (a job request, or a workflow in API format) and images/{workflow}/* "
    "(an image for the workflow of that name in WORKFLOWS_DIR)."
)


class RequestSource(Protocol):
    """Something that asks for a job."""

    @property
    def default_id(self) -> str:
        """The job's id, unless the request has one: the same for every delivery of the same event."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Metadata that the job gets in addition to the request's own."""

    @property
    def origin_bucket(self) -> str | None:
        """The bucket whose events brought the request, if any. Nothing may be written there: it would come back."""

    @property
    def owner_name(self) -> str:
        """Whose job it is; jobs of different owners are never in ComfyUI at the same time."""

    @property
    def is_checked(self) -> bool:
        """Whether the API, or `ingest`, has checked that it names no place of others (`jobs.reserved`)."""

    @property
    def extra_data(self) -> Mapping[str, Any] | None:
        """Data that the engine gets with the workflow. It is kept nowhere."""

    def read(self, *, s3: S3Client, settings: Settings) -> JobRequest:
        """Read the request. Raises a ComfyError if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """A request that was sent, as JSON text or already parsed. Errors call it `what`."""

    payload: object
    default_id: str
    what: str = "the payload"
    labels: ClassVar[Mapping[str, str]] = {}
    origin_bucket: ClassVar[None] = None
    owner_name: ClassVar[str] = OPERATOR
    is_checked: ClassVar[bool] = False
    extra_data: ClassVar[None] = None

    def read(self, *, s3: S3Client, settings: Settings) -> JobRequest:  # noqa: ARG002  (as all sources)
        """Read the request in the payload."""
        text = self.payload if isinstance(self.payload, str | bytes) else None
        try:
            size_bytes = len(json.dumps(self.payload) if text is None else text)
        except RecursionError:
            raise InvalidRequest("the payload is nested too deeply.") from None
        if size_bytes > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(
                f"{self.what} has {size_bytes:,} bytes; at most {MAX_PAYLOAD_BYTES:,} can be sent. Upload images to "
                "S3 and name them as s3:// inputs, or drop the request itself into the input bucket."
            )
        return JobRequest.parse(self.payload if text is None else parse_json(text, source=self.what))


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedObject:
    """An object that appeared in the input bucket.

    Attributes:
        address: bucket and key, decoded.
        version: distinguishes this writing of the key from others: its version id, sequencer or ETag.
    """

    address: S3Address
    version: str
    owner_name: ClassVar[str] = OPERATOR
    is_checked: ClassVar[bool] = False
    extra_data: ClassVar[None] = None

    @property
    def default_id(self) -> str:
        """A readable id, the same for every delivery of the same event."""
        digest = hashlib.sha256("\0".join((*self.address, self.version)).encode("utf-8", "replace")).hexdigest()
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(self.address.key).stem).strip("-")[:40]
        return f"{stem or 'drop'}-{digest[:20]}"

    @property
    def labels(self) -> Mapping[str, str]:
        """The object's address."""
        return {"source": str(self.address)[:MAX_LABEL_CHARACTERS]}

    @property
    def origin_bucket(self) -> str:
        """The bucket it was dropped into."""
        return self.address.bucket

    def read(self, *, s3: S3Client, settings: Settings) -> JobRequest:
        """Read the request that the object is, or stands for."""
        folder, _, rest = self.address.key.partition("/")
        if folder == "images" and "/" in rest:
            request = self._request_for_image(rest.partition("/")[0], settings)
        elif self.address.key.lower().endswith(".json"):
            request = JobRequest.parse(read_json(s3, self.address, what="the dropped request"))
        else:
            raise InvalidRequest(f"{self.address} is nothing that can be run. {ACCEPTED_DROPS}")
        if (request.output.bucket or settings.output_bucket) == self.address.bucket:
            setting = "`output.bucket` of the request" if request.output.bucket else "OUTPUT_BUCKET"
            raise InvalidRequest(
                f"results would go to the bucket the request came from: {setting} is {self.address.bucket!r}, and so "
                "is the input bucket of this S3 event. Every result would start a job again. "
                "Use a bucket of its own for results."
            )
        return request

    def _request_for_image(self, name: str, settings: Settings) -> JobRequest:
        graph = named_workflow(name, settings.workflows_dir)
        loaders = [node_id for node_id, node in graph.items() if node["class_type"] == DROPPED_IMAGE_LOADER]
        if len(loaders) != 1:
            raise InvalidRequest(
                f"the workflow {name!r} has {len(loaders)} {DROPPED_IMAGE_LOADER} nodes, so it is not clear where "
                f"{self.address} belongs. "
                'Drop a request instead: {"workflow": …, "inputs": {"<node>.image": "s3://…"}}.'
            )
        return JobRequest.parse({"workflow": name, "inputs": {f"{loaders[0]}.image": str(self.address)}})


def is_s3_event(event: Mapping[str, Any]) -> bool:
    """Whether it is an event of S3, by its records' source; the test event of S3 has no records."""
    return event.get("Event") == "s3:TestEvent" or has_records_of(event, "aws:s3")


def has_records_of(event: Mapping[str, Any], service: str) -> bool:
    """Whether an event has records, all of them of this service."""
    records = event.get("Records")
    return (
        isinstance(records, list)
        and bool(records)
        and all(isinstance(record, Mapping) and record.get("eventSource") == service for record in records)
    )


def died_invocation(body: object) -> tuple[str, Any] | None:
    """The id and the payload of an asynchronous invocation, if this is Lambda's record of one that it has given up.

    Lambda sends such records to the queue that a function names for them. None for anything else.
    """
    match body:
        case {"requestContext": {"requestId": str(request_id), "functionArn": str()}, "requestPayload": payload}:
            return request_id, payload
    return None


def drops_of(event: Mapping[str, Any]) -> list[DroppedObject | SentRequest]:
    """One source for each object created. Removals, folders and the test event ask for nothing.

    A record that S3 never sends is a request that will be refused and reported, and costs the other records nothing.
    """
    return [drop for record in event.get("Records", ()) if (drop := _drop_of(record)) is not None]


def dropped_objects(event: object) -> list[DroppedObject]:
    """The objects that an event of S3 names; none for the test event. Raises ValueError for any other event."""
    if not isinstance(event, Mapping) or not is_s3_event(event):
        raise ValueError("neither an event of S3 nor a message of our own")
    return [drop for drop in drops_of(event) if isinstance(drop, DroppedObject)]


def _drop_of(record: Mapping[str, Any]) -> DroppedObject | SentRequest | None:
    """The object that a record names, if it was created. Keys come form-encoded: `a+b%C3%BC.json` is `a bü.json`."""
    if not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated"):
        return None
    try:
        bucket, item = str(record["s3"]["bucket"]["name"]), record["s3"]["object"]
        key = unquote_plus(str(item["key"]))
        version = str(item.get("versionId") or item.get("sequencer") or item.get("eTag") or "")
    except (AttributeError, KeyError, TypeError):
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        return SentRequest(payload=record, default_id=f"s3-{digest[:32]}", what="the S3 record")
    if key.endswith("/"):  # the console makes "folders" by writing empty objects
        return None
    return DroppedObject(address=S3Address(bucket, key), version=version)
