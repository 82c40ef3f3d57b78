"""The HTTP API as one Powertools resolver: the routes of all modules, and one way to refuse a request.

API Gateway ─► authorizer (whose key is it?) ─► app ─► jobs.py  outputs.py  events.py  assets.py  workflows.py …
                                                   └──► {"error": {"code", "message", "details"}}
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, CORSConfig, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestUnsupportedContentType, RequestValidationError
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel

from comfy_serverless import tracing
from comfy_serverless.api import (
    again,
    assets,
    batches,
    carried,
    console,
    doctor,
    documentation,
    events,
    gallery,
    job_lists,
    jobs,
    keys,
    logs,
    me,
    named_workflows,
    needs,
    object_info,
    outputs,
    usage,
    workflows,
)
from comfy_serverless.api.auth import Authentication
from comfy_serverless.api.batch_bodies import BatchBody, read_batch
from comfy_serverless.api.bodies import ConvertBody, GenerateBody, SubmitBody, read_generate, read_submit
from comfy_serverless.api.body_reader import BodyReader
from comfy_serverless.api.field_problems import field_problems
from comfy_serverless.api.responses import refuse, security_headers
from comfy_serverless.api.services import Services
from comfy_serverless.errors import (
    ComfyError,
    InternalError,
    InvalidMetadata,
    InvalidRequest,
    NotFound,
    UnsupportedMediaType,
    UpstreamError,
)
from comfy_serverless.observability import log


class _Api(APIGatewayHttpResolver):
    """The resolver, with the headers that tell a browser to run, frame and guess nothing, on every answer."""

    def resolve(self, event: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's)
        """Answer one request, which is part of its caller's trace if it says so (`traceparent`)."""
        headers = event.get("headers") or {}
        with _traced(event.get("requestContext") or {}, headers):
            answer = super().resolve(event, context)
        answer["headers"] = {**security_headers(self.current_event.headers), **(answer.get("headers") or {})}
        return answer


def _traced(context: Any, headers: Any) -> AbstractContextManager[object]:  # noqa: ANN401  (Lambda's)
    """The span of a request that changes something; who only looks, again and again, has none."""
    method = str((context.get("http") or {}).get("method") or context.get("httpMethod") or "").upper()
    if method not in ("POST", "PUT", "DELETE"):
        return nullcontext()
    return tracing.span(f"{method} request", kind=tracing.Kind.SERVER, parent=tracing.Trace.of(headers))


def create_app(services: Callable[[], Services], *, cors_origins: tuple[str, ...] = ()) -> APIGatewayHttpResolver:
    """The API.

    Args:
        services: returns what the routes work with; called with each request.
        cors_origins: the web pages whose requests browsers let pass.
    """
    app = _Api(enable_validation=True, cors=_cors(cors_origins))
    # Powertools' own reader fails on bodies that are not UTF-8 or too deep. It has no public place for another one.
    authentication = Authentication(services)
    app._request_validation_middleware = authentication.before(
        BodyReader(
            shapers={
                "/generate": read_generate,
                "/api/v2/jobs": read_submit,
                "/api/v2/workflows/convert": workflows.read_convert,
                needs.PATH: needs.read_needs,
                batches.LIST: read_batch,
            }
        )
    )
    app.use([authentication])  # for routes with another reader
    for router in (
        jobs.router,
        again.router,
        job_lists.router,
        events.router,
        outputs.router,
        logs.router,
        gallery.router,
        assets.router,
        batches.router,
        workflows.router,
        carried.router,
        needs.router,
        object_info.router,
        doctor.router,
        named_workflows.router,
        me.router,
        keys.router,
        usage.router,
        documentation.router,
    ):
        app.include_router(router)
    documentation.attach(app)
    console.attach(app)

    @app.not_found
    def no_such_route(_error: NotFoundError) -> Response[str]:
        event = app.current_event
        return refuse(
            NotFound(f"there is nothing at {event.http_method} {event.path[:200]}: /docs lists what there is.")
        )

    def wrong_type(_error: RequestUnsupportedContentType) -> Response[str]:
        kind = app.current_event.headers.get("content-type") or "none"
        return refuse(UnsupportedMediaType(f"a body of the type {kind[:100]!r} cannot be read: send application/json."))

    def upstream(_error: Exception) -> Response[str]:
        log.exception("AWS did not do its part")
        return refuse(UpstreamError("a service behind this API does not answer as it should: try again."))

    def bug(_error: Exception) -> Response[str]:
        log.exception("bug: the request failed in our own code")
        return refuse(InternalError("the request failed because of a mistake of ours; the log has the details."))

    def invalid(error: RequestValidationError) -> Response[str]:
        event = app.current_event
        return refuse(
            _invalid(
                error,
                _BODIES.get(event.path)
                or named_workflows.body_of(event.http_method, event.path)
                or keys.body_of(event.http_method, event.path),
            )
        )

    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(ComfyError)(refuse)
    app.exception_handler(RequestUnsupportedContentType)(wrong_type)
    app.exception_handler([ClientError, BotoCoreError, TimeoutError])(upstream)
    app.exception_handler(Exception)(bug)
    return app


#: What the bodies of these routes may have, to guess what was meant by a field that they do not have.
_BODIES: dict[str, type[BaseModel]] = {
    "/generate": GenerateBody,
    "/api/v2/jobs": SubmitBody,
    "/api/v2/workflows/convert": ConvertBody,
    needs.PATH: needs.NeedsBody,
    batches.LIST: BatchBody,
}


def _invalid(error: RequestValidationError, body: type[BaseModel] | None) -> ComfyError:
    """The refusal that names the wrong parts of a request, in our words. `body`: of the route, if it is known."""
    entries = error.errors()
    problems = field_problems(entries, body, outer=1)
    listing = "; ".join(f"{problem['field']}: {problem['problem']}" for problem in problems[:20])
    is_about_labels = all("metadata" in entry["loc"] for entry in entries)
    kind = InvalidMetadata if is_about_labels else InvalidRequest
    return kind(f"The request cannot be used: {listing}.", details={"errors": problems})


#: What agents in web pages send with what goes to /mcp; the question whether they may comes here.
_OF_AGENTS = ("Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name")


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(
        allow_origin=origins[0],
        extra_origins=list(origins[1:]),
        allow_headers=["Idempotency-Key", "Range", "Last-Event-ID", *_OF_AGENTS],
        expose_headers=["Location", "Retry-After"],
        max_age=600,
    )
