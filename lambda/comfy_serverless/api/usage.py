"""`GET /api/v2/usage`: what an owner's jobs have cost, or everybody's for an admin (ours)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from comfy_serverless.api.auth import admin, caller
from comfy_serverless.api.bodies import INVALID, REFUSALS, ErrorEnvelope, documented
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import Services, services
from comfy_serverless.table.usage_report import Asked, report

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]


class UsageSums(BaseModel):
    """Sums over jobs that have ended.

    Attributes:
        failed: jobs that failed or expired.
        seconds: for which workers worked on them.
        bytes: of their outputs.
        cost_usd: estimated by the operator's prices; null if none was known for any of them.
    """

    jobs: int
    failed: int
    seconds: float
    outputs: int
    bytes: int
    cost_usd: float | None


class UsageRow(UsageSums):
    """The sums of one day, workflow, key or owner, or of one of several of these: `by` says which it has.

    Attributes:
        workflow: the named workflow; "" for jobs that run none.
        key: the id of the key that they were submitted with; "" for drops.
    """

    day: str | None = None
    workflow: str | None = None
    key: str | None = None
    key_name: str | None = None
    owner: str | None = None


class UsageReport(BaseModel):
    """What jobs have cost, from one day to another, both included (UTC)."""

    model_config = ConfigDict(serialize_by_alias=True)

    first: Annotated[str, Field(alias="from")]
    to: str
    by: str
    rows: list[UsageRow]
    total: UsageSums


@router.get(
    "/api/v2/usage",
    summary="What jobs have cost (ours)",
    tags=["about"],
    description="Sums over jobs that have ended, by day, workflow or key; several with commas between. Only admins see "
    "other owners: `by=owner` is of all, `owner=NAME` of one.",
    responses={
        200: documented("The sums.", UsageReport),
        403: documented("`forbidden`: the key is no admin's.", ErrorEnvelope),
        **INVALID,
        **REFUSALS,
    },
)
def get_usage(
    by: Annotated[str, Query(max_length=100, description="day, workflow, key, owner, or several.")] = "day",
    first: Annotated[
        str | None, Query(alias="from", max_length=40, description="The first day; without it, the first of a month.")
    ] = None,
    to: Annotated[str | None, Query(max_length=40, description="The last day; without it, today.")] = None,
    owner: Annotated[str | None, Query(max_length=64, description="For admins: whose jobs.")] = None,
) -> Response[str]:
    """Add up the counters of the caller, or of those that an admin asks for."""
    asked, behind = Asked.parse(by, first, to), services(router)
    who = admin(router) if owner is not None or "owner" in asked.by else caller(router)
    is_of_all = owner is None and "owner" in asked.by
    owners = owners_of(behind, who.owner) if is_of_all else [owner if owner is not None else who.owner]
    names: dict[str, str] = {}
    if "key" in asked.by:
        names = {key.id: key.name for key in behind.keys.list() if key.owner in owners}
    counters = behind.usage.of_owners(owners, asked.first, asked.last)
    told = report(counters, asked, key_names=names)
    UsageReport.model_validate(told)
    return answer(HTTPStatus.OK, told)


def owners_of(behind: Services, also: str) -> list[str]:
    """Everybody who may have jobs: the owners of keys, also of those that no longer work, and of drops."""
    return sorted({*(key.owner for key in behind.keys.list()), behind.settings.drop_owner, also})
