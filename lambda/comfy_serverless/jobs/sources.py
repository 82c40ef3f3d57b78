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
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from comfy_serverless.aws.s3 import UNPINNED, Pin, PinnedAddress, S3Address, read_json
from comfy_serverless.errors import InvalidRequest, InvalidWorkflow, PayloadTooLarge
from comfy_serverless.files import type_of_name
from comfy_serverless.jobs.drop_names import ACCEPTED_DROPS, DropKind, kind_of_drop, stem_of
from comfy_serverless.jobs.embedded import embedded_in
from comfy_serverless.jobs.named import Named, file_for
from comfy_serverless.jobs.request import MAX_LABEL_CHARACTERS, JobRequest
from comfy_serverless.json_text import parse_json
from comfy_serverless.tracing import Trace

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings

#: Largest request that can be sent: Lambda's own limit, each way.
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024

#: Kinds of files that inputs call otherwise than their types do.
_MEDIA = {"model": "model3d"}

#: The owner of jobs that come without a key: who may invoke the function, or drop into its bucket, is the operator.
OPERATOR = ""


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

    @property
    def trace(self) -> Trace | None:
        """The span that the job is a child of; None if it is in no trace."""

    def read(self, *, s3: S3Client, settings: Settings, named: Named) -> JobRequest:
        """Read the request. Raises a ComfyError if there is none.

        Args:
            named: the workflows that a source may name, to know where a file goes.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """A request that was sent, as JSON text or already parsed. Errors call it `what`."""

    payload: object
    default_id: str
    what: str = "the payload"
    trace: Trace | None = None
    labels: ClassVar[Mapping[str, str]] = {}
    origin_bucket: ClassVar[None] = None
    owner_name: ClassVar[str] = OPERATOR
    is_checked: ClassVar[bool] = False
    extra_data: ClassVar[None] = None

    def read(self, *, s3: S3Client, settings: Settings, named: Named | None = None) -> JobRequest:  # noqa: ARG002  (as all sources)
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
        if text is None:
            return JobRequest.parse(self.payload)
        return JobRequest.parse(parse_json(text, source=self.what, most_bytes=MAX_PAYLOAD_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedObject:
    """An object that appeared in the input bucket.

    Attributes:
        address: bucket and key, decoded.
        version: distinguishes this writing of the key from others, also from one of the same content: each is a wish
            of its own. Every delivery of one event says the same.
        pin: what was written then: this is read, and nothing that was written later.
        owner_name: see `RequestSource`; `ingest` has an owner for what is dropped.
    """

    address: S3Address
    version: str
    pin: Pin = UNPINNED
    owner_name: str = OPERATOR
    is_checked: ClassVar[bool] = False
    extra_data: ClassVar[None] = None
    trace: ClassVar[None] = None

    @property
    def default_id(self) -> str:
        """A readable id, the same for every delivery of the same event."""
        digest = hashlib.sha256("\0".join((*self.address, self.version)).encode("utf-8", "replace")).hexdigest()
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem_of(self.address.key)).strip("-")[:40]
        return f"{stem or 'drop'}-{digest[:20]}"

    @property
    def kind(self) -> DropKind:
        """What the object is, by its key."""
        return kind_of_drop(self.address.key)

    @property
    def labels(self) -> Mapping[str, str]:
        """The object's address."""
        return {"source": str(self.address)[:MAX_LABEL_CHARACTERS]}

    @property
    def origin_bucket(self) -> str:
        """The bucket it was dropped into."""
        return self.address.bucket

    def read(self, *, s3: S3Client, settings: Settings, named: Named) -> JobRequest:
        """Read the request that the object is, or stands for."""
        match self.kind:
            case DropKind.IMAGE:
                request = self._request_for_file(self.address.key.split("/")[1], named)
            case DropKind.REQUEST:
                request = JobRequest.parse(read_json(s3, self.address, what="the dropped request", pin=self.pin))
            case DropKind.MADE:
                request = self._request_inside(s3)
            case _:
                raise InvalidRequest(f"{self.address} is nothing that can be run. {ACCEPTED_DROPS}")
        if (request.output.bucket or settings.output_bucket) == self.address.bucket:
            setting = "`output.bucket` of the request" if request.output.bucket else "OUTPUT_BUCKET"
            raise InvalidRequest(
                f"results would go to the bucket the request came from: {setting} is {self.address.bucket!r}, and so "
                "is the input bucket of this S3 event. Every result would start a job again. "
                "Use a bucket of its own for results."
            )
        return request

    def _request_inside(self, s3: S3Client) -> JobRequest:
        try:
            found = embedded_in(s3, self.address, what="the dropped file", pin=self.pin)
        except InvalidWorkflow as error:
            raise type(error)(
                f"{error.message} Below jobs/ a file is taken for one that ComfyUI has made, with its workflow inside. "
                "A picture that a workflow is to take as its input is dropped as images/{workflow}/…; inputs that "
                "requests name are kept outside of jobs/, images/ and batches/."
            ) from error
        request = JobRequest.parse(found.document)
        return request.with_warnings([*request.warnings, *found.warnings])

    def _request_for_file(self, name: str, named: Named) -> JobRequest:
        media = (type_of_name(self.address.key) or "").partition("/")[0]
        return file_for(
            named,
            name,
            str(PinnedAddress(self.address, self.pin)),
            media=_MEDIA.get(media, media),
            owner=self.owner_name,
            key=self.default_id,
        )
