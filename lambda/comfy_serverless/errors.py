"""Every way a job can fail, as one tree of exceptions with stable codes.

    ComfyError
    ├── InternalError           internal_error         our own mistake
    ├── InvalidSetting          invalid_setting        an environment variable cannot be used
    ├── InvalidRequest          invalid_request        the request itself is malformed
    │   ├── NotJson             invalid_request        it is no JSON at all
    │   ├── KeyInManifest       invalid_request        a line may hold a key, and lines are kept
    │   └── PayloadTooLarge     invalid_request        it has more bytes than Lambda takes
    ├── InvalidWorkflow         invalid_workflow       ComfyUI refuses the graph, or `set` does not fit it
    │   └── UiFormatWorkflow    workflow_format_ui     what the editor saved cannot be converted
    ├── MissingAsset            missing_asset          an input cannot be fetched, or may not be used
    │   └── AssetUnavailable    missing_asset          S3 did not answer; the request is good
    ├── NodeExecutionError      node_execution_error   a node raised
    ├── OutOfMemory             out_of_memory          the GPU or the host ran out of memory
    ├── EngineError
    │   ├── EngineCrashed       engine_crashed         ComfyUI died in the middle of a job
    │   ├── EngineStalled       engine_stalled         ComfyUI lives, but nothing moves
    │   └── EngineUnavailable   engine_unavailable     ComfyUI did not start
    ├── WorkerStopped           worker_stopped         the worker was shut down before the job had ended
    ├── WorkerOutdated          worker_outdated        a newer release wrote the job than this worker's
    ├── DeadlineExceeded        deadline_exceeded      the time given was not enough
    ├── Canceled                canceled               a caller asked for the end
    ├── DeliveryFailed          delivery_failed        outputs exist but could not be stored
    │   └── DeliveryRefused     delivery_failed        S3 refuses them, and would again
    ├── JobExpired              job_expired            the job waited in the queue for too long
    ├── InvalidBuildFile        invalid_build_file     a comfy-build.yaml cannot be used
    ├── InvalidLock             invalid_lock           a comfy-build.lock cannot be read
    ├── NotLocked               environment_not_locked an environment cannot be locked
    │   ├── PackUnavailable     pack_unavailable       a pack, or ComfyUI, cannot be had
    │   ├── LibraryUnavailable  library_unavailable    a library, or a version of it, cannot be had
    │   └── EnvironmentConflict environment_conflict   what is asked for cannot be together
    └── Refusal                                        the API refuses a request
        ├── Unauthorized        unauthorized           no key, or one that is not valid
        ├── Forbidden           forbidden              a valid key that may not do this
        │   └── BudgetExceeded  budget_exceeded        the key's jobs have cost what they may this month
        ├── NotFound            not_found              there is no such job or asset of this owner
        │   └── BlobNotFound    blob_not_found         the owner has no file with this hash
        ├── HashMismatch        hash_mismatch          the bytes are not those that were announced
        ├── AssetInUse          asset_in_use           a job's output goes with its job
        ├── WorkflowChanged     workflow_changed       somebody else has changed it meanwhile
        ├── WrongBatchState     batch_state            the batch has ended, or has not yet
        ├── InvalidCursor       invalid_cursor         the cursor is not one of ours
        ├── InvalidMetadata     metadata_invalid       labels beyond the limits
        ├── InvalidFilter       invalid_metadata_filter likewise, of a list
        ├── IdempotencyKeyReuse idempotency_key_reuse  the key has been used for another request
        ├── UnsupportedMediaType unsupported_media_type not JSON (or a multipart form, for uploads)
        ├── TooLarge            payload_too_large      more than can be sent this way
        ├── QueueFull           queue_full             too many jobs wait
        │   └── KeyFull         queue_full             likewise, of one key
        ├── RateLimited         rate_limited           too many requests of this key
        ├── TooManyStreams      too_many_streams       too many streams of this owner's events are open
        └── UpstreamError       upstream_error         AWS itself failed

The codes are those of the Comfy API v2 wherever it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar


class Kind(StrEnum):
    """Whom a failure concerns; the alarms go by it.

    Attributes:
        REQUEST: its author, who has to change something. The operator cannot.
        INFRASTRUCTURE: the operator, at once: nothing is wrong with the request, or nobody can tell.
        HANDOVER: nobody, since the job goes on with another worker; the operator, if there are such failures for long.
    """

    REQUEST = "request"
    INFRASTRUCTURE = "infrastructure"
    HANDOVER = "handover"


class ComfyError(Exception):
    """A failure with a stable `code`, a message for people, and `details` for programs.

    Attributes:
        code: the machine-readable class of the failure; never changes between releases.
        http_status: the status an HTTP answer carries for it.
        retryable: whether the same request may succeed when it is sent again unchanged.
        kind: whom it concerns. A new class concerns the operator until it says otherwise.
        by_itself: what happens without anyone's action, for docs/errors.md (`tools/docs_pages.py`).
        message: what happened, where, and what to do.
        details: JSON-serialisable facts: node ids, exit codes, the end of the log.
        outputs: the outputs the workflow had made before it failed, all of them.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.INFRASTRUCTURE
    by_itself: ClassVar[str] = "nothing"

    def __init_subclass__(cls, **facts: object) -> None:
        """Take the facts below, from `code` to `by_itself`, as keywords of a class; the others are inherited."""
        super().__init_subclass__()
        for name, fact in facts.items():
            setattr(cls, name, fact)

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        #: `connector.outputs.Output`s, and the `connector.facts.Timings` of the run that failed; this file imports
        #: nothing of ours.
        self.outputs: tuple[Any, ...] = ()
        self.timings: Any = None


class InternalError(ComfyError):
    """Our own mistake. Reported like any other failure, so that no outcome is lost."""


class InvalidSetting(ComfyError, code="invalid_setting", by_itself="the start fails"):
    """An environment variable has a value that cannot be used; the message names it."""


class InvalidRequest(ComfyError, code="invalid_request", http_status=422, kind=Kind.REQUEST):
    """The request is not JSON, misses a field, or has a field of the wrong form; every wrong field is named."""


class NotJson(InvalidRequest, ValueError, http_status=400):
    """A request that is not JSON at all."""


class KeyInManifest(InvalidRequest):
    """A line of a manifest has data that may be or hold a key. Lines are kept in S3; such a one is copied nowhere."""


class PayloadTooLarge(InvalidRequest, http_status=413):
    """More than Lambda takes."""


class InvalidWorkflow(ComfyError, code="invalid_workflow", http_status=422, kind=Kind.REQUEST):
    """ComfyUI refuses the graph, or `set` does not fit it. `details["node_errors"]` lists every error of every node."""


class UiFormatWorkflow(InvalidWorkflow, code="workflow_format_ui"):
    """The editor saved the workflow, and it cannot be converted; `details.reasons` has every reason."""


class MissingAsset(ComfyError, code="missing_asset", http_status=422, kind=Kind.REQUEST):
    """An input cannot be fetched, is not what it should be, or is not allowed."""


class AssetUnavailable(
    MissingAsset,
    http_status=503,
    retryable=True,
    kind=Kind.INFRASTRUCTURE,
    by_itself="fetching is tried again; then the job fails, retryable",
):
    """S3 could not be reached or did not answer as it should. Nothing is wrong with the request."""


class NodeExecutionError(
    ComfyError,
    code="node_execution_error",
    kind=Kind.REQUEST,
    by_itself="nothing is run again; what was made before is delivered",
):
    """A node raised. `details` has node_id, class_type, exception_type, traceback."""


class OutOfMemory(ComfyError, code="out_of_memory", by_itself="memory is freed, and the job run once more"):
    """The GPU or the host ran out of memory, also after ComfyUI was asked to free what it holds."""


class EngineError(ComfyError, code="", http_status=503, retryable=True):
    """Something is wrong with the ComfyUI process rather than with the workflow. Never raised itself."""


class EngineCrashed(EngineError, code="engine_crashed", by_itself="ComfyUI is restarted, and the job run once more"):
    """ComfyUI died in the middle of a job. `details` has exit_code and log_tail."""


class EngineStalled(EngineError, code="engine_stalled", by_itself="ComfyUI is replaced; the job fails"):
    """ComfyUI answers, but nothing has moved for `stall_s` seconds."""


class EngineUnavailable(EngineError, code="engine_unavailable", by_itself="the job fails; a queue delivers it again"):
    """ComfyUI did not start. `details` has exit_code and log_tail if it died."""


class WorkerStopped(
    ComfyError,
    code="worker_stopped",
    http_status=503,
    retryable=True,
    kind=Kind.HANDOVER,
    by_itself="the job fails; a queue delivers it again",
):
    """The worker that had the job was shut down (SIGTERM: scale-in, a spot instance taken back)."""


class WorkerOutdated(
    ComfyError,
    code="worker_outdated",
    http_status=503,
    retryable=True,
    kind=Kind.HANDOVER,
    by_itself="the job is put back, and sent again until a newer worker runs it",
):
    """A newer release has written the job than this worker's image can run: the job waits for a newer worker."""


class DeadlineExceeded(
    ComfyError,
    code="deadline_exceeded",
    http_status=504,
    kind=Kind.REQUEST,
    by_itself="the run is interrupted, and what was made is delivered",
):
    """The job's deadline, or the time left to this invocation, was not enough."""


class Canceled(
    ComfyError,
    code="canceled",
    http_status=409,
    kind=Kind.REQUEST,
    by_itself="the run is interrupted, or taken from the queue, and that is confirmed",
):
    """The job was canceled on request."""


class DeliveryFailed(
    ComfyError,
    code="delivery_failed",
    http_status=502,
    retryable=True,
    by_itself="storing is tried again; the files are kept",
):
    """Outputs exist but could not be stored; the files stay where they are."""


class DeliveryRefused(
    DeliveryFailed, retryable=False, by_itself="nothing is run again; the outcome is written to OUTPUT_BUCKET"
):
    """S3 refuses what a job has made: no right to write, no such bucket, another region. It would refuse it again."""


class JobExpired(ComfyError, code="job_expired", by_itself="nothing: submit it again"):
    """The job waited in the queue for as long as messages are kept, and no worker has begun it."""


class InvalidBuildFile(ComfyError, code="invalid_build_file", http_status=422, kind=Kind.REQUEST):
    """A `comfy-build.yaml` cannot be used as it stands. `details.problems` has each problem: line, key, message."""


class InvalidLock(ComfyError, code="invalid_lock", http_status=422, kind=Kind.REQUEST):
    """A `comfy-build.lock` is no such file, is damaged, or is of another version; the message names the key."""


class NotLocked(ComfyError, code="environment_not_locked", http_status=422, kind=Kind.REQUEST):
    """An environment cannot be locked, so nothing was written. `details.problems` has each reason."""


class PackUnavailable(NotLocked, code="pack_unavailable"):
    """A pack, or ComfyUI itself, cannot be had as the build file names it; the message has the entry and what to do."""


class LibraryUnavailable(NotLocked, code="library_unavailable"):
    """A library cannot be had for the image's Python and platform; the message says who asks for it."""


class EnvironmentConflict(NotLocked, code="environment_conflict"):
    """What ComfyUI and the packs ask for cannot be installed together. `details.override` is what would resolve it."""


class Refusal(ComfyError, code="", kind=Kind.REQUEST):
    """The API refuses a request, or cannot do it now. Never raised itself.

    Attributes:
        retry_after_s: when it is worth another try, in seconds; None if it is not.
    """

    retry_after_s: ClassVar[int | None] = None


class Unauthorized(Refusal, code="unauthorized", http_status=401):
    """There is no API key, or it is unknown, revoked or expired."""


class Forbidden(Refusal, code="forbidden", http_status=403):
    """The API key is good, but not for this."""


class BudgetExceeded(Forbidden, code="budget_exceeded"):
    """The jobs of this key have cost as much as they may in a month; `details` has both sums."""


class NotFound(Refusal, code="not_found", http_status=404):
    """There is no such thing, or it belongs to another owner: a caller cannot tell the two apart."""


class BlobNotFound(NotFound, code="blob_not_found"):
    """The owner has stored no file with this hash."""


class HashMismatch(Refusal, code="hash_mismatch", http_status=409):
    """The bytes that came have another hash than was announced."""


class AssetInUse(Refusal, code="asset_in_use", http_status=409):
    """The record cannot be deleted yet."""


class WorkflowChanged(Refusal, code="workflow_changed", http_status=409):
    """Somebody else has pushed a named workflow or moved its alias meanwhile; `details` has what is so now."""


class WrongBatchState(Refusal, code="batch_state", http_status=409):
    """The batch has ended, or has not yet: that cannot be done with it now."""


class InvalidCursor(Refusal, code="invalid_cursor", http_status=422):
    """A cursor that no list of ours has returned. (The code is the official SDK's.)"""


class InvalidMetadata(Refusal, code="metadata_invalid", http_status=422):
    """Labels that are too many, too long, or no texts. (The code is the official SDK's.)"""


class InvalidFilter(Refusal, code="invalid_metadata_filter", http_status=422):
    """A list is filtered by labels that cannot exist. (The code is the official SDK's.)"""


class IdempotencyKeyReuse(Refusal, code="idempotency_key_reuse", http_status=422):
    """A request with this key has been taken already."""


class TooLarge(Refusal, code="payload_too_large", http_status=413):
    """The body has more bytes than this way takes; the message names the way that takes them."""


class UnsupportedMediaType(Refusal, code="unsupported_media_type", http_status=415):
    """The body is of a type that is not accepted."""


class QueueFull(Refusal, code="queue_full", http_status=429, retryable=True, kind=Kind.INFRASTRUCTURE):
    """As many jobs wait as are allowed to."""

    retry_after_s = 10


class KeyFull(QueueFull, kind=Kind.REQUEST):
    """As many jobs of this key wait and run as it may have at once."""


class RateLimited(Refusal, code="rate_limited", http_status=429, retryable=True):
    """The key has had as many requests as it may have in a minute."""

    retry_after_s = 60


class TooManyStreams(Refusal, code="too_many_streams", http_status=429, retryable=True):
    """As many streams of live events are open as an owner may have."""

    retry_after_s = 10


class UpstreamError(Refusal, code="upstream_error", http_status=500, retryable=True, kind=Kind.INFRASTRUCTURE):
    """S3, SQS or DynamoDB did not do their part; nothing is wrong with the request."""

    retry_after_s = 2


def all_errors(kind: type[ComfyError] = ComfyError) -> Iterator[type[ComfyError]]:
    """A class of errors and all below it, in the order of the tree."""
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


#: The HTTP status of a stored failure, by its code: that of the class which brings the code in.
STATUSES: Mapping[str, int] = {kind.code: kind.http_status for kind in all_errors() if vars(kind).get("code")}

_KINDS: Mapping[str, Kind] = {kind.code: kind.kind for kind in all_errors() if vars(kind).get("code")}


def kind_of(code: str, *, retryable: bool) -> Kind:
    """Whom a stored failure concerns.

    If its request may succeed unchanged, nothing is wrong with that: an invocation was too short, an input could not be
    fetched. A code that is not ours concerns the operator.
    """
    kind = _KINDS.get(code, Kind.INFRASTRUCTURE)
    return Kind.INFRASTRUCTURE if retryable and kind is Kind.REQUEST else kind
