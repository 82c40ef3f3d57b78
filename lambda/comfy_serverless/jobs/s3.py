"""S3, as the jobs use it: one client, whole small documents, and errors that say what to do."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.errors import ComfyError, InvalidRequest, MissingAsset

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Largest JSON document read from S3: a workflow or a request.
MAX_DOCUMENT_BYTES = 32_000_000
#: Connections, and so uploads and downloads, at the same time.
MAX_CONNECTIONS = 32

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
_TRANSIENT = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "503", "500"})


class AssetUnavailable(MissingAsset):
    """S3 could not be reached or did not answer as it should. Nothing is wrong with the request."""

    http_status = 503
    retryable = True


class NotJson(InvalidRequest):
    """A request that is not JSON at all."""

    http_status = 400


class S3Address(NamedTuple):
    """An object: `s3://bucket/key`."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> S3Address:
        """Read an address.

        Raises:
            InvalidRequest: it names no bucket or no key.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise InvalidRequest(f"{text[:200]!r} is not an address of the form s3://bucket/key.")
        return cls(match[1], match[2])


def create_client() -> S3Client:
    """The client for everything, with standard retries.

    Links name the bucket's region ("virtual": without it the first request is redirected, and a redirected signature
    is not valid); a local server that stands in for S3 has no host names for buckets ("path").
    """
    is_local = bool(os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3"))
    return boto3.client(
        "s3",
        config=Config(
            signature_version="s3v4",
            retries={"mode": "standard", "total_max_attempts": 5},
            max_pool_connections=MAX_CONNECTIONS,
            connect_timeout=5,
            read_timeout=60,
            s3={"addressing_style": "path" if is_local else "virtual"},
        ),
    )


def read_json(s3: S3Client, address: S3Address, *, what: str) -> Any:  # noqa: ANN401
    """The JSON in an object.

    Args:
        what: what it is for people, e.g. "the workflow".

    Raises:
        MissingAsset: it is not there, may not be read, or is too large.
        NotJson: it is not JSON.
        AssetUnavailable: S3 itself failed.
    """
    try:
        answer = s3.get_object(Bucket=address.bucket, Key=address.key)
        if answer["ContentLength"] > MAX_DOCUMENT_BYTES:
            raise MissingAsset(
                f"{what} {address} has {answer['ContentLength']:,} bytes; at most {MAX_DOCUMENT_BYTES:,} are read. "
                "Put images beside it in S3 and name them as s3:// inputs."
            )
        content = answer["Body"].read()
    except (ClientError, BotoCoreError) as error:
        raise explain(error, address, what=what) from error
    return parse_json(content, source=f"{what} {address}")


def parse_json(content: bytes | str, *, source: str) -> Any:  # noqa: ANN401
    """JSON out of bytes.

    Raises:
        NotJson: saying where it breaks.
    """
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


def explain(error: Exception, address: S3Address, *, what: str) -> ComfyError:
    """What a failed read means."""
    code = error_code(error)
    if code in _NOT_FOUND:
        return MissingAsset(f"{what} {address} does not exist.")
    if code == "NoSuchBucket":
        return MissingAsset(f"{what} {address}: there is no bucket {address.bucket!r}.")
    if code in {"403", "AccessDenied", "AllAccessDisabled"}:
        return MissingAsset(
            f"{what} {address} may not be read, or does not exist. The worker's role needs s3:GetObject on it, "
            "and s3:ListBucket on the bucket to tell the two apart."
        )
    if isinstance(error, BotoCoreError) or code in _TRANSIENT:
        return AssetUnavailable(f"{what} {address} could not be read: {error}")
    return MissingAsset(f"{what} {address} cannot be read: {error}")


def error_code(error: Exception) -> str:
    """S3's own code of a failure, "" where it gave none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
