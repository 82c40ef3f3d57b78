"""HTTP requests as they reach a Lambda function, and answers in the form that each sender understands. No IO.

    HTTP API (payload format 2.0), function URL     requestContext.http
    REST API, HTTP API (payload format 1.0)         httpMethod
    Application Load Balancer                       httpMethod, requestContext.elb
    … with multi-value headers                      the same, with multiValueHeaders and no headers

Sources: the developer guides of Lambda, API Gateway and Elastic Load Balancing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self

from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES
from comfy_serverless.tracing import Trace

#: What a load balancer takes of a function, the answer as a whole (its guide, "Lambda functions as targets").
LOAD_BALANCER_LIMIT_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request.

    Attributes:
        method: in capitals.
        body: as text, or the bytes that were sent as base64.
        is_balanced: a load balancer has sent it.
        has_lists: headers are lists of values, in the request and in the answer.
        trace: where its caller is in a trace; None if it does not say.
    """

    method: str
    body: str | bytes
    is_balanced: bool = False
    has_lists: bool = False
    trace: Trace | None = None

    @classmethod
    def of(cls, event: object) -> Self | None:
        """The request that an event is; None for any other event."""
        if not isinstance(event, Mapping) or not isinstance(context := event.get("requestContext"), Mapping):
            return None
        is_balanced = isinstance(context.get("elb"), Mapping)
        match context.get("http"), event.get("httpMethod"):
            case Mapping() as http, _:
                method = str(http.get("method", ""))
            case _, str(method):
                pass
            case _:
                return None
        has_lists = is_balanced and "headers" not in event and isinstance(event.get("multiValueHeaders"), Mapping)
        return cls(method.upper(), _body(event), is_balanced, has_lists, _trace(event, has_lists=has_lists))

    @property
    def limit_bytes(self) -> int:
        """How large the answer may be."""
        return LOAD_BALANCER_LIMIT_BYTES if self.is_balanced else REPLY_LIMIT_BYTES

    def answer(self, status: int, document: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """The answer in the form of whoever has sent the request: a JSON document."""
        told = {"content-type": "application/json", **headers}
        answer: dict[str, Any] = {"statusCode": status}
        if self.is_balanced:
            answer["statusDescription"] = f"{status} {HTTPStatus(status).phrase}"
        if self.has_lists:
            answer["multiValueHeaders"] = {name: [value] for name, value in told.items()}
        else:
            answer["headers"] = told
        return {**answer, "body": json.dumps(document), "isBase64Encoded": False}


def _trace(event: Mapping[str, Any], *, has_lists: bool) -> Trace | None:
    headers = event.get("multiValueHeaders" if has_lists else "headers")
    if not isinstance(headers, Mapping):
        return None
    return Trace.of({name: value[0] if isinstance(value, list) and value else value for name, value in headers.items()})


def _body(event: Mapping[str, Any]) -> str | bytes:
    body = str(event.get("body") or "")
    if not event.get("isBase64Encoded"):
        return body
    try:
        return base64.b64decode(body)
    except (binascii.Error, ValueError):
        return body  # which is not JSON either: whoever reads it says so
