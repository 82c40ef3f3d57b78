"""Lambda's Runtime API, in the form that streams: what awslambdaric does not have.

    next ──► an invocation ──► response: prelude, eight NULs, the body in chunks ──► next …
                          └──► error, before a response has begun; behind its beginning an error goes into the trailers

Source: "Using the Lambda runtime API for custom runtimes" and "Implementing response streaming in a custom runtime" of
Lambda's developer guide; for the prelude "Lambda proxy integration format for response streaming" of API Gateway's.
"""

from __future__ import annotations

import base64
import json
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, Self

_ROOT = "/2018-06-01/runtime"
_HTTP_STREAM = "application/vnd.awslambda.http-integration-response"
_ERROR_TYPE, _ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"
#: Between the prelude and the body, which must begin within the first 16 KB.
SEPARATOR, MAX_PRELUDE_BYTES = b"\0" * 8, 16 * 1024
#: How long the Runtime API, which is on this machine, may take for anything but the next invocation.
_TIMEOUT_S = 30.0
#: How much of an early answer says whether it is a refusal: `HTTP/1.1 202`.
_STATUS_AT, _STATUS_BYTES = 9, 12


class ClientGone(Exception):
    """Nobody takes the response any more."""


class RuntimeApiError(Exception):
    """The Runtime API has refused something. A process cannot go on then: Lambda starts another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What Lambda asks.

    Attributes:
        deadline_s: when Lambda ends it, in seconds since 1970.
        trace: X-Ray's header; "" without one.
    """

    id: str
    event: Any
    deadline_s: float
    trace: str = ""


class RuntimeApi:
    """The client of it. `address` is AWS_LAMBDA_RUNTIME_API: host and port."""

    def __init__(self, address: str) -> None:
        self._address = address

    def next(self) -> Invocation:
        """Wait for the next invocation, for as long as it takes: the process may be frozen meanwhile."""
        connection = HTTPConnection(self._address)
        try:
            connection.request("GET", f"{_ROOT}/invocation/next")
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeApiError(f"the next invocation: status {answer.status}")
        return Invocation(
            id=answer.headers["Lambda-Runtime-Aws-Request-Id"],
            event=json.loads(body),
            deadline_s=int(answer.headers["Lambda-Runtime-Deadline-Ms"]) / 1000,
            trace=answer.headers.get("Lambda-Runtime-Trace-Id", ""),
        )

    def respond(self, invocation: Invocation, *, status: int, headers: Mapping[str, str]) -> StreamedResponse:
        """Begin the response to an HTTP request, whose body is then written. Raises ClientGone."""
        beginning = prelude(status, headers)
        connection = HTTPConnection(self._address, timeout=_TIMEOUT_S)
        try:
            connection.putrequest("POST", f"{_ROOT}/invocation/{invocation.id}/response", skip_accept_encoding=True)
            connection.putheader("Content-Type", _HTTP_STREAM)
            connection.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.putheader("Trailer", f"{_ERROR_TYPE}, {_ERROR_BODY}")
            connection.endheaders()
        except OSError as error:
            connection.close()
            raise ClientGone(str(error)) from error
        response = StreamedResponse(connection)
        response.write(beginning)
        return response

    def fail(self, invocation: Invocation, error: BaseException) -> None:
        """Report that an invocation has failed before its response began."""
        self._report(f"{_ROOT}/invocation/{invocation.id}/error", error)

    def fail_init(self, error: BaseException) -> None:
        """Report that this process cannot start."""
        self._report(f"{_ROOT}/init/error", error)

    def _report(self, path: str, error: BaseException) -> None:
        connection = HTTPConnection(self._address, timeout=_TIMEOUT_S)
        try:
            headers = {"Content-Type": "application/json", _ERROR_TYPE: _type_of(error)}
            connection.request("POST", path, body=_document(error), headers=headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status != 202:
            raise RuntimeApiError(f"the report of a failure: status {answer.status}")


class StreamedResponse:
    """A response that has begun. In a `with` block it is ended at its end, with the block's failure in the trailers."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ClientGone):
            self._connection.close()
        else:
            self.end(error)

    def write(self, data: bytes) -> None:
        """Send a part of the body at once. Raises ClientGone if nobody takes it."""
        if data:  # an empty chunk would be the end
            self._refuse_early_answer()
            self._send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self, error: BaseException | None = None) -> None:
        """End it; with a failure, which the trailers tell. Raises ClientGone if it was not taken to its end."""
        trailers = b""
        if error is not None:
            body = base64.b64encode(_document(error)).decode()
            trailers = f"{_ERROR_TYPE}: {_type_of(error)}\r\n{_ERROR_BODY}: {body}\r\n".encode()
        try:
            self._send(b"0\r\n%s\r\n" % trailers)
            status = self._answer().status
        except (OSError, HTTPException) as failure:
            raise ClientGone(str(failure)) from failure
        finally:
            self._connection.close()
        if status >= 400:
            raise ClientGone(f"the Runtime API has answered {status}")

    def _send(self, data: bytes) -> None:
        try:
            self._socket().sendall(data)  # `HTTPConnection.send` would open a closed connection again
        except OSError as error:
            self._connection.close()
            raise ClientGone(str(error)) from error

    def _answer(self) -> HTTPResponse:
        # `getresponse` wants the request to be over by its own count, which knows nothing of chunks sent by hand.
        answer = HTTPResponse(self._socket(), method="POST")
        answer.begin()
        answer.read()
        return answer

    def _socket(self) -> socket.socket:
        if self._connection.sock is None:
            raise ClientGone("the connection is closed")
        return self._connection.sock

    def _refuse_early_answer(self) -> None:
        """Raise ClientGone if the Runtime API has closed the connection, or refused the rest, while we were waiting."""
        sock = self._socket()
        if select.select([sock], [], [], 0)[0]:
            try:
                start = sock.recv(_STATUS_BYTES, socket.MSG_PEEK)
            except OSError:
                start = b""
            if not start or start[_STATUS_AT:] >= b"400":
                self._connection.close()
                raise ClientGone("the Runtime API takes no more of the response")


def prelude(status: int, headers: Mapping[str, str]) -> bytes:
    """What comes before the body. Raises ValueError for headers that API Gateway has no room for."""
    document = json.dumps({"statusCode": status, "headers": dict(headers)}).encode() + SEPARATOR
    if len(document) > MAX_PRELUDE_BYTES:
        raise ValueError(f"the headers of the response take {len(document)} bytes, and may take {MAX_PRELUDE_BYTES}")
    return document


def _type_of(error: BaseException) -> str:
    return f"Function.{type(error).__name__}"


def _document(error: BaseException) -> bytes:
    """A failure as Lambda shows it: its class alone, because its text may name what others must not read."""
    told = {"errorType": type(error).__name__, "errorMessage": "the log has the details", "stackTrace": []}
    return json.dumps(told).encode()
