"""`GET /api/v2/me`: whose key this is, and what it may do (ours). The console asks it first."""

from __future__ import annotations

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel

from comfy_serverless.api.auth import Caller, caller
from comfy_serverless.api.bodies import REFUSALS, documented
from comfy_serverless.api.budgets import spent
from comfy_serverless.api.documentation import package_version
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.jobs.prices import Prices, usd
from comfy_serverless.table.usage import this_month

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]


class Limits(BaseModel):
    """What the key is held to; null is no limit."""

    max_in_flight: int | None
    requests_per_minute: int | None


class Budget(BaseModel):
    """What the key's jobs may cost in a calendar month (UTC), in US dollars, as estimated.

    Attributes:
        action: what happens to further jobs then: `warn`, a warning on each, or `refuse`, 403 `budget_exceeded`.
        month: the month of `spent_usd`.
        spent_usd: what its ended jobs have cost; null if that could not be read now.
    """

    budget_usd: float
    action: str
    month: str
    spent_usd: float | None


class PriceList(BaseModel):
    """The operator's prices, in US dollars; null is not known. A job's `cost_usd` is estimated with them."""

    usd_per_second: float | None
    usd_per_request: float | None


class Me(BaseModel):
    """The key that was sent.

    Attributes:
        key_name: what people call it.
        is_admin: whether it may see everybody's usage, and make and end keys.
        events_url: where changes of the owner's jobs are streamed, absolute, with a right of its own that ends soon;
            null where only `GET /api/v2/events` of this API tells them.
        version: of this service.
    """

    owner: str
    key_name: str
    is_admin: bool
    limits: Limits
    budget: Budget | None
    events_url: str | None
    version: str
    prices: PriceList


@router.get(
    "/api/v2/me",
    summary="Whose key this is, and what it may do (ours)",
    tags=["about"],
    responses={200: documented("The key's owner, limits and prices.", Me), **REFUSALS},
)
def get_me() -> Response[str]:
    """Tell what the authorizer knows of the key, and what its jobs of this month have cost if it has a budget."""
    who, behind = caller(router), services(router)
    me = Me(
        owner=who.owner,
        key_name=who.key_name,
        is_admin=who.is_admin,
        limits=Limits(max_in_flight=who.max_in_flight, requests_per_minute=who.requests_per_minute),
        budget=_budget(who, behind),
        events_url=None,
        version=package_version(),
        prices=PriceList.model_validate(Prices.of(behind.settings).to_json()),
    )
    return answer(HTTPStatus.OK, me.model_dump())


def _budget(who: Caller, behind: Services) -> Budget | None:
    if who.budget_nanousd is None:
        return None
    now = spent(who, behind.usage)
    return Budget(
        budget_usd=usd(who.budget_nanousd),
        action=who.budget_action.value,
        month=this_month(),
        spent_usd=None if now is None else usd(now),
    )
