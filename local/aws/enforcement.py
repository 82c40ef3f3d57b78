"""The local AWS checks each request of a role against the policies of template.yaml.

A denial is the service's own error, and is kept for `LocalAws.usage()`: code that survives an error cannot hide it from
a test.
"""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from local.aws.needs import NotClassified, Request
from local.aws.needs_s3 import bucket_and_key, needs_body, needs_of_s3
from local.aws.permissions import Access
from local.aws.roles import SUFFIX, needs, roles
from local.aws.server import USAGE_PATH

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SCOPE = "Credential="
#: That many are enough to learn from.
_MAX_DENIALS = 100


@dataclass(frozen=True, slots=True)
class Response:
    """A whole HTTP response."""

    status: str
    content_type: str
    body: bytes

    def send(self, start_response: StartResponse) -> list[bytes]:
        """As WSGI wants it."""
        start_response(self.status, [("Content-Type", self.content_type), ("Content-Length", str(len(self.body)))])
        return [self.body]


@dataclass(slots=True)
class Guard:
    """An application with the policies before it. It counts requests by role, and keeps what was denied."""

    application: WSGIApplication
    _requests: Counter[str] = field(default_factory=Counter)
    _denials: dict[str, None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environment["PATH_INFO"] == USAGE_PATH:
            return self._usage().send(start_response)
        role, service = signer_of(environment)
        if not role.endswith(SUFFIX):
            return self.application(environment, start_response)
        with self._lock:
            self._requests[role] += 1
        request = request_of(environment, service)
        if (denial := denial_of(role, request)) is not None:
            return self._deny(request, denial).send(start_response)
        if (secret := _reason_to_hide_what_is_missing(role, request)) is not None:
            return self._hide_what_is_missing(environment, start_response, request, secret)
        return self.application(environment, start_response)

    def _usage(self) -> Response:
        with self._lock:
            usage = {"requests": dict(self._requests), "denials": list(self._denials)}
        return Response("200 OK", "application/json", json.dumps(usage).encode())

    def _deny(self, request: Request, denial: str) -> Response:
        with self._lock:
            if len(self._denials) < _MAX_DENIALS:
                self._denials[denial] = None
        return refusal(request, denial)

    def _hide_what_is_missing(
        self, environment: WSGIEnvironment, start_response: StartResponse, request: Request, secret: str
    ) -> Iterable[bytes]:
        """As the application does, but where it says that there is no such key, the key is denied.

        No denial is kept: the request is allowed, and functions know that S3 hides missing keys from them.
        """
        begun: list[tuple[str, list[tuple[str, str]]]] = []

        def begin(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            begun.append((status, headers))
            return body.append

        body: list[bytes] = []
        body += self.application(environment, begin)
        if begun[-1][0].startswith("404"):
            return refusal(request, secret).send(start_response)
        start_response(*begun[-1])
        return body


def signer_of(environment: WSGIEnvironment) -> tuple[str, str]:
    """The access key that signed a request, and the service it was signed for; empty without a signature."""
    authorization = environment.get("HTTP_AUTHORIZATION", "")
    if _SCOPE in authorization:
        return _scope(authorization.partition(_SCOPE)[2].partition(",")[0])
    query = environment.get("QUERY_STRING", "")
    if "X-Amz-Credential" in query:
        return _scope(dict(parse_qsl(query))["X-Amz-Credential"])
    if "AWSAccessKeyId" in query:  # links of the older kind, which only S3 has
        return dict(parse_qsl(query))["AWSAccessKeyId"], "s3"
    if authorization.startswith("AWS "):
        return authorization.removeprefix("AWS ").partition(":")[0], "s3"
    return "", ""


def _scope(text: str) -> tuple[str, str]:
    """Of `KEY/DATE/REGION/SERVICE/aws4_request`."""
    parts = text.strip().split("/")
    return (parts[0], parts[3]) if len(parts) == 5 else ("", "")


def request_of(environment: WSGIEnvironment, service: str) -> Request:
    """What is asked. A body that is read is put back."""
    headers = {
        name[len("HTTP_") :].replace("_", "-").lower(): value
        for name, value in environment.items()
        if name.startswith("HTTP_")
    }
    request = Request(
        service=service,
        method=environment["REQUEST_METHOD"],
        path=environment["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),
        query=dict(parse_qsl(environment.get("QUERY_STRING", ""), keep_blank_values=True)),
        headers=headers,
    )
    return replace(request, body=body_of(environment)) if needs_body(request) else request


def body_of(environment: WSGIEnvironment) -> bytes:
    """The body of a request, which is put back."""
    length = environment.get("CONTENT_LENGTH")
    body: bytes = environment["wsgi.input"].read(int(length)) if length else environment["wsgi.input"].read()
    environment["wsgi.input"] = io.BytesIO(body)
    return body


def denial_of(name: str, request: Request) -> str | None:
    """Why a role may not do what a request needs; None if it may."""
    role = roles().get(name)
    if role is None:
        return f"User: {name} is not authorized: template.yaml has no such role"
    try:
        accesses = needs_of_s3(request) if request.service == "s3" else needs().of(request)
    except NotClassified as error:
        return f"User: {name} is not authorized: the local AWS does not know what the request needs ({error})"
    return next((denial for access in accesses if (denial := role.denial(access)) is not None), None)


def _reason_to_hide_what_is_missing(name: str, request: Request) -> str | None:
    """Why a role may not know that a key does not exist: only who may list the bucket may know. None if it may."""
    if request.service != "s3" or request.method not in {"GET", "HEAD"}:
        return None
    bucket, key = bucket_and_key(request)
    return roles()[name].denial(Access(action="s3:ListBucket", resource=f"arn:aws:s3:::{bucket}")) if key else None


def refusal(request: Request, message: str) -> Response:
    """The service's own error."""
    if request.service == "s3":
        text = f"<Error><Code>AccessDenied</Code><Message>{escape(message)}</Message></Error>"
        body = b"" if request.method == "HEAD" else f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
        return Response("403 FORBIDDEN", "application/xml", body)
    error = {"__type": "com.amazon.coral.service#AccessDeniedException", "message": message}
    if request.headers.get("smithy-protocol") == "rpc-v2-cbor":
        return Response("400 BAD REQUEST", "application/cbor", _cbor(error))
    return Response("400 BAD REQUEST", "application/x-amz-json-1.0", json.dumps(error).encode())


def _cbor(texts: Mapping[str, str]) -> bytes:
    """A few short texts as CBOR: a map (major type 5) of texts (major type 3)."""
    parts = [bytes([0xA0 + len(texts)])]
    for text in (text for pair in texts.items() for text in pair):
        encoded = text.encode()
        parts += [b"\x79", len(encoded).to_bytes(2, "big"), encoded]
    return b"".join(parts)
