"""Who asks: what the authorizer has found out about the key of a request. Nothing of a request is read before that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools.event_handler.api_gateway import MiddlewareFrame
from aws_lambda_powertools.event_handler.middlewares import BaseMiddlewareHandler
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.services import Services
from comfy_serverless.errors import RateLimited, Unauthorized
from comfy_serverless.table.api_keys import ApiKeyStore

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
    from aws_lambda_powertools.event_handler.types import EventHandlerInstance

#: Routes that need no key, beside every OPTIONS. A test holds template.yaml and local/aws/gateway.py to them.
PUBLIC = frozenset({("GET", "/api/v2/health"), ("GET", "/openapi.json"), ("GET", "/docs")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The owner of a key, and what the key may do.

    Attributes:
        owner: whose jobs and assets these are.
        key_id: names the key, without being it.
        max_in_flight: how many jobs may wait and run at once; None for any number.
        requests_per_minute: None for any number.
    """

    owner: str
    key_id: str = ""
    max_in_flight: int | None = None
    requests_per_minute: int | None = None


class Authentication(BaseMiddlewareHandler[Any]):
    """A middleware of Powertools: lets a request pass whose key is known and within its limit. It comes first.

    Args:
        services: returns what the routes work with.
    """

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    def handler(self, app: EventHandlerInstance, next_middleware: NextMiddleware) -> Any:  # noqa: ANN401
        """Let the request pass, and tell the routes who has sent it; once for a request, although it is asked twice."""
        if "services" not in app.context:
            services = self._services()
            event = app.current_event
            if event.http_method != "OPTIONS" and (event.http_method, event.path) not in PUBLIC:
                who = caller_of(event.raw_event)
                check_rate(who, services.keys)
                app.append_context(caller=who)  # type: ignore[no-untyped-call]
            app.append_context(services=services)  # type: ignore[no-untyped-call]
        return next_middleware(app)

    def before(self, then: Callable[..., Any]) -> Any:  # noqa: ANN401  (Powertools wants its own class there)
        """Make one middleware of this and another one."""
        return lambda app, next_middleware: self(app, cast("Any", MiddlewareFrame(then, next_middleware)))


def check_rate(who: Caller, keys: ApiKeyStore) -> None:
    """Count a request.

    Raises:
        RateLimited: the key has had its requests of this minute.
    """
    limit = who.requests_per_minute
    if limit is None:
        return
    is_within_limit = keys.count_request(who.key_id, limit=limit)
    if not is_within_limit:
        raise RateLimited(f"this key may send {limit} requests a minute, and has: wait for the next minute.")


def caller(router: APIGatewayHttpRouter) -> Caller:
    """Who has sent the request in hand."""
    found: Caller = router.context["caller"]
    return found


def caller_of(event: dict[str, Any]) -> Caller:
    """Who has sent an event of API Gateway.

    Raises:
        Unauthorized: the authorizer did not know the key.
    """
    authorizer = (event.get("requestContext") or {}).get("authorizer") or {}
    facts = authorizer.get("lambda") or {}
    owner = str(facts.get("owner") or "")
    if not owner:
        raise Unauthorized(
            "the API key is missing, unknown, revoked or expired: send `Authorization: Bearer <key>`. "
            "Keys are made with `comfy-serverless keys create`."
        )
    return Caller(
        owner=owner,
        key_id=str(facts.get("key_id") or ""),
        max_in_flight=_number(facts.get("max_in_flight")),
        requests_per_minute=_number(facts.get("requests_per_minute")),
    )


def _number(value: object) -> int | None:
    text = str(value or "")
    return int(text) if text.isdecimal() else None
