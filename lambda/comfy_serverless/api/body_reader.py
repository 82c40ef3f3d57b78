"""Reads the bodies of requests: JSON, and forms with a file in them. Whatever cannot be read is refused, not a failure.

Powertools' own reader of forms takes the boundary for one wherever it stands in a file, believes a form that was cut
off, and fails on a text that is not UTF-8; so we have one.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler.middlewares.openapi_validation import OpenAPIRequestValidationMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestUnsupportedContentType, RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import UploadFile

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.types import EventHandlerInstance

_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")
#: Python's reader of parameters takes time that grows with the square of a head.
_MAX_HEADER_BYTES = 4096
_MAX_PARTS = 60
#: Containers inside containers. Workflows may have fewer, and say so themselves.
_MAX_LEVELS = 100
#: Entries of everything but the workflow: each wrong one costs an error to be made, and some kilobytes.
_MAX_ENTRIES = 10_000


class Malformed(ValueError):
    """The body is not what its content type says; the message tells why."""


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
        lists: those that may be given more than once.
    """

    def __init__(self, *, files: frozenset[str] = frozenset(), lists: frozenset[str] = frozenset()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._files = files
        self._lists = lists

    def _get_body(self, app: EventHandlerInstance) -> Any:  # noqa: ANN401
        event = app.current_event
        content_type = event.headers.get("content-type", "").strip()
        kind = content_type.partition(";")[0].strip().lower()
        try:
            body = _bytes_of(event.get("body"), is_base64=bool(event.get("isBase64Encoded")))
            if kind == "multipart/form-data" and self._files:
                return form_of(parts_of(body, content_type), files=self._files, lists=self._lists)
            if kind in {"application/json", ""} and not self._files:
                return _moderate(json.loads(body)) if body else None
        except Malformed as error:
            raise _refused(str(error)) from None
        except json.JSONDecodeError as error:
            raise _refused(f"is not JSON ({error.msg})") from None
        except (ValueError, RecursionError):
            raise _refused("is not JSON in UTF-8, or too deep, or has a number of thousands of digits") from None
        if self._files:
            raise _refused(f"must be multipart/form-data, and the content type is {kind[:100] or 'missing'!r}")
        raise RequestUnsupportedContentType("unsupported content type", errors=[])


def parts_of(body: bytes, content_type: str) -> list[Part]:
    """The fields of a form (RFC 7578), in their order.

    Raises:
        Malformed: it has no boundary, no end, or a part without a name.
    """
    parts = []
    for head, content in _split(body, _boundary(content_type)):
        # File names are sent as UTF-8, whatever the standard says.
        headers = HeaderParser().parsestr(head.decode("utf-8", "replace"))
        name = _parameter(headers, "name")
        if not name:
            raise Malformed("has a part without a name")
        parts.append(Part(name, content, _parameter(headers, "filename"), headers.get("content-type")))
        if len(parts) > _MAX_PARTS:
            raise Malformed(f"has more than {_MAX_PARTS} parts")
    return parts


def form_of(parts: list[Part], *, files: frozenset[str], lists: frozenset[str]) -> dict[str, Any]:
    """The fields by their names.

    Raises:
        Malformed: a field is given twice, or is no text.
    """
    form: dict[str, Any] = {}
    for part in parts:
        if part.name in form and part.name not in lists:
            raise Malformed(f"has the field {part.name[:100]!r} twice")
        if part.name in files:
            form[part.name] = UploadFile(content=part.content, filename=part.file_name, content_type=part.content_type)
            continue
        try:
            text = part.content.decode()
        except UnicodeDecodeError:
            raise Malformed(f"has a field {part.name[:100]!r} that is no text in UTF-8") from None
        if part.name in lists:
            form.setdefault(part.name, []).append(text)
        else:
            form[part.name] = text
    return form


def _moderate(document: object) -> object:
    """The document, if it is neither too deep nor has too many entries.

    Raises:
        Malformed: it is.
    """
    workflow = document.get("workflow") if isinstance(document, dict) else None
    rest = {**document, "workflow": None} if isinstance(document, dict) else document
    if _count(rest, limit=_MAX_ENTRIES) > _MAX_ENTRIES:
        raise Malformed(f"has more than {_MAX_ENTRIES:,} entries beside the workflow")
    _count(workflow, limit=None)
    return document


def _count(document: object, *, limit: int | None) -> int:
    """How many values it has, one level after the other, up to a bit more than the limit."""
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


def _split(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The heads and contents of the parts. A boundary is one only on a line of its own."""
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(?P<end>--)?[ \t]*(?=\r\n|\Z)")
    found = delimiter.search(body)
    if found is None:
        raise Malformed("does not have the boundary that its content type names")
    while not found["end"]:
        begin = found.end()
        # The line break after the head may be the one that the next boundary begins with: then the part is empty.
        head_end = body.find(b"\r\n\r\n", begin, begin + _MAX_HEADER_BYTES)
        following = delimiter.search(body, head_end + 2) if head_end >= 0 else None
        if following is None:
            raise Malformed("breaks off before its end")
        yield body[begin + 2 : head_end], body[head_end + 4 : following.start()]
        found = following


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["content-type"] = content_type.encode("ascii", "replace").decode()
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise Malformed("has no boundary in its content type, or not a proper one")
    return boundary.encode()


def _parameter(headers: Message, name: str) -> str | None:
    value = headers.get_param(name, header="content-disposition")
    return value if isinstance(value, str) else None


def _bytes_of(body: str | None, *, is_base64: bool) -> bytes:
    if not is_base64:
        return (body or "").encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body or "")
    except binascii.Error:
        raise Malformed("is not the base64 that it should be") from None


def _refused(problem: str) -> RequestValidationError:
    return RequestValidationError([{"type": "body_malformed", "loc": ("body",), "msg": problem, "input": {}}])
