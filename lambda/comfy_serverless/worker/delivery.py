"""Brings the outputs of a job to where they belong, while the engine goes on.

`Delivery` takes outputs the moment their nodes are done and hands each to an upload pool; `finish` waits for all of
them. Nothing is dropped: an output that could not be stored is named, and its file stays where it is.
"""

from __future__ import annotations

import contextvars
import io
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless import tracing
from comfy_serverless.aws.s3 import S3Address, may_pass, write_problem
from comfy_serverless.errors import DeliveryFailed, DeliveryRefused
from comfy_serverless.jobs.document import Output, clean
from comfy_serverless.jobs.keys import KeyAllotment
from comfy_serverless.jobs.output_list import list_of
from comfy_serverless.observability import log
from comfy_serverless.redaction import redacted
from comfy_serverless.worker.leftovers import Leftovers
from comfy_serverless.worker.put import ChecksumMismatch, Digest, KeyTaken, digest, upload
from comfy_serverless.worker.thumbnails import Thumbnail, Thumbnails, patience_s

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.connector.outputs import Output as Made

#: Files of one worker that are stored at the same time. With `PARTS_AT_ONCE` each they have `MAX_CONNECTIONS`.
_IS_GONE = "its file is no longer there"
UPLOAD_THREADS = 8
#: Of the names that an output has.
MAX_NAME_CHARACTERS = 300
#: Makes output ids from their keys: the same output of the same job has the same id.
_OUTPUT_IDS = uuid.UUID("5d6f4f0c-3a41-4c0e-9c56-0a5d5c2b7a10")
_LIST_TYPE = "application/jsonl"
_OF_S3 = (ClientError, BotoCoreError)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivered output, and the made one its bytes can be read from again."""

    output: Output
    made: Made


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An output that could not be stored. Where its file is kept, only the log says: callers read this.

    `is_refused`: whether S3 would refuse it again.
    """

    made: Made
    reason: str
    is_refused: bool = False

    def __str__(self) -> str:
        return f"{clean(self.made.name)} of node {clean(self.made.node_id)}: {self.reason}"


class Delivery:
    """The delivery of one job. Used by one thread; the uploads run in the pool's, and so does `on_delivered`.

    Without a bucket the reply itself carries the outputs, which stay where the engine put them until then.
    """

    def __init__(
        self,
        *,
        job_id: str,
        owner: str,
        keys: KeyAllotment,
        s3: S3Client,
        bucket: str | None,
        pool: ThreadPoolExecutor,
        leftovers: Leftovers,
        thumbnails: Thumbnails | None = None,
        on_delivered: Callable[[Output], None] = lambda _output: None,
    ) -> None:
        self._on_delivered = on_delivered
        self._thumbnails = thumbnails if bucket is not None else None
        self._thumbs: dict[str, Thumbnail] = {}
        self._trace = tracing.current()
        self._job_id, self._owner = job_id, owner
        self._keys = keys
        self._s3, self._bucket = s3, bucket
        self._pool = pool
        self._leftovers = leftovers
        leftovers.begin()
        if self._thumbnails is not None:
            self._thumbnails.warm(owner=owner)
        self._pending: dict[str, Future[Output]] = {}

    def hand_over(self, made: Made) -> None:
        """Begin to deliver an output, and return at once.

        Handed over again, it is delivered again, after the first time: the engine ran a second time, and the file may
        have got another content under the same name.
        """
        key = self._keys.key(made)
        context = contextvars.copy_context()  # the threads log under the job's name too
        thumbnail = None
        if self._thumbnails is not None and self._bucket is not None:
            thumbnail = self._thumbs[key] = self._thumbnails.begin(
                made, S3Address(self._bucket, key), owner=self._owner, trace=self._trace
            )
        earlier = self._pending.get(key)
        self._pending[key] = self._pool.submit(context.run, self._deliver, made, key, earlier, thumbnail)

    def finish(self, made: Iterable[Made], *, timeout_s: float) -> tuple[list[Delivered], list[Undelivered]]:
        """Wait until every output that counts has been delivered, or could not be, at most `timeout_s` for all of them.

        Those of `made` that were not handed over before are delivered now; their order stays.
        """
        until = time.monotonic() + timeout_s
        everything = list(made)
        for output in everything:
            if self._keys.key(output) not in self._pending:
                self.hand_over(output)
        delivered: list[Delivered] = []
        undelivered: list[Undelivered] = []
        for output in everything:
            future = self._pending[self._keys.key(output)]
            failure = self._settle(output, future, until)
            if failure is None:
                delivered.append(Delivered(future.result(), output))
            else:
                undelivered.append(failure)
                log.warning(
                    "an output could not be stored", output=output.name, kept=str(output.path), reason=failure.reason
                )
        delivered = self._with_thumbnails(delivered, until=min(until, time.monotonic() + patience_s(len(delivered))))
        self._leftovers.settle(is_complete=not undelivered)
        return delivered, undelivered

    def _with_thumbnails(self, delivered: list[Delivered], *, until: float) -> list[Delivered]:
        """What was delivered, with the thumbnails that are there by then."""
        return [
            replace(one, output=_shown_by(one.output, thumbnail.address(until=until)))
            if (thumbnail := self._thumbs.get(self._keys.key(one.made)))
            else one
            for one in delivered
        ]

    def write_list(self, outputs: Sequence[Output]) -> str:
        """Store the list of all outputs, which another worker's never replaces; returns its address.

        Raises DeliveryFailed; DeliveryRefused if S3 would refuse it again.
        """
        if self._bucket is None:
            raise AssertionError("without a bucket the reply has all outputs")
        content = io.BytesIO(list_of(outputs))
        address = S3Address(self._bucket, self._keys.outputs_key)
        try:
            try:
                upload(self._s3, content, address, content_type=_LIST_TYPE)
            except KeyTaken:
                address = S3Address(self._bucket, self._keys.another(address.key))
                upload(self._s3, content, address, content_type=_LIST_TYPE)
        except ChecksumMismatch as error:
            raise DeliveryFailed(
                f"the list of the job's {len(outputs)} outputs could not be stored: {redacted(error)}."
            ) from error
        except _OF_S3 as error:
            reason, is_transient = write_problem(error, address)
            raise (DeliveryFailed if is_transient else DeliveryRefused)(
                f"the list of the job's {len(outputs)} outputs could not be stored: {address} {reason}."
            ) from error
        return str(address)

    @staticmethod
    def _settle(made: Made, future: Future[Output], until: float) -> Undelivered | None:
        """Wait for an upload; why it failed, if it did."""
        try:
            error = future.exception(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            future.cancel()
            return Undelivered(made, "it was still being uploaded when the time was over")
        if error is None:
            return None
        if isinstance(error, FileNotFoundError):
            return Undelivered(made, _IS_GONE)
        # Whatever it is, it costs one output: the others, and why the job failed, are still reported.
        reason = clean(redacted(f"{type(error).__name__}: {error}"))[:500].rstrip(".")
        return Undelivered(made, reason, is_refused=isinstance(error, _OF_S3) and not may_pass(error))

    def _deliver(self, made: Made, key: str, earlier: Future[Output] | None, thumbnail: Thumbnail | None) -> Output:
        if earlier is not None:
            wait([earlier])  # this ends, because it began before this one
        with tracing.span("upload", parent=self._trace, node_id=made.node_id, type=made.kind.value) as span:
            try:
                stored = self._store(made, key)
            except KeyTaken:
                # Another worker with the same job id, or an earlier try: what its result names must not change.
                key = self._keys.another(key)
                stored = self._store(made, key)
            span.set(bytes=stored.size_bytes)
        width, height = stored.pixels or (None, None)
        output = Output(
            node_id=_name(made.node_id),
            name=_name(made.name),
            type=made.kind,
            content_type=made.content_type,
            size_bytes=stored.size_bytes,
            id=str(uuid.uuid5(_OUTPUT_IDS, key)),
            job_id=self._job_id,
            s3_uri=str(S3Address(self._bucket, key)) if self._bucket else None,
            class_type=_name(made.class_type),
            title=_name(made.title),
            index=made.index,
            sha256=stored.sha256,
            width=width,
            height=height,
        )
        if thumbnail is None:
            self._on_delivered(output)
        else:
            thumbnail.then(lambda uri: self._on_delivered(_shown_by(output, uri)))
        return output

    def _store(self, made: Made, key: str) -> Digest:
        with made.open() as stream:
            if self._bucket is None:
                return digest(stream, content_type=made.content_type)
            return upload(self._s3, stream, S3Address(self._bucket, key), content_type=made.content_type)


def _shown_by(output: Output, thumb_uri: str | None) -> Output:
    """An output with its thumbnail, if it has one."""
    return output if thumb_uri is None else output.model_copy(update={"thumb_uri": thumb_uri})


def _name(text: str) -> str:
    """A name as it is shown: the table keeps one with each output, and workflows may have names of megabytes."""
    return clean(text[:MAX_NAME_CHARACTERS])


def delivery_error(undelivered: list[Undelivered], *, of: int) -> DeliveryFailed:
    """The failure of a job whose outputs were made but not stored."""
    listing = "; ".join(str(output) for output in undelivered[:10])
    is_refused = any(output.is_refused for output in undelivered)
    if all(output.reason == _IS_GONE for output in undelivered):
        advice = "Something on the worker has removed what was made before it was stored: send the job again."
    elif is_refused:
        advice = (
            "S3 would refuse them again, so the job is not run again. Check that the output bucket exists, is in the "
            "worker's region, and lets the worker's role put objects (s3:PutObject; its own policy, if it is another "
            "account's); then submit the job anew."
        )
    else:
        advice = (
            "The files are kept, while there is room, until the worker ends. Send the job again: nothing that has not "
            "changed is computed twice."
        )
    return (DeliveryRefused if is_refused else DeliveryFailed)(
        f"{len(undelivered)} of {of} outputs could not be stored: {listing}. {advice}",
        details={"outputs": [str(output) for output in undelivered[:100]]},
    )
