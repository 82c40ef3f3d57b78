"""One invocation of an asynchronous endpoint: what SageMaker takes, and how it reports the end. No IO.

The limits are those of AWS's own description of the service, which comes with botocore.
"""

from __future__ import annotations

import functools
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import botocore.session

from local.aws.server import REGION

HEADER = "X-Amzn-SageMaker-"
DEFAULT_TTL_S, DEFAULT_TIMEOUT_S = 21_600, 900
_TTL = "RequestTTLSeconds"
#: How AWS writes what Python's regular expressions have no name for.
_PYTHON_FOR = {r"\p{ASCII}": r"[\x00-\x7f]", r"[\p{Print}]": r"[\x20-\x7e]", r"\A": "", r"\z": ""}


class Refused(ValueError):
    """A request that SageMaker would not take."""


class FailureLayout(StrEnum):
    """Where a notification has the reason of a failure: AWS uses both."""

    NESTED = "nested"
    FLAT = "flat"


@dataclass(eq=False, slots=True, kw_only=True)
class Invocation:
    """One request that waits or runs.

    Attributes:
        body: what came inline; None for what lies at `location`.
        headers: what a container gets with it.
        key: where its output goes below the output path, and its failure below the failure path.
        deliveries: how often a container has got it.
    """

    inference_id: str
    body: bytes | None
    location: str
    headers: Mapping[str, str]
    key: str
    ttl_s: int = DEFAULT_TTL_S
    timeout_s: int = DEFAULT_TIMEOUT_S
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    received: float = field(default_factory=time.monotonic)
    deliveries: int = 0

    @property
    def has_expired(self) -> bool:
        """Whether it has waited too long."""
        return time.monotonic() - self.received >= self.ttl_s

    @classmethod
    def of(cls, headers: Mapping[str, str], body: bytes, *, shortest_ttl_s: int | None = None) -> Invocation:
        """What a request asks for.

        Args:
            shortest_ttl_s: a limit below AWS's.

        Raises:
            Refused: SageMaker would.
        """
        given = _given(headers, least={_TTL: shortest_ttl_s} if shortest_ttl_s is not None else {})
        if ("InputLocation" in given) == bool(body):
            raise Refused("Exactly one of InputLocation and Body must be given.")
        if len(body) > (most := _members()["Body"].metadata["max"]):
            raise Refused(f"Body has {len(body)} bytes; at most {most} are possible.")
        attributes = given.get("CustomAttributes")
        return cls(
            inference_id=given.get("InferenceId") or str(uuid.uuid4()),
            body=body or None,
            location=given.get("InputLocation", ""),
            headers={
                "Content-Type": given.get("ContentType", "application/octet-stream"),
                "Accept": given.get("Accept", "*/*"),
                **({f"{HEADER}Custom-Attributes": attributes} if attributes is not None else {}),
            },
            key="/".join(
                part.strip("/")
                for part in (given.get("S3OutputPathExtension"), given.get("Filename", f"{uuid.uuid4()}.out"))
                if part
            ),
            ttl_s=int(given.get(_TTL, DEFAULT_TTL_S)),
            timeout_s=int(given.get("InvocationTimeoutSeconds", DEFAULT_TIMEOUT_S)),
        )

    def notification(
        self, endpoint: str, status: str, *, layout: FailureLayout = FailureLayout.NESTED, **response: str
    ) -> dict[str, Any]:
        """What SNS gets.

        Args:
            response: the parameters of the answer; those of a failure have their place by `layout`.
        """
        is_outside = layout is FailureLayout.FLAT and status == "Failed"
        return {
            "awsRegion": REGION,
            "eventTime": datetime.now(UTC).isoformat(),
            "receivedTime": self.received_at.isoformat(),
            "invocationStatus": status,
            "requestParameters": {
                "endpointName": endpoint,
                **({"inputLocation": self.location} if self.location else {}),
            },
            **(response if is_outside else {"responseParameters": response}),
            "inferenceId": self.inference_id,
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }


def _given(headers: Mapping[str, str], *, least: Mapping[str, int]) -> dict[str, str]:
    """The parameters that a request has, each within its limits."""
    by_header = {name.lower(): value for name, value in headers.items()}
    given = {}
    for name, shape in _members().items():
        value = by_header.get(shape.serialization.get("name", "").lower())
        if value is not None and shape.serialization.get("location") == "header":
            _check(name, value, shape, least=least.get(name))
            given[name] = value
    return given


def _check(name: str, value: str, shape: Any, *, least: int | None) -> None:  # noqa: ANN401  (botocore's Shape)
    limits = shape.metadata
    is_number = shape.type_name == "integer"
    if is_number and not re.fullmatch(r"\d{1,9}", value):
        raise Refused(f"{name} must be a number.")
    size = int(value) if is_number else len(value)
    lowest, highest = limits.get("min", 0) if least is None else least, limits["max"]
    if not lowest <= size <= highest:
        unit = "" if is_number else " characters"
        raise Refused(f"{name} is {size}{unit}; it must be {lowest} to {highest}.")
    if "pattern" in limits and not _pattern(limits["pattern"]).fullmatch(value):
        raise Refused(f"{name} must match {limits['pattern']}.")


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    for theirs, ours in _PYTHON_FOR.items():
        text = text.replace(theirs, ours)
    return re.compile(text)


@functools.cache
def _members() -> Mapping[str, Any]:
    """The parameters of InvokeEndpointAsync, with their limits and headers."""
    service = botocore.session.Session().get_service_model("sagemaker-runtime")
    request: Any = service.operation_model("InvokeEndpointAsync").input_shape
    members: Mapping[str, Any] = request.members
    return members
