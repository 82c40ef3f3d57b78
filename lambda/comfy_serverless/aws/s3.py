"""S3, as the jobs use it: one client, whole small documents, and errors that say what to do.

This module knows addresses without AWS's libraries: a function that needs the libraries imports them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from comfy_serverless.errors import AssetUnavailable, InvalidRequest, MissingAsset
from comfy_serverless.json_text import MAX_DOCUMENT_BYTES, parse_json
from comfy_serverless.redaction import redacted
from comfy_serverless.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_Answer = TypeVar("_Answer")

#: Connections, and so uploads and downloads, at the same time.
MAX_CONNECTIONS = 32
#: How often a request is sent at most, and how long S3 may be silent each time, in seconds.
ATTEMPTS = 5
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 20

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
#: S3's ETags: the MD5 of the content, or something as long; of an upload in parts with their number.
_ETAG = r"[0-9A-Fa-f]{32}(?:-\d{1,5})?"
_PINNED = re.compile(
    rf"(?P<address>.+)\?(?:versionId=(?P<version>[A-Za-z0-9._~-]{{1,1024}})|etag=(?P<etag>{_ETAG}))", re.DOTALL
)
EXISTS_ALREADY = frozenset({"PreconditionFailed", "412"})
#: Another worker writes the same key at this moment: S3 wants the request again.
CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
#: S3 has forgotten an upload in parts: aborted, or completed by a request whose answer was lost.
UPLOAD_GONE = frozenset({"NoSuchUpload"})
_CONFLICT_PAUSES_S = (0.05, 0.2, 0.5)


class DocumentTooLarge(Exception):
    """An object has more bytes than a JSON document may have."""


class Trouble(Enum):
    """What an error of S3 means. Only the last may be cured by the same request, some time later."""

    MISSING = auto()
    NO_BUCKET = auto()
    DENIED = auto()
    OTHER_REGION = auto()
    ARCHIVED = auto()
    OCCUPIED = auto()
    REFUSED = auto()
    TRANSIENT = auto()


#: S3's codes (API reference, "Error responses"), also those that botocore makes of a bare status. One that is not here
#: is TRANSIENT if S3 calls it a failure of its own (5xx), else REFUSED.
_TROUBLES: Mapping[Trouble, frozenset[str]] = {
    Trouble.MISSING: frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"}),
    Trouble.NO_BUCKET: frozenset({"NoSuchBucket", "InvalidBucketName"}),
    Trouble.DENIED: frozenset({"403", "AccessDenied", "AllAccessDisabled", "AccountProblem"}),
    Trouble.OTHER_REGION: frozenset(
        {
            "301",
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "IncorrectEndpoint",
        }
    ),
    Trouble.ARCHIVED: frozenset({"InvalidObjectState"}),
    Trouble.OCCUPIED: EXISTS_ALREADY,
    Trouble.TRANSIENT: CONFLICT
    | UPLOAD_GONE
    | {
        *("307", "429", "500", "502", "503", "504"),
        *("InternalError", "ServiceUnavailable", "SlowDown", "TemporaryRedirect", "OperationAborted"),
        *("RequestTimeout", "RequestTimeTooSkewed", "RequestLimitExceeded", "Throttling", "ThrottlingException"),
        *("KMS.ThrottlingException", "ExpiredToken", "TokenRefreshRequired"),
        # The bytes, or some of them, have not arrived as they were sent.
        *("BadDigest", "IncompleteBody", "InvalidPart", "XAmzContentSHA256Mismatch"),
    },
}


def trouble_of(error: Exception) -> Trouble:
    """What an error of botocore means, whatever was asked of S3. The only place that knows S3's codes."""
    from botocore.exceptions import BotoCoreError, ParamValidationError

    code = error_code(error)
    if (trouble := next((trouble for trouble, codes in _TROUBLES.items() if code in codes), None)) is not None:
        return trouble
    if isinstance(error, ParamValidationError):
        return Trouble.REFUSED  # nothing was sent: no such name can exist
    if isinstance(error, BotoCoreError) or _status(error) >= 500:
        return Trouble.TRANSIENT
    return Trouble.REFUSED


class S3Address(NamedTuple):
    """An object: `s3://bucket/key`."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> S3Address:
        """Read an address. Raises InvalidRequest if it names no bucket or no key."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise InvalidRequest(f"{text[:200]!r} is not an address of the form s3://bucket/key.")
        return cls(match[1], match[2])


class Pin(NamedTuple):
    """Which version of an object is meant: by its id, or by its ETag where the bucket keeps no versions.

    Without either it is whichever is there.
    """

    version_id: str = ""
    etag: str = ""

    @property
    def conditions(self) -> dict[str, Any]:
        """The arguments of `get_object` and `head_object` that ask for this version and no other."""
        if self.version_id:
            return {"VersionId": self.version_id}
        return {"IfMatch": f'"{self.etag}"'} if self.etag else {}


#: Whichever version is there.
UNPINNED: Final = Pin()


class PinnedAddress(NamedTuple):
    """One version of an object: `s3://bucket/key?versionId=…`, or `?etag=…`; or any of it: `s3://bucket/key`."""

    address: S3Address
    pin: Pin = UNPINNED

    def __str__(self) -> str:
        name, value = ("versionId", self.pin.version_id) if self.pin.version_id else ("etag", self.pin.etag)
        return f"{self.address}?{name}={value}" if value else str(self.address)

    @classmethod
    def parse(cls, text: str) -> PinnedAddress:
        """Read an address. Raises InvalidRequest if it names no bucket or no key."""
        match = _PINNED.fullmatch(text)
        if match is None:
            return cls(S3Address.parse(text))
        return cls(S3Address.parse(match["address"]), Pin(match["version"] or "", match["etag"] or ""))


def etag_of(text: str) -> str:
    """An ETag without its quotes; "" if it is none that S3 gives."""
    bare = text.strip('"')
    return bare if re.fullmatch(_ETAG, bare) else ""


def s3_client() -> S3Client:
    """The client for everything, with standard retries.

    Links name the bucket's region ("virtual": without it the first request is redirected, and a redirected signature
    is not valid); a local server that stands in for S3 has no host names for buckets ("path"). Bodies are not hashed
    for the signature as well: it covers their checksum, which is in a header of every put.
    """
    import boto3
    from botocore.config import Config

    from comfy_serverless.aws.s3_clock import ServerClock

    is_local = bool(os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3"))
    client = boto3.client(
        "s3",
        config=Config(
            signature_version="s3v4",
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=MAX_CONNECTIONS,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            s3={"addressing_style": "path" if is_local else "virtual", "payload_signing_enabled": False},
        ),
    )
    ServerClock().attach(client)
    return client


def read_json(s3: S3Client, address: S3Address, *, what: str, pin: Pin = UNPINNED) -> Any:  # noqa: ANN401
    """The JSON in an object, or in one version of it; `what` describes it for people, e.g. "the workflow".

    Raises:
        MissingAsset: it is not there, may not be read, or is too large.
        NotJson: it is not JSON.
        AssetUnavailable: S3 itself failed.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        content = read_document(s3, address, pin=pin).content
    except DocumentTooLarge as error:
        raise MissingAsset(f"{what} {error}. Put images beside it in S3 and name them as s3:// inputs.") from error
    except (ClientError, BotoCoreError) as error:
        reason, is_transient = read_problem(error, address)
        error_class = AssetUnavailable if is_transient else MissingAsset
        raise error_class(f"{what} {address} {reason}.") from error
    return parse_json(content, source=f"{what} {address}")


class Document(NamedTuple):
    """A small object, whole, and the version of it that was read."""

    content: bytes
    etag: str


def read_document(s3: S3Client, address: S3Address, *, pin: Pin = UNPINNED) -> Document:
    """An object that is small, as everything read at once must be. Raises DocumentTooLarge if it is not.

    S3's own exceptions pass through: `read_problem` explains them.
    """
    answer = s3.get_object(Bucket=address.bucket, Key=address.key, **pin.conditions)
    if answer["ContentLength"] > MAX_DOCUMENT_BYTES:
        answer["Body"].close()
        raise DocumentTooLarge(
            f"{address} has {answer['ContentLength']:,} bytes; at most {MAX_DOCUMENT_BYTES:,} are read"
        )
    return Document(answer["Body"].read(), answer["ETag"])


class Problem(NamedTuple):
    """The reason why S3 did not hand out or take an object: the end of a sentence that begins with its address."""

    reason: str
    is_transient: bool = False


def read_problem(error: Exception, address: S3Address) -> Problem:
    """The meaning of a failed read for the person who sent the job, and whether repeating it may help."""
    code = error_code(error)
    match trouble_of(error):
        case Trouble.MISSING:
            is_encoded = re.search(r"%[0-9A-Fa-f]{2}|\+", address.key)
            hint = "; keys are written as they are, not URL-encoded" if is_encoded else ""
            return Problem(f"does not exist ({code}){hint}")
        case Trouble.NO_BUCKET:
            return Problem(f"does not exist: {_no_bucket(address, code)}")
        case Trouble.DENIED:
            return Problem(
                f"may not be read ({code}). The worker's role needs s3:GetObject on it (s3:GetObjectVersion for one of "
                "its versions), and kms:Decrypt if it is encrypted with a KMS key. "
                "Without s3:ListBucket on the bucket S3 answers the same for a key that does "
                "not exist: check the key too"
            )
        case Trouble.OTHER_REGION:
            return Problem(_elsewhere(code))
        case Trouble.ARCHIVED:
            return Problem(f"is archived ({code}): restore it first, then send the job again")
        case Trouble.OCCUPIED:
            return Problem(
                f"has been written again since, or was meant by an ETag that is not its own ({code}). Its bucket keeps "
                "no versions, so what was meant is gone, and what is there now is not taken for it: each drop is a job "
                "of its own. Write it again under another name"
            )
        case Trouble.TRANSIENT:
            return Problem(f"cannot be read now: {redacted(error)}", is_transient=True)
    return Problem(f"is refused by S3: {redacted(error)}")


def may_pass(error: Exception) -> bool:
    """Whether a write that has failed with this error may succeed some time later."""
    # What a write finds missing was there a moment ago.
    return trouble_of(error) in {Trouble.TRANSIENT, Trouble.MISSING}


def write_problem(error: Exception, address: S3Address) -> Problem:
    """The meaning of a failed write likewise: the end of a sentence that begins with the address."""
    code = error_code(error)
    match trouble_of(error):
        case Trouble.NO_BUCKET:
            return Problem(f"cannot be written: {_no_bucket(address, code)}")
        case Trouble.DENIED:
            return Problem(
                f"may not be written ({code}). The worker's role needs s3:PutObject on it, and kms:GenerateDataKey and "
                "kms:Decrypt if the bucket has a KMS key; if it is another account's, its policy must allow that too"
            )
        case Trouble.OTHER_REGION:
            return Problem(_elsewhere(code))
    if may_pass(error):
        return Problem(f"cannot be written now: {redacted(error)}", is_transient=True)
    return Problem(f"is refused by S3: {redacted(error)}")


def _no_bucket(address: S3Address, code: str) -> str:
    return f"there is no bucket {address.bucket!r} ({code})"


def _elsewhere(code: str) -> str:
    return f"is in a bucket of another region than the worker's S3 client ({code})"


def copy_object(
    s3: S3Client, source: S3Address, target: S3Address, *, etag: str, content_type: str, version_id: str = ""
) -> None:
    """Copy the version of an object that has this ETag, of any size, with neither its tags nor its metadata.

    With a `version_id` that version is copied, whichever is the newest.

    Tags would need rights on both ends (s3:GetObjectTagging, s3:PutObjectTagging), and like metadata they mean
    something to whoever wrote them. S3's own exceptions pass through; if the object has changed, that is
    `Trouble.OCCUPIED`.
    """
    s3.copy(
        CopySource={
            "Bucket": source.bucket,
            "Key": source.key,
            **({"VersionId": version_id} if version_id else {}),  # type: ignore[typeddict-item]
        },
        Bucket=target.bucket,
        Key=target.key,
        ExtraArgs={
            "CopySourceIfMatch": etag,
            "ContentType": content_type,
            "MetadataDirective": "REPLACE",
            "TaggingDirective": "REPLACE",
        },
    )


def copy_and_hash(s3: S3Client, source: S3Address, target: S3Address, *, etag: str, content_type: str) -> str | None:
    """Copy likewise an object of at most 5 GB, in one request; returns the SHA-256 that S3 computes, in base64."""
    answer = s3.copy_object(
        Bucket=target.bucket,
        Key=target.key,
        CopySource={"Bucket": source.bucket, "Key": source.key},
        CopySourceIfMatch=etag,
        ContentType=content_type,
        ChecksumAlgorithm="SHA256",
        MetadataDirective="REPLACE",
        TaggingDirective="REPLACE",
    )
    return answer["CopyObjectResult"].get("ChecksumSHA256")


def unless_in_conflict(write: Callable[[], _Answer]) -> _Answer:
    """Do a conditional write, again while S3 says that another worker is writing the same key at this moment."""
    from botocore.exceptions import ClientError

    for attempt in attempts(_CONFLICT_PAUSES_S):
        try:
            return write()
        except ClientError as error:
            if attempt.is_last or error_code(error) not in CONFLICT:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def error_code(error: Exception) -> str:
    """S3's own code of a failure, "" if it gave none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _status(error: Exception) -> int:
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
