"""`/mcp`: streamable HTTP without sessions. One POST with one JSON-RPC message in, one answer out. No tasks, no state.

A function behind API Gateway returns whole answers, so progress is told only where the local gateway says that it can
stream (`requestContext.streams`): it gets the frames so far, and asks with the same event again, together with what
`GOES_ON` told, until the result is there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from botocore.exceptions import BotoCoreError, ClientError
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS

from comfy_serverless.api.auth import admit, caller_of
from comfy_serverless.api.body_reader import Malformed, bytes_of, moderate
from comfy_serverless.api.responses import JSON, NOT_KEPT, security_headers, shown
from comfy_serverless.api.tools import calls
from comfy_serverless.api.tools.catalogue import workflow_in
from comfy_serverless.api.tools.generic import WAIT_S
from comfy_serverless.api.tools.protocol import VERSION_HEADER, is_of_old_kind, serve
from comfy_serverless.errors import ComfyError, NotJson, PayloadTooLarge, Refusal, UpstreamError
from comfy_serverless.json_text import parse_json
from comfy_serverless.observability import log

if TYPE_CHECKING:
    from comfy_serverless.api.services import Services
    from comfy_serverless.table.job_state import JobState

EVENT_STREAM: Final = "text/event-stream"
#: In an answer of ours, and then in the event that the local gateway sends again: what the call goes on with.
GOES_ON: Final = "goesOn"
#: As much as `upload` takes, and the rest of the message.
MAX_BODY_BYTES: Final = 4_500_000
#: How long a call waits for its job where progress can be told, before the frames so far are returned, in seconds.
SLICE_S: Final = 1.0
#: The code of refusals that JSON-RPC and the protocol have none for; `data.code` says which.
REFUSED: Final = -32010
_LONGEST_ID, _LONGEST_METHOD = 256, 128
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_PAGE: Final = re.compile(r"https?://(?P<host>\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
_JSON_TYPE: Final = re.compile(r"application/json\s*(;.*)?", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class _Refused(Exception):
    """An answer other than a result."""

    status: int
    error: types.ErrorData
    request_id: types.RequestId | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentsEndpoint:
    """Answers events of API Gateway (payload format 2.0). `services` is called with each request."""

    services: Callable[[], Services]

    def answer(self, event: dict[str, Any], *, remaining_s: float) -> dict[str, Any]:
        """Answer one request, in at most `remaining_s` seconds."""
        headers = {str(name).lower(): str(value) for name, value in (event.get("headers") or {}).items()}
        behind = self.services()
        origins = behind.settings.cors_origins
        try:
            _check_origin(headers, event, origins)
            answer = self._answer(event, headers, behind, remaining_s)
        except _Refused as refused:
            error = {"jsonrpc": "2.0", "id": refused.request_id, "error": _dumped(refused.error)}
            answer = _json(refused.status, error, refused.headers)
        except ComfyError as error:
            answer = _json(error.http_status, _error(None, error), _headers_of(error))
        except (ClientError, BotoCoreError, TimeoutError):
            log.exception("AWS did not do its part")
            upstream = UpstreamError("a service behind this API does not answer as it should: try again.")
            answer = _json(upstream.http_status, _error(None, upstream))
        if headers.get("origin") in origins:
            answer["headers"] |= {"access-control-allow-origin": headers["origin"], "vary": "Origin"}
        answer["headers"] = {**security_headers(headers), **answer["headers"]}
        return answer

    def _answer(
        self, event: dict[str, Any], headers: Mapping[str, str], behind: Services, remaining_s: float
    ) -> dict[str, Any]:
        goes_on = event["requestContext"].get(GOES_ON)
        # What goes on was counted when it began.
        who = caller_of(event) if goes_on else admit(event, behind)
        message = _message(event, headers)
        if "id" not in message:
            return {"statusCode": HTTPStatus.ACCEPTED, "headers": dict(NOT_KEPT), "body": ""}
        told = _Told(progress_token_from_params(message.get("params")), (goes_on or {}).get("told", -1.0))
        is_streamed = bool(event["requestContext"].get("streams")) and _is_streamable(message, headers, told)
        wait_s = min(SLICE_S if is_streamed else WAIT_S, remaining_s - calls.ANSWER_RESERVE_S)
        visit = calls.Visit(
            services=behind,
            caller=who,
            until=time.monotonic() + wait_s,
            tell=told.hear,
            is_streamed=is_streamed,
            job_id=(goes_on or {}).get("job_id"),
        )
        status = int(HTTPStatus.OK)
        try:
            document: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"], "result": serve(message, headers, visit)}
        except calls.Unfinished as unfinished:
            answer = _stream(told.frames)
            return answer | {GOES_ON: {"job_id": unfinished.job_id, "told": told.value}}
        except MCPError as error:
            document = {"jsonrpc": "2.0", "id": message["id"], "error": _dumped(error.error)}
            status = _status_of(error.error.code, headers)
        if is_streamed and (told.frames or goes_on):
            return _stream([*told.frames, document])
        return _json(status, document)


@dataclass(slots=True)
class _Told:
    """Notifications about the progress of a call, for who gave a token: each has a larger value than the last."""

    token: types.ProgressToken | None
    value: float
    frames: list[dict[str, Any]] = field(default_factory=list)

    def hear(self, state: JobState) -> None:
        """Tell how a job is, if it is further than it was."""
        if self.token is None:
            return
        progress = state.document().progress
        value = 0.0 if progress is None else progress.value
        if value <= self.value:
            return
        self.value = value
        params = {"progressToken": self.token, "progress": value, "total": 1.0, "message": state.status.value}
        self.frames.append({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})


def _check_origin(headers: Mapping[str, str], event: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuse requests of web pages that are not listed. A page whose name leads to this machine is none of its own.

    Raises:
        _Refused: the page is another one.
    """
    origin = headers.get("origin")
    if origin is None or origin in allowed:
        return
    domain = str(event["requestContext"].get("domainName") or "")
    own, page = _PAGE.fullmatch(f"http://{domain}"), _PAGE.fullmatch(origin)
    if (
        own
        and page
        and (page["host"] in _THIS_MACHINE if own["host"] in _THIS_MACHINE else origin == f"https://{domain}")
    ):
        return
    raise _Refused(
        HTTPStatus.FORBIDDEN,
        types.ErrorData(code=REFUSED, message="this web page may not call this: its origin is not in CORS_ORIGINS."),
    )


def _message(event: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """The JSON-RPC request or notification that was sent.

    Raises:
        _Refused: it is none, or cannot be taken.
    """
    if event["requestContext"]["http"]["method"] != "POST":
        raise _refused(
            HTTPStatus.METHOD_NOT_ALLOWED,
            types.INVALID_REQUEST,
            "messages are sent by POST; there are no sessions and no streams beside.",
            headers={"allow": "POST"},
        )
    if not _JSON_TYPE.fullmatch(headers.get("content-type", "").strip()):
        raise _refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, types.INVALID_REQUEST, "send application/json.")
    if not _accepts(headers, JSON):
        raise _refused(
            HTTPStatus.NOT_ACCEPTABLE, types.INVALID_REQUEST, "the Accept header must allow application/json."
        )
    if (asked := headers.get(VERSION_HEADER)) is not None and asked not in KNOWN_PROTOCOL_VERSIONS:
        data = {"supported": list(KNOWN_PROTOCOL_VERSIONS), "requested": asked[:100]}
        raise _refused(
            HTTPStatus.BAD_REQUEST, types.UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version", data=data
        )
    return _checked(_document(event))


def _document(event: Mapping[str, Any]) -> object:
    """The body as JSON. Raises _Refused."""
    try:
        body = bytes_of(event.get("body"), is_base64=bool(event.get("isBase64Encoded")))
        if len(body) <= MAX_BODY_BYTES:
            return moderate(parse_json(body, source="the body", most_bytes=MAX_BODY_BYTES))
        message = f"the body has {len(body):,} bytes, and at most {MAX_BODY_BYTES:,} are taken."
    except PayloadTooLarge as error:
        message = error.message
    except NotJson as error:
        raise _refused(HTTPStatus.BAD_REQUEST, types.PARSE_ERROR, error.message) from error
    except Malformed as error:
        raise _refused(HTTPStatus.BAD_REQUEST, types.INVALID_REQUEST, f"the body {error}.") from error
    raise _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, types.INVALID_REQUEST, message)


def _checked(document: object) -> dict[str, Any]:
    """A document that has the form of one request or notification. Raises _Refused."""
    if isinstance(document, list):
        raise _refused(HTTPStatus.BAD_REQUEST, types.INVALID_REQUEST, "send one message at a time, and no batch.")
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise _refused(
            HTTPStatus.BAD_REQUEST, types.INVALID_REQUEST, 'the body must be an object with "jsonrpc": "2.0".'
        )
    given = document.get("id")
    known = given if _is_id(given) else None
    if "id" in document and known is None:
        raise _refused(
            HTTPStatus.BAD_REQUEST,
            types.INVALID_REQUEST,
            f"the id must be a text or a whole number of at most {_LONGEST_ID} characters.",
        )
    method, params = document.get("method"), document.get("params")
    if not isinstance(method, str) or not 0 < len(method) <= _LONGEST_METHOD:
        raise _refused(
            HTTPStatus.BAD_REQUEST, types.INVALID_REQUEST, "the message is no request: it has no method.", known
        )
    if params is not None and not isinstance(params, dict):
        raise _refused(HTTPStatus.BAD_REQUEST, types.INVALID_PARAMS, "params must be an object.", known)
    return document


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_ID
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_LONGEST_ID


def _accepts(headers: Mapping[str, str], kind: str) -> bool:
    """Whether the Accept header allows a type; without the header everything is allowed (RFC 9110)."""
    accepted = {part.partition(";")[0].strip().lower() for part in headers.get("accept", "*/*").split(",")}
    return bool(accepted & {kind, f"{kind.partition('/')[0]}/*", "*/*"})


def _is_streamable(message: Mapping[str, Any], headers: Mapping[str, str], told: _Told) -> bool:
    """Whether it is a run whose client wants to hear of its progress, and can."""
    is_run = (
        message["method"] == "tools/call" and workflow_in(str((message.get("params") or {}).get("name"))) is not None
    )
    return is_run and told.token is not None and _accepts(headers, EVENT_STREAM)


def _status_of(code: int, headers: Mapping[str, str]) -> int:
    """The status of HTTP for an error: the newer protocol has a table, the older one says 200 for all."""
    if code == types.INTERNAL_ERROR:
        return int(HTTPStatus.INTERNAL_SERVER_ERROR)
    return int(HTTPStatus.OK) if is_of_old_kind(headers) else ERROR_CODE_HTTP_STATUS.get(code, int(HTTPStatus.OK))


def _refused(
    status: int,
    code: int,
    message: str,
    request_id: types.RequestId | None = None,
    *,
    data: object = None,
    headers: Mapping[str, str] | None = None,
) -> _Refused:
    return _Refused(status, types.ErrorData(code=code, message=message, data=data), request_id, headers or {})


def _error(request_id: types.RequestId | None, error: ComfyError) -> dict[str, Any]:
    """A refusal of ours as JSON-RPC has it."""
    told = shown(error)
    data = {"code": told["code"], "details": told["details"]}
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": REFUSED, "message": told["message"], "data": data}}


def _headers_of(error: ComfyError) -> dict[str, str]:
    headers = {}
    if isinstance(error, Refusal) and error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return headers


def _dumped(error: types.ErrorData) -> dict[str, Any]:
    return error.model_dump(mode="json", exclude_none=True)


def _json(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    told = {"content-type": JSON, **NOT_KEPT, **(headers or {})}
    return {"statusCode": int(status), "headers": told, "body": json.dumps(document)}


def _stream(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Messages as server-sent events."""
    body = "".join(f"event: message\ndata: {json.dumps(document)}\n\n" for document in documents)
    return {"statusCode": int(HTTPStatus.OK), "headers": {"content-type": EVENT_STREAM, **NOT_KEPT}, "body": body}
