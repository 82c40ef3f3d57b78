"""Who sends a request: what the authorizer knows of its key. Nothing else of a request is read before that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools.event_handler.api_gateway import MiddlewareFrame
from aws_lambda_powertools.event_handler.middlewares import BaseMiddlewareHandler
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.services import Services
from comfy_serverless.errors import Forbidden, RateLimited, Unauthorized
from comfy_serverless.table.api_keys import ApiKeyStore, BudgetAction, bearer

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
    from aws_lambda_powertools.event_handler.types import EventHandlerInstance

#: Routes that need no key, besides every OPTIONS, as API Gateway names them: `{proxy+}` is any path from there on. A
#: test holds template.yaml and local/aws/gateway.py to them.
PUBLIC = frozenset(
    {
        ("GET", "/api/v2/health"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/"),
        ("GET", "/console/{proxy+}"),
    }
)
_BELOW = tuple((method, path.removesuffix("{proxy+}")) for method, path in PUBLIC if path.endswith("{proxy+}"))


def is_public(method: str, path: str) -> bool:
    """Whether a request needs no key."""
    if method == "OPTIONS" or (method, path) in PUBLIC:
        return True
    return any(method == known and path.startswith(start) for known, start in _BELOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The owner of a key, and the limits of the key; None is no limit.

    Attributes:
        owner: the jobs and assets are those of this owner.
        key_id: names the key, without being it.
        key_name: what people call it; its id, if its name is not known.
        max_in_flight: how many jobs may wait and run at once.
        is_admin: whether the key may see everybody's usage, and make and end keys.
        budget_nanousd, budget_action: what its jobs of a month may cost, and what happens then (`table.api_keys`).
    """

    owner: str
    key_id: str = ""
    key_name: str = ""
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    is_admin: bool = False
    budget_nanousd: int | None = None
    budget_action: BudgetAction = BudgetAction.WARN


class Authentication(BaseMiddlewareHandler[Any]):
    """A middleware of Powertools: lets a request pass if its key is known and within its limit. It comes first."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    def handler(self, app: EventHandlerInstance, next_middleware: NextMiddleware) -> Any:  # noqa: ANN401
        """Let the request pass, with its sender for the routes; once for a request, although this is called twice."""
        if "services" not in app.context:
            services = self._services()
            event = app.current_event
            if not is_public(event.http_method, event.path):
                app.append_context(caller=admit(event.raw_event, services))  # type: ignore[no-untyped-call]
            app.append_context(services=services)  # type: ignore[no-untyped-call]
        return next_middleware(app)

    def before(self, then: Callable[..., Any]) -> Any:  # noqa: ANN401  (Powertools wants its own class there)
        """Make one middleware of this and another one."""
        return lambda app, next_middleware: self(app, cast("Any", MiddlewareFrame(then, next_middleware)))


def admit(event: dict[str, Any], services: Services) -> Caller:
    """Who sends a request, which is counted. Raises Unauthorized for no owner, RateLimited beyond the key's limit."""
    who = caller_of(event)
    _count(who, services.keys)
    return who


def caller_by_header(header: str, keys: ApiKeyStore) -> Caller:
    """The sender of a request that no authorizer has seen; it counts as one of the key.

    Raises:
        Unauthorized: no such key works.
        RateLimited: it has sent too many requests.
    """
    key = keys.find(text) if (text := bearer(header)) else None
    if key is None:
        raise _unauthorized()
    who = Caller(
        owner=key.owner,
        key_id=key.id,
        key_name=key.name,
        max_in_flight=key.max_in_flight,
        requests_per_minute=key.requests_per_minute,
        is_admin=key.is_admin,
        budget_nanousd=key.budget_nanousd,
        budget_action=key.budget_action,
    )
    _count(who, keys)
    return who


def _count(who: Caller, keys: ApiKeyStore) -> None:
    limit = who.requests_per_minute
    if limit is not None and not keys.count_request(who.key_id, limit=limit):
        raise RateLimited(f"this key may send {limit} requests a minute, and has: wait for the next minute.")


def _unauthorized() -> Unauthorized:
    return Unauthorized(
        "the API key is missing, unknown, revoked or expired: send `Authorization: Bearer <key>`. "
        "Keys are made with `comfy-serverless keys create`."
    )


def caller(router: APIGatewayHttpRouter) -> Caller:
    """The sender of the request in hand."""
    found: Caller = router.context["caller"]
    return found


def caller_of(event: dict[str, Any]) -> Caller:
    """Who sends a request, as the authorizer found. Raises Unauthorized if it found nobody."""
    authorizer = (event.get("requestContext") or {}).get("authorizer") or {}
    facts = authorizer.get("lambda") or {}
    owner = str(facts.get("owner") or "")
    if not owner:
        raise _unauthorized()
    key_id = str(facts.get("key_id") or "")
    return Caller(
        owner=owner,
        key_id=key_id,
        key_name=str(facts.get("key_name") or key_id),
        max_in_flight=_number(facts.get("max_in_flight")),
        requests_per_minute=_number(facts.get("requests_per_minute")),
        is_admin=facts.get("is_admin") == "true",
        budget_nanousd=_number(facts.get("budget_nanousd")),
        budget_action=_action(facts.get("budget_action")),
    )


def admin(router: APIGatewayHttpRouter) -> Caller:
    """The sender of the request in hand. Raises Forbidden if his key is no admin's."""
    who = caller(router)
    if not who.is_admin:
        raise Forbidden(
            "this needs an admin's key: whoever has the AWS account makes one with `comfy-serverless keys create NAME "
            "--owner OWNER --admin`."
        )
    return who


def _action(value: object) -> BudgetAction:
    return BudgetAction.REFUSE if value == BudgetAction.REFUSE else BudgetAction.WARN


def _number(value: object) -> int | None:
    text = str(value or "")
    return int(text) if text.isdecimal() else None
