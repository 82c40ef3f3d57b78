"""Signs with S3's clock if ours is wrong: a sandbox that thaws can be hours behind.

S3 refuses a request signed more than fifteen minutes off (`RequestTimeTooSkewed`). botocore gives up then; here the
`Date` of the refusal gives the difference, and the request, like all that follow, is signed with it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore import auth

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

#: The names of our signers among botocore's; the second one makes links.
_VERSIONS = {"s3v4": "s3v4-corrected", "s3v4-query": "s3v4-corrected-query"}
_OFFSET = "comfy_serverless.clock_offset"


class _Corrected:
    """Signs with the time that the request's context says."""

    def _modify_request_before_signing(self, request: Any) -> None:  # noqa: ANN401
        request.context["timestamp"] = (datetime.now(UTC) + request.context[_OFFSET]).strftime(auth.SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)  # type: ignore[misc]


class _CorrectedHeaders(_Corrected, auth.S3SigV4Auth):
    """For requests."""


class _CorrectedLinks(_Corrected, auth.S3SigV4QueryAuth):
    """For presigned links."""


auth.AUTH_TYPE_MAPS.update({"s3v4-corrected": _CorrectedHeaders, "s3v4-corrected-query": _CorrectedLinks})


class ServerClock:
    """The difference between S3's clock and ours."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def attach(self, client: S3Client) -> None:
        """Let a client sign with S3's time, from its first refusal on."""
        # The stubs know no handlers that return a value.
        client.meta.events.register_first("needs-retry.s3", self._learn)  # type: ignore[arg-type]
        client.meta.events.register_first("choose-signer.s3", self._choose)  # type: ignore[arg-type]

    def _learn(self, *, response: Any, attempts: int, **_: object) -> float | None:  # noqa: ANN401
        """Return 0 ("send it again now") for the first refusal for its time; None leaves it to the other rules."""
        code = response[1].get("Error", {}).get("Code") if response is not None else None
        if attempts > 1 or code != "RequestTimeTooSkewed":
            return None
        try:
            server_time = parsedate_to_datetime(response[1]["ResponseMetadata"]["HTTPHeaders"]["date"])
        except (KeyError, ValueError):
            return None
        self.offset = server_time - datetime.now(UTC)
        logger.warning("our clock is wrong: S3's shows %+.0f s", self.offset.total_seconds())
        return 0

    def _choose(self, *, signature_version: Any, context: dict[str, Any], **_: object) -> str | None:  # noqa: ANN401
        version = _VERSIONS.get(signature_version) if self.offset else None
        if version is not None:
            context[_OFFSET] = self.offset
        return version
