"""Reads models from their two places alike: part by part, always the same version.

Of our credentials nothing goes along but a token, to its own host (`fetch.tokens`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import EXISTS_ALREADY, S3Address, error_code, read_problem
from comfy_serverless.fetch.model_hosts import download_address
from comfy_serverless.fetch.sources import CHUNK_BYTES, S3Source, Unusable, WebAddress, parse
from comfy_serverless.fetch.tokens import NO_TOKENS, Tokens
from comfy_serverless.fetch.web import ByteRange, Network, open_web_address
from comfy_serverless.redaction import redacted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: A part that takes longer than this is requested again, in seconds.
_PART_TIMEOUT_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file being read.

    Attributes:
        first: position of its first byte.
        size_bytes: how many bytes come.
        total_bytes: the size of the whole file.
        version: names the file's present content; "" if the sender does not say.
    """

    chunks: Iterator[bytes]
    first: int
    size_bytes: int
    total_bytes: int
    version: str


class Remote(Protocol):
    """A file somewhere else."""

    def open(self, first: int, last: int, *, version: str, deadline: float) -> AbstractContextManager[Part]:
        """Read from the first to the last byte; a place that knows no parts sends the whole file."""


def remote_of(
    url: str, *, s3: S3Client, network: Network, allowed_buckets: tuple[str, ...], tokens: Tokens = NO_TOKENS
) -> Remote:
    """The file an address names. Raises Unusable if the address is malformed, or not allowed."""
    source = parse(url)
    if isinstance(source, WebAddress):
        return WebFile(download_address(source.url), network, tokens)
    if not isinstance(source, S3Source):
        raise Unusable("is neither s3:// nor https://")
    source.check_allowed(allowed_buckets)
    return S3Object(source.address, s3)


@dataclass(frozen=True)
class S3Object:
    """An object in S3."""

    address: S3Address
    s3: S3Client

    @contextmanager
    def open(self, first: int, last: int, *, version: str, deadline: float) -> Iterator[Part]:  # noqa: ARG002
        """See `Remote`. The client's own limits bound its silence."""
        condition = {"IfMatch": version} if version else {}
        try:
            answer = self.s3.get_object(
                Bucket=self.address.bucket,
                Key=self.address.key,
                Range=f"bytes={first}-{last}",
                **condition,  # type: ignore[arg-type]
            )
        except (ClientError, BotoCoreError) as error:
            if error_code(error) in EXISTS_ALREADY:
                raise Unusable("was replaced while it was being fetched", transient=True) from error
            if error_code(error) == "InvalidRange":
                raise Unusable("is empty") from error
            reason, is_transient = read_problem(error, self.address)
            raise Unusable(reason, transient=is_transient) from error
        body = answer["Body"]
        try:
            size_bytes = answer["ContentLength"]
            yield _part(body.iter_chunks(CHUNK_BYTES), size_bytes, answer.get("ContentRange", ""), answer["ETag"])
        except BotoCoreError as error:
            raise Unusable(f"the connection to S3 broke off: {redacted(error)}", transient=True) from error
        finally:
            body.close()


@dataclass(frozen=True)
class WebFile:
    """A file behind a web address."""

    url: str
    network: Network
    tokens: Tokens = NO_TOKENS

    @contextmanager
    def open(self, first: int, last: int, *, version: str, deadline: float) -> Iterator[Part]:
        """See `Remote`. The first request may be answered with the whole file, which takes its time."""
        limit = min(deadline, time.monotonic() + _PART_TIMEOUT_S) if first else deadline
        asked = ByteRange(first, last, version)
        try:
            with open_web_address(
                self.url, network=self.network, deadline=limit, byte_range=asked, tokens=self.tokens
            ) as stream:
                # A weak ETag names no content, and servers must not accept one as a condition.
                etag = "" if stream.etag.startswith("W/") else stream.etag
                yield _part(stream.chunks, stream.size_bytes, stream.content_range, etag)
        except Unusable as failure:
            if failure.timed_out and limit < deadline:
                raise Unusable(f"a part did not come within {_PART_TIMEOUT_S:g} s", transient=True) from failure
            raise


def _part(chunks: Iterator[bytes], size_bytes: int | None, content_range: str, version: str) -> Part:
    if size_bytes is None:
        raise Unusable("the server does not say how large it is (Content-Length), which a model needs")
    if not content_range:
        return Part(chunks, 0, size_bytes, size_bytes, version)
    match = _CONTENT_RANGE.fullmatch(content_range.strip())
    if match is None:
        raise Unusable("the server's Content-Range cannot be understood")
    first, last, total_bytes = map(int, match.groups())
    if last - first + 1 != size_bytes or last >= total_bytes:
        raise Unusable("the server's Content-Range and Content-Length contradict each other")
    return Part(chunks, first, size_bytes, total_bytes, version)
