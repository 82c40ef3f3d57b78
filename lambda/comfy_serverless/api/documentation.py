"""The API about itself: `/api/v2/health`, `/openapi.json` and the page at `/docs`. These need no key.

Anybody may ask for them, so they are small, made once a process, and kept by browsers (`ETag`). What the workers
tell of themselves names what is in the image: that needs a key. Whoever sends one with `/openapi.json` gets the named
workflows of its owner, too, which nobody else may keep.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.auth import caller_by_header
from comfy_serverless.api.bodies import REFUSALS, Health, LostPack, WorkersHealth, documented
from comfy_serverless.api.examples import completed
from comfy_serverless.api.responses import JSON, answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.api.workflow_documents import WorkflowDocuments
from comfy_serverless.table.live import DEFAULT

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

TITLE = "comfy-serverless"
DESCRIPTION = (
    "The Comfy API v2 on your own AWS account: set COMFY_BASE_URL to this address and COMFY_API_KEY to a key of "
    "`comfy-serverless keys create`, and the official SDKs work unchanged. What is ours says so."
)
_HTML = "text/html; charset=utf-8"
#: Also shared caches may keep them: they are the same for everybody. A new release shows within the hour.
_KEPT = "public, max-age=3600"
#: What is one owner's: it is asked for each time, and often answered with 304.
_KEPT_FOR_ONE = "private, no-cache"
_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


@router.get(
    "/api/v2/health",
    summary="Whether the API answers",
    tags=["about"],
    responses={200: documented("It does.", Health)},
)
def health() -> Response[str]:
    """Show that this function runs; it asks nothing behind it, except with `?detail` what workers have told lately."""
    told: dict[str, Any] = {}
    if "detail" in (router.current_event.query_string_parameters or {}):
        known = services(router)
        told = {"nodes_not_loaded": len(known.node_list.not_imported()), **_release(known)}
    return answer(HTTPStatus.OK, Health(version=package_version(), **told).model_dump(exclude_none=True))


@router.get(
    "/api/v2/health/workers",
    summary="Which packs of custom nodes did not import on the workers, and why (ours)",
    tags=["about"],
    responses={200: documented("What they have told within the last 15 minutes.", WorkersHealth), **REFUSALS},
)
def workers_health() -> Response[str]:
    """Show what `?detail` only counts."""
    known = services(router)
    lost = [LostPack(pack=pack.pack, reason=pack.reason) for pack in known.node_list.not_imported()]
    told = WorkersHealth(nodes_not_loaded=lost, **_release(known))
    return answer(HTTPStatus.OK, told.model_dump(exclude_none=True))


def _release(known: Services) -> dict[str, str]:
    """The release that jobs go to now, and what its image was built from; nothing of one without a name."""
    name, built_from = known.workers.release()
    told = {"release": "" if name == DEFAULT else name, "release_version": built_from}
    return {field: value for field, value in told.items() if value}


def attach(app: APIGatewayHttpResolver) -> None:
    """Add the OpenAPI document of the whole API, and the page that shows it."""
    app.configure_openapi(
        title=TITLE,
        version=package_version(),
        description=DESCRIPTION,
        security_schemes={"bearerAuth": HTTPBearer(bearerFormat="API key")},
        security=[{"bearerAuth": []}],
    )
    schema = cache(lambda: json.dumps(completed(json.loads(app.get_openapi_json_schema()))))
    own = WorkflowDocuments(schema)

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response[str]:
        header = app.current_event.headers.get("authorization") or ""
        if not header:
            return _kept(app, schema(), content_type=JSON, vary="authorization")
        known: Services = app.context["services"]
        who = caller_by_header(header, known.keys)
        return _kept(app, own.of(who.owner, known), content_type=JSON, vary="authorization", cache=_KEPT_FOR_ONE)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response[str]:
        return _kept(app, page(), content_type=_HTML, policy=page_policy())


@cache
def page() -> str:
    """The page at `/docs`: it reads `/openapi.json`, lists the routes, and sends requests with a key."""
    return files("comfy_serverless.api").joinpath("docs.html").read_text(encoding="utf-8")


@cache
def page_policy() -> str:
    """The page's Content-Security-Policy: its own style and script, known by their hashes, and requests to this API."""
    allowed = {kind: f"'sha256-{_digest(content)}'" for kind, content in _INLINE.findall(page())}
    return (
        f"default-src 'none'; style-src {allowed['style']}; script-src {allowed['script']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def package_version() -> str:
    """Our version; "dev" if the package is not installed."""
    try:
        return version("comfy-serverless")
    except PackageNotFoundError:
        return "dev"


def _kept(
    app: APIGatewayHttpResolver,
    body: str,
    *,
    content_type: str,
    policy: str | None = None,
    vary: str | None = None,
    cache: str = _KEPT,
) -> Response[str]:
    """A document that browsers keep, or that the one which a browser has is still good."""
    headers = {"cache-control": cache, "etag": f'"{_digest(body)[:32]}"'}
    further = {"content-security-policy": policy, "vary": vary}
    headers |= {name: value for name, value in further.items() if value is not None}
    if headers["etag"] in (app.current_event.headers.get("if-none-match") or ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, body="", headers=headers)
    return Response(status_code=HTTPStatus.OK, content_type=content_type, body=body, headers=headers, compress=True)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
