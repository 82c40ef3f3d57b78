"""Reads the bodies of requests: JSON, and forms with a file in them. A body that cannot be read is refused, no failure.

Powertools' own reader of forms splits a file where the boundary stands in it, accepts a form that was cut off, and
fails on a text that is not UTF-8. The library `multipart` in its strict mode does not; the limits are ours.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler.middlewares.openapi_validation import OpenAPIRequestValidationMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestUnsupportedContentType, RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import UploadFile

from comfy_serverless.api.query import check_query
from comfy_serverless.errors import NotJson
from comfy_serverless.jobs.sources import MAX_PAYLOAD_BYTES
from comfy_serverless.json_text import parse_json

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
    from aws_lambda_powertools.event_handler.types import EventHandlerInstance
    from multipart import MultipartSegment

_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")
#: The limit for the head of one part.
_MAX_HEADER_BYTES = 4096
_MAX_PARTS = 60
#: The depth of containers inside containers. Workflows may have fewer levels, and their own check says so.
_MAX_LEVELS = 100
#: The number of entries outside the workflow: each wrong one costs the making of an error, and some kilobytes.
_MAX_ENTRIES = 10_000
_BODY = "the body"
_LEFT_OUT = "left_out"
#: In the place of a path, for the reader of a single route: its path may have a name in it.
EVERY_PATH = ""


class Malformed(ValueError):
    """The body is not what its content type says; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a form, or a file in it."""

    name: str
    content: bytes
    file_name: str | None = None
    content_type: str | None = None


class BodyReader(OpenAPIRequestValidationMiddleware):
    """Powertools' check of requests, with readers of bodies that refuse what they cannot read.

    Args:
        files: the fields of forms that hold files.
        lists: the fields that may be given more than once.
        shapers: for routes that take more shapes of a body than one: by path, the function that returns the body that
            is checked, and what was left out. `left_out` returns the latter to the route.
    """

    def __init__(
        self,
        *,
        files: frozenset[str] = frozenset(),
        lists: frozenset[str] = frozenset(),
        shapers: Mapping[str, Callable[[object], tuple[object, Sequence[str]]]] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._files = files
        self._lists = lists
        self._shapers = shapers or {}

    def handler(self, app: EventHandlerInstance, next_middleware: NextMiddleware) -> Any:  # noqa: ANN401
        """Check a request, its parameters first: they cost nothing."""
        check_query(app)
        return super().handler(app, next_middleware)

    def _get_body(self, app: EventHandlerInstance) -> Any:  # noqa: ANN401
        event = app.current_event
        content_type = event.headers.get("content-type", "").strip()
        kind = content_type.partition(";")[0].strip().lower()
        try:
            body = bytes_of(event.get("body"), is_base64=bool(event.get("isBase64Encoded")))
            if kind == "multipart/form-data" and self._files:
                return self._form_of(parts_of(body, content_type))
            if kind in {"application/json", ""} and not self._files:
                if not body:
                    return None
                return self._shaped(app, parse_json(body, source=_BODY, most_bytes=MAX_PAYLOAD_BYTES))
        except Malformed as error:
            raise _refused(str(error)) from None
        except NotJson as error:
            raise _refused(error.message.removeprefix(f"{_BODY} ").rstrip(".")) from None
        if self._files:
            raise _refused(f"must be multipart/form-data, and the content type is {kind[:100] or 'missing'!r}")
        raise RequestUnsupportedContentType("unsupported content type", errors=[])

    def _shaped(self, app: EventHandlerInstance, document: object) -> object:
        _count(document, limit=None)
        shaper = self._shapers.get(app.current_event.path) or self._shapers.get(EVERY_PATH)
        if shaper is not None:
            document, left_out = shaper(document)
            app.append_context(**{_LEFT_OUT: tuple(left_out)})  # type: ignore[no-untyped-call]
        return moderate(document)

    def _form_of(self, parts: list[Part]) -> dict[str, Any]:
        form: dict[str, Any] = {}
        for part in parts:
            if part.name in form and part.name not in self._lists:
                raise Malformed(f"has the field {part.name[:100]!r} twice")
            if part.name in self._files:
                file = UploadFile(content=part.content, filename=part.file_name, content_type=part.content_type)
                form[part.name] = file
                continue
            try:
                text = part.content.decode()
            except UnicodeDecodeError:
                files = " or ".join(repr(name) for name in sorted(self._files))
                raise Malformed(
                    f"has a field {part.name[:100]!r} that is no text in UTF-8 (a file goes into {files})"
                ) from None
            if part.name in self._lists:
                form.setdefault(part.name, []).append(text)
            else:
                form[part.name] = text
        return form


def left_out(router: Any) -> tuple[str, ...]:  # noqa: ANN401  (a router of Powertools)
    """What was left out of the body of the request in hand, for people."""
    return tuple(router.context.get(_LEFT_OUT, ()))


def parts_of(body: bytes, content_type: str) -> list[Part]:
    """The fields of a form (RFC 7578), in their order.

    Raises:
        Malformed: it has no boundary, no end, too much before its parts, or a part without a name.
    """
    import multipart  # here: most requests have no form, and every start would pay for it

    boundary = multipart.parse_options_header(content_type)[1].get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise Malformed("has no boundary in its content type, or not a proper one")
    parts: list[Part] = []
    chunks: list[bytes] = []
    try:
        with multipart.PushMultipartParser(
            boundary, max_header_size=_MAX_HEADER_BYTES, max_segment_count=_MAX_PARTS, strict=True
        ) as parser:
            segment: multipart.MultipartSegment | None = None
            for event in parser.parse(body):
                if isinstance(event, multipart.MultipartSegment):
                    segment, chunks = event, []
                elif event is not None:
                    chunks.append(bytes(event))
                elif segment is not None:
                    parts.append(_part(segment, b"".join(chunks)))
    except multipart.MultipartError as error:
        raise Malformed(f"is not a proper form: {error}") from None
    return parts


def _part(segment: MultipartSegment, content: bytes) -> Part:
    names = [name for name, _ in segment.headerlist]
    if len(set(names)) < len(names) or sum(len(value) for _, value in segment.headerlist) > _MAX_HEADER_BYTES:
        raise Malformed("has a part with too long a head, or with a header twice")
    if not segment.name:
        raise Malformed("has a part without a name")
    return Part(segment.name, content, segment.filename, segment.header("Content-Type"))


def moderate(document: object) -> object:
    """Refuse a document that has too many entries beside the workflows in it."""
    rest = {**document, "workflow": None, "extra_data": None} if isinstance(document, dict) else document
    if _count(rest, limit=_MAX_ENTRIES) > _MAX_ENTRIES:
        raise Malformed(f"has more than {_MAX_ENTRIES:,} entries beside the workflow")
    return document


def _count(document: object, *, limit: int | None) -> int:
    """Count its values, one level after the other, up to a bit more than the limit."""
    level, count = [document], 0
    for _ in range(_MAX_LEVELS):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        count += len(level)
        if not level or (limit is not None and count > limit):
            return count
    raise Malformed(f"is nested more than {_MAX_LEVELS} levels deep")


def bytes_of(body: str | None, *, is_base64: bool) -> bytes:
    """The body of an event as it was sent. Raises Malformed if it is not the base64 that it should be."""
    if not is_base64:
        return (body or "").encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body or "")
    except binascii.Error:
        raise Malformed("is not the base64 that it should be") from None


def _refused(problem: str) -> RequestValidationError:
    return RequestValidationError([{"type": "body_malformed", "loc": ("body",), "msg": problem, "input": {}}])
