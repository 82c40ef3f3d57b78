"""What nodes the workers have, as ComfyUI's `/object_info` says it: by what they have told last. Nothing is run.

Two thousand classes have megabytes: the whole goes out packed, and a client that has it already (`ETag`) gets nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.bodies import NOT_FOUND, REFUSALS, ErrorEnvelope, ObjectInfo, documented
from comfy_serverless.api.conversion import nodes_unknown
from comfy_serverless.api.responses import JSON
from comfy_serverless.api.services import services
from comfy_serverless.errors import NotFound, TooLarge
from comfy_serverless.graph.near import Guesses
from comfy_serverless.jobs.declarations import DeclarationsReader, Held
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

PATH = "/api/v2/object_info"
#: It is the same for all key holders, who see different things elsewhere: no shared cache keeps it.
_KEPT = {"cache-control": "private, no-cache", "vary": "authorization, accept-encoding"}
_ANSWERS: dict[int, Any] = {
    200: documented("The declarations, by class.", ObjectInfo),
    304: {"description": "It is what the caller has (`If-None-Match`)."},
    **REFUSALS,
    503: documented("`engine_unavailable`: no worker has told yet.", ErrorEnvelope),
}


@router.get(
    PATH,
    summary="The node classes that workers have (ours)",
    tags=["workflows"],
    description="What ComfyUI's own `/object_info` declares: inputs with types, choices and defaults, and outputs. "
    "Lists of files in ComfyUI's folders are empty. It is megabytes: ask with `If-None-Match`, or for one class.",
    responses=_ANSWERS,
)
def get_object_info() -> Response[str]:
    """Return all declarations."""
    held = _held(services(router).declarations)
    headers = {**_KEPT, "etag": f'"{held.sha256[:32]}"'}
    if _is_known(headers["etag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, body="", headers=headers)
    if "gzip" not in (router.current_event.headers.get("accept-encoding") or "").lower():
        if held.size_bytes > REPLY_LIMIT_BYTES:
            raise _too_large(held, "ask with `Accept-Encoding: gzip`, or for one class by its name")
        return _answer(json.dumps(held.declared), headers)
    body = base64.b64encode(held.packed).decode()
    if len(body) > REPLY_LIMIT_BYTES:
        raise _too_large(held, "ask for one class by its name")
    # As it was published: to pack megabytes anew takes longer than all the rest.
    response = _answer(body, {**headers, "content-encoding": "gzip"})
    response.base64_encoded = True
    return response


@router.get(
    f"{PATH}/<class_type>",
    summary="One node class that workers have (ours)",
    tags=["workflows"],
    description="As ComfyUI's own `/object_info/{class}`: one entry, by the name of the class.",
    responses={**_ANSWERS, **NOT_FOUND},
)
def get_class(class_type: Annotated[str, Path(description="The name of the class.")]) -> Response[str]:
    """Return the declaration of one class."""
    return _one(class_type)


@router.get(f"{PATH}/.+", include_in_schema=False)
def get_class_of_any_name() -> Response[str]:
    """Return the same: names of classes may have any signs, a `/` too, and Powertools' parameters may not."""
    return _one(router.current_event.path.partition(f"{PATH}/")[2])


def _one(name: str) -> Response[str]:
    declared = _held(services(router).declarations).declared
    # Whether a path comes decoded differs between gateways.
    found = next((one for one in (name, unquote(name)) if one in declared), None)
    if found is None:
        near = Guesses().near(unquote(name), declared)
        hint = f"; did you mean {near[0]!r}?" if near else f": GET {PATH} has the {len(declared)} that they have."
        raise NotFound(f"the workers have no node class {unquote(name)[:200]!r}{hint}")
    body = json.dumps({found: declared[found]})
    tag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
    if _is_known(tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, body="", headers={**_KEPT, "etag": tag})
    return _answer(body, {**_KEPT, "etag": tag}, compress=True)


def _held(reader: DeclarationsReader) -> Held:
    """What was told last. Raises EngineUnavailable if nothing was."""
    if (held := reader.newest_packed()) is None:
        raise nodes_unknown("what a node takes is known by that: run a job first, of any workflow.")
    return held


def _is_known(tag: str) -> bool:
    return tag in (router.current_event.headers.get("if-none-match") or "")


def _answer(body: str, headers: Mapping[str, str], *, compress: bool | None = None) -> Response[str]:
    return Response(status_code=HTTPStatus.OK, content_type=JSON, body=body, headers=dict(headers), compress=compress)


def _too_large(held: Held, advice: str) -> TooLarge:
    return TooLarge(f"the declarations have {held.size_bytes:,} bytes, more than an answer may have: {advice}.")
