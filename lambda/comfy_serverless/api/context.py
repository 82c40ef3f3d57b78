"""Who asks: what the authorizer has found out about the key of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.services import services
from comfy_serverless.errors import RateLimited, Unauthorized

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.types import EventHandlerInstance

#: Routes that need no key, beside every OPTIONS; template.yaml has them without the authorizer.
FOR_EVERYBODY = frozenset({"/api/v2/health", "/openapi.json", "/docs"})


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


def identify(app: EventHandlerInstance) -> None:
    """Find out who has sent the request in hand, and count it. For every route but those that are for everybody.

    Raises:
        Unauthorized: the authorizer did not know the key.
        RateLimited: the key has had its requests of this minute.
    """
    if app.current_event.path in FOR_EVERYBODY or app.current_event.http_method == "OPTIONS":
        return
    found = caller_of(app.current_event.raw_event)
    if found.requests_per_minute is not None:
        retry = services().keys.count_request(found.key_id, limit=found.requests_per_minute)
        if not retry:
            raise RateLimited(
                f"this key may send {found.requests_per_minute} requests a minute, and has: wait for the next minute."
            )
    app.append_context(caller=found)  # type: ignore[no-untyped-call]


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
