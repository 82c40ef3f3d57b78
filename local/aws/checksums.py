"""S3's checksums: an object is stored only if its bytes have the SHA-256 that came with it; the answer repeats that.

As it comes, moto stores whatever it gets and confirms nothing: a client that wants to be sure has to ask once more.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from local.aws.enforcement import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HEADER = "x-amz-checksum-sha256"
_WRONG = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>BadDigest</Code>'
    b"<Message>The SHA256 you specified did not match the calculated checksum.</Message></Error>"
)


def confirm_checksums(application: WSGIApplication) -> WSGIApplication:
    """The same application, with checksums for objects that are sent whole."""

    def answer(environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        sent = environment.get("HTTP_X_AMZ_CHECKSUM_SHA256")
        is_whole = environment["REQUEST_METHOD"] == "PUT" and "uploadId" not in environment.get("QUERY_STRING", "")
        if sent is None or not is_whole:
            return application(environment, start_response)
        body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        environment["wsgi.input"] = io.BytesIO(body)
        if base64.b64encode(hashlib.sha256(body).digest()).decode() != sent:
            return Response("400 Bad Request", "application/xml", _WRONG).send(start_response)

        def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:  # noqa: ANN401
            confirmed = [(_HEADER, sent)] if status.startswith("200") else []
            return start_response(status, [*headers, *confirmed], *rest)

        return application(environment, begin)

    return answer
