"""Every way a job can fail, as one tree of exceptions with stable codes.

    ComfyError
    ├── InternalError           internal_error         our own mistake
    ├── InvalidSetting          invalid_setting        an environment variable cannot be used
    ├── InvalidRequest          invalid_request        the request itself is malformed
    │   ├── NotJson             invalid_request        it is no JSON at all
    │   └── PayloadTooLarge     invalid_request        it has more bytes than Lambda takes
    ├── InvalidWorkflow         invalid_workflow       ComfyUI refuses the graph, or `set` does not fit it
    │   └── UiFormatWorkflow    workflow_format_ui     the editor's format was sent instead of the API format
    ├── MissingAsset            missing_asset          an input cannot be fetched, or may not be used
    │   └── AssetUnavailable    missing_asset          S3 did not answer; the request is good
    ├── NodeExecutionError      node_execution_error   a node raised
    ├── OutOfMemory             out_of_memory          the GPU or the host ran out of memory
    ├── EngineError
    │   ├── EngineCrashed       engine_crashed         ComfyUI died in the middle of a job
    │   ├── EngineStalled       engine_stalled         ComfyUI lives, but nothing moves any more
    │   └── EngineUnavailable   engine_unavailable     ComfyUI did not start
    ├── WorkerStopped           worker_stopped         the worker was shut down before the job had ended
    ├── WorkerOutdated          worker_outdated        a newer release wrote the job than this worker's
    ├── DeadlineExceeded        deadline_exceeded      the time given was not enough
    ├── Canceled                canceled               somebody asked for the end
    ├── DeliveryFailed          delivery_failed        outputs exist but could not be stored
    ├── JobExpired              job_expired            the job waited in the queue for too long
    └── Refusal                                        the API refuses a request
        ├── Unauthorized        unauthorized           no key, or one that is not valid
        ├── Forbidden           forbidden              a valid key that may not do this
        ├── NotFound            not_found              there is no such job or asset of this owner
        │   └── BlobNotFound    blob_not_found         the owner has no file with this hash
        ├── HashMismatch        hash_mismatch          the bytes are not those that were announced
        ├── AssetInUse          asset_in_use           a job's output goes with its job
        ├── InvalidCursor       invalid_cursor         none of ours
        ├── InvalidMetadata     metadata_invalid       labels beyond the limits
        ├── InvalidFilter       invalid_metadata_filter likewise, of a list
        ├── IdempotencyKeyReuse idempotency_key_reuse  the key has been used for another request
        ├── UnsupportedMediaType unsupported_media_type not JSON (or a multipart form, for uploads)
        ├── TooLarge            payload_too_large      more than can be sent this way
        ├── QueueFull           queue_full             too many jobs wait
        ├── RateLimited         rate_limited           too many requests of this key
        └── UpstreamError       upstream_error         AWS itself failed

The codes are those of the Comfy API v2 wherever it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class ComfyError(Exception):
    """A failure with a stable `code`, a message for people, and `details` for programs.

    Attributes:
        code: the machine-readable class of the failure; never changes between releases.
        http_status: the status an HTTP answer carries for it.
        retryable: whether the same request may succeed when it is sent again unchanged.
        by_itself: what happens without anybody's doing, for docs/errors.md (`tools/docs_pages.py`).
        message: what happened, where, and what to do.
        details: JSON-serialisable facts: node ids, exit codes, the end of the log.
        outputs: what the workflow had made before it failed; nothing of it is dropped.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    by_itself: ClassVar[str] = "nothing"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        #: `connector.outputs.Output`s; this file imports nothing of ours.
        self.outputs: tuple[Any, ...] = ()


class InternalError(ComfyError):
    """Our own mistake. Reported like any other failure, so that no outcome is lost."""


class InvalidSetting(ComfyError):
    """An environment variable has a value that cannot be used; the message names it."""

    code = "invalid_setting"
    by_itself = "the start fails"


class InvalidRequest(ComfyError):
    """The request is not JSON, misses a field, or has a field of the wrong form; every wrong field is named."""

    code = "invalid_request"
    http_status = 422


class NotJson(InvalidRequest):
    """A request that is not JSON at all."""

    http_status = 400


class PayloadTooLarge(InvalidRequest):
    """More than Lambda takes."""

    http_status = 413


class InvalidWorkflow(ComfyError):
    """ComfyUI refuses the graph, or `set` does not fit it. `details["node_errors"]` lists every error of every node."""

    code = "invalid_workflow"
    http_status = 422


class UiFormatWorkflow(InvalidWorkflow):
    """The workflow was saved by the editor; the API needs the exported form. The message says how to export it."""

    code = "workflow_format_ui"


class MissingAsset(ComfyError):
    """An input cannot be fetched, is not what it should be, or is not allowed."""

    code = "missing_asset"
    http_status = 422


class AssetUnavailable(MissingAsset):
    """S3 could not be reached or did not answer as it should. Nothing is wrong with the request."""

    http_status = 503
    retryable = True


class NodeExecutionError(ComfyError):
    """A node raised. `details` has node_id, class_type, exception_type, traceback."""

    code = "node_execution_error"
    by_itself = "nothing is run again; what was made before is delivered"


class OutOfMemory(ComfyError):
    """The GPU or the host ran out of memory, also after ComfyUI was asked to free what it holds."""

    code = "out_of_memory"
    by_itself = "memory is freed, and the job run once more"


class EngineError(ComfyError):
    """Something is wrong with the ComfyUI process rather than with the workflow. Never raised itself."""

    code = ""
    http_status = 503
    retryable = True


class EngineCrashed(EngineError):
    """ComfyUI died in the middle of a job. `details` has exit_code and log_tail."""

    code = "engine_crashed"
    by_itself = "ComfyUI is restarted, and the job run once more"


class EngineStalled(EngineError):
    """ComfyUI answers, but nothing has moved for `stall_s` seconds."""

    code = "engine_stalled"
    by_itself = "ComfyUI is replaced; the job fails"


class EngineUnavailable(EngineError):
    """ComfyUI did not start. `details` has exit_code and log_tail when it died."""

    code = "engine_unavailable"
    by_itself = "the job fails; a queue delivers it again"


class WorkerStopped(ComfyError):
    """The worker that had the job was shut down (SIGTERM: scale-in, a spot instance taken back)."""

    code = "worker_stopped"
    http_status = 503
    retryable = True
    by_itself = "the job fails; a queue delivers it again"


class WorkerOutdated(ComfyError):
    """A newer release has written the job than this worker's image can run: the job waits for a newer worker."""

    code = "worker_outdated"
    http_status = 503
    retryable = True


class DeadlineExceeded(ComfyError):
    """The job's deadline, or the time left to this invocation, was not enough."""

    code = "deadline_exceeded"
    http_status = 504
    by_itself = "the run is interrupted, and what was made is delivered"


class Canceled(ComfyError):
    """The job was canceled on request."""

    code = "canceled"
    http_status = 409
    by_itself = "the run is interrupted, or taken from the queue, and that is confirmed"


class DeliveryFailed(ComfyError):
    """Outputs exist but could not be stored; the files stay where they are."""

    code = "delivery_failed"
    http_status = 502
    retryable = True
    by_itself = "storing is tried again; the files are kept"


class JobExpired(ComfyError):
    """The job waited in the queue for as long as messages are kept, and no worker has begun it."""

    code = "job_expired"
    by_itself = "nothing: submit it again"


class Refusal(ComfyError):
    """The API refuses a request, or cannot do it now. Never raised itself.

    Attributes:
        retry_after_s: when it is worth another try, in seconds; None where it is not.
    """

    code = ""
    retry_after_s: ClassVar[int | None] = None


class Unauthorized(Refusal):
    """There is no API key, or it is unknown, revoked or expired."""

    code = "unauthorized"
    http_status = 401


class Forbidden(Refusal):
    """The API key is good, but not for this."""

    code = "forbidden"
    http_status = 403


class NotFound(Refusal):
    """There is no such thing, or it is somebody else's: nobody can tell the two apart."""

    code = "not_found"
    http_status = 404


class BlobNotFound(NotFound):
    """The owner has stored no file with this hash."""

    code = "blob_not_found"


class HashMismatch(Refusal):
    """The bytes that came have another hash than was announced."""

    code = "hash_mismatch"
    http_status = 409


class AssetInUse(Refusal):
    """The record cannot be deleted yet."""

    code = "asset_in_use"
    http_status = 409


class InvalidCursor(Refusal):
    """A cursor that no list of ours has answered. (The code is the official SDK's.)"""

    code = "invalid_cursor"
    http_status = 422


class InvalidMetadata(Refusal):
    """Labels that are too many, too long, or no texts. (The code is the official SDK's.)"""

    code = "metadata_invalid"
    http_status = 422


class InvalidFilter(Refusal):
    """A list is asked for by labels that cannot be. (The code is the official SDK's.)"""

    code = "invalid_metadata_filter"
    http_status = 422


class IdempotencyKeyReuse(Refusal):
    """A request with this key has been taken already."""

    code = "idempotency_key_reuse"
    http_status = 422


class TooLarge(Refusal):
    """The body has more bytes than this way takes; the message names the way that does."""

    code = "payload_too_large"
    http_status = 413


class UnsupportedMediaType(Refusal):
    """The body is of a type that nothing here takes."""

    code = "unsupported_media_type"
    http_status = 415


class QueueFull(Refusal):
    """As many jobs wait as are allowed to."""

    code = "queue_full"
    http_status = 429
    retryable = True
    retry_after_s = 10


class RateLimited(Refusal):
    """The key has had as many requests as it may have in a minute."""

    code = "rate_limited"
    http_status = 429
    retryable = True
    retry_after_s = 60


class UpstreamError(Refusal):
    """S3, SQS or DynamoDB did not do their part; nothing is wrong with the request."""

    code = "upstream_error"
    http_status = 500
    retryable = True
    retry_after_s = 2


def all_errors(kind: type[ComfyError] = ComfyError) -> Iterator[type[ComfyError]]:
    """A class of errors and all below it, in the order of the tree."""
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


#: The HTTP status of a stored failure, by its code: that of the class which brings the code in.
STATUSES: Mapping[str, int] = {kind.code: kind.http_status for kind in all_errors() if vars(kind).get("code")}
