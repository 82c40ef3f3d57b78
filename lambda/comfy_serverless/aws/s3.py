"""S3, as the jobs use it: one client, whole small documents, and errors that say what to do.

This module knows addresses without AWS's libraries: a function that needs the libraries imports them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from comfy_serverless.errors import AssetUnavailable, InvalidRequest, MissingAsset, NotJson
from comfy_serverless.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_Answer = TypeVar("_Answer")

#: Largest JSON document read from S3: a workflow, a request or a result.
MAX_DOCUMENT_BYTES = 32_000_000
#: Connections, and so uploads and downloads, at the same time.
MAX_CONNECTIONS = 32
#: How often a request is sent at most, and how long S3 may be silent each time, in seconds.
ATTEMPTS = 5
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 20

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
EXISTS_ALREADY = frozenset({"PreconditionFailed", "412"})
#: Another worker writes the same key at this moment: S3 wants the request again.
CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
#: S3 has forgotten an upload in parts: aborted, or completed by a request whose answer was lost.
UPLOAD_GONE = frozenset({"NoSuchUpload"})
_CONFLICT_PAUSES_S = (0.05, 0.2, 0.5)
ACCESS_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled"})
NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
_TRANSIENT = frozenset({"ExpiredToken", "RequestTimeout", "RequestTimeTooSkewed", "SlowDown"})
_OTHER_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)


class DocumentTooLarge(Exception):
    """An object has more bytes than a JSON document may have."""


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


def read_json(s3: S3Client, address: S3Address, *, what: str) -> Any:  # noqa: ANN401
    """The JSON in an object, which `what` describes for people, e.g. "the workflow".

    Raises:
        MissingAsset: it is not there, may not be read, or is too large.
        NotJson: it is not JSON.
        AssetUnavailable: S3 itself failed.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        content = read_document(s3, address).content
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


def read_document(s3: S3Client, address: S3Address) -> Document:
    """An object that is small, as everything read at once must be. Raises DocumentTooLarge if it is not.

    S3's own exceptions pass through: `read_problem` explains them.
    """
    answer = s3.get_object(Bucket=address.bucket, Key=address.key)
    if answer["ContentLength"] > MAX_DOCUMENT_BYTES:
        answer["Body"].close()
        raise DocumentTooLarge(
            f"{address} has {answer['ContentLength']:,} bytes; at most {MAX_DOCUMENT_BYTES:,} are read"
        )
    return Document(answer["Body"].read(), answer["ETag"])


def parse_json(content: bytes | str, *, source: str) -> Any:  # noqa: ANN401
    """JSON out of bytes. Raises NotJson, which says where it breaks."""
    if not content.strip():
        raise NotJson(f"{source} is empty; it should be a job request in JSON.")
    try:
        return json.loads(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except UnicodeDecodeError as error:
        raise NotJson(f"{source} is not JSON: it is not UTF-8 text (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
    except ValueError as error:  # a number of thousands of digits
        raise NotJson(f"{source} is not JSON we can read: {error}.") from None
    except RecursionError:
        raise NotJson(f"{source} is nested too deeply.") from None


class ReadProblem(NamedTuple):
    """The reason why S3 did not hand out an object: the end of a sentence that begins with its address."""

    reason: str
    is_transient: bool = False


def read_problem(error: Exception, address: S3Address) -> ReadProblem:
    """The meaning of a failed read for the person who sent the job, and whether repeating it may help."""
    from botocore.exceptions import BotoCoreError

    code = error_code(error)
    if code in NOT_FOUND:
        is_encoded = re.search(r"%[0-9A-Fa-f]{2}|\+", address.key)
        hint = "; keys are written as they are, not URL-encoded" if is_encoded else ""
        return ReadProblem(f"does not exist ({code}){hint}")
    if code == "NoSuchBucket":
        return ReadProblem(f"does not exist: there is no bucket {address.bucket!r} ({code})")
    if code in ACCESS_DENIED:
        return ReadProblem(
            f"may not be read ({code}). The worker's role needs s3:GetObject on it, and kms:Decrypt if it is encrypted "
            "with a KMS key. Without s3:ListBucket on the bucket S3 answers the same for a key that does not exist: "
            "check the key too"
        )
    if code in _OTHER_REGION:
        return ReadProblem(f"is in a bucket of another region than the worker's S3 client ({code})")
    if code == "InvalidObjectState":
        return ReadProblem(f"is archived ({code}): restore it first, then send the job again")
    if isinstance(error, BotoCoreError) or code in _TRANSIENT or _status(error) >= 500:
        return ReadProblem(f"cannot be read now: {error}", is_transient=True)
    return ReadProblem(f"is refused by S3: {error}")


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
