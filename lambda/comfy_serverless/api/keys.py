"""Routes of keys (ours), for admins: `GET /api/v2/keys`, `POST`, and `PATCH` and `DELETE …/{id}`.

The text of a key is in one answer, that to its making, and in no log. Admins' keys are made, changed and ended by
whoever has the AWS account, never here: the role of this function cannot write them (`table.api_keys`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Path
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel, ConfigDict, Field

from comfy_serverless.api.auth import admin
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, UNREADABLE, ErrorEnvelope, documented
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import services
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.prices import MOST_USD, checked_budget
from comfy_serverless.observability import log
from comfy_serverless.table.api_keys import BudgetAction, KeyLimits, KeyOptions

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

LIST = "/api/v2/keys"
_LONGEST_S = 10 * 365 * 86400
_FORBIDDEN = {403: documented("`forbidden`: the key is no admin's.", ErrorEnvelope)}
#: As `keys create` allows them.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Id = Annotated[str, Path(max_length=64, description="The key's id, or its name.")]
_MaxInFlight = Annotated[_Count, Field(description="How many jobs may wait and run at once.")]
_PerMinute = Annotated[_Count, Field(description="More are refused with 429.")]
_Budget = Annotated[float, Field(gt=0, le=MOST_USD, description="What its jobs of a month (UTC) may cost.")]
_Action = Annotated[BudgetAction, Field(strict=False, description="What happens to further jobs then.")]


class NewKeyBody(BaseModel):
    """A key to make. What is left out is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[_Name, Field(description="What it is called; no other key that works has this name.")]
    owner: Annotated[_Name, Field(description="Whose jobs and assets it gives access to.")]
    expires_in_s: Annotated[int, Field(ge=1, le=_LONGEST_S, description="Stop working after so long.")] | None = None
    max_in_flight: _MaxInFlight | None = None
    requests_per_minute: _PerMinute | None = None
    budget_usd: _Budget | None = None
    budget_action: _Action = BudgetAction.WARN


class KeyChangeBody(BaseModel):
    """Other limits for a key. null takes a limit away; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_in_flight: _MaxInFlight | None = None
    requests_per_minute: _PerMinute | None = None
    budget_usd: _Budget | None = None
    budget_action: _Action = BudgetAction.WARN


class Key(BaseModel):
    """A key, without its text. `is_admin`: it sees everybody's usage, and makes and ends keys of owners."""

    id: str
    name: str
    owner: str
    created_at: str
    expires_at: str | None
    is_admin: bool
    is_revoked: bool
    max_in_flight: int | None
    requests_per_minute: int | None
    budget_usd: float | None
    budget_action: str | None


class NewKeyAnswer(Key):
    """The key that was made; `key` is its text, which is shown only now."""

    key: str


class KeyList(BaseModel):
    """All keys, the oldest first, also those that no longer work."""

    keys: list[Key]


def body_of(method: str, path: str) -> type[BaseModel] | None:
    """What the body of a request may have, to guess what was meant by a field that it does not have."""
    if not path.startswith(LIST):
        return None
    return NewKeyBody if method == "POST" else KeyChangeBody if method == "PATCH" else None


@router.get(
    LIST,
    summary="All keys, for admins (ours)",
    tags=["keys"],
    responses={200: documented("The keys.", KeyList), **_FORBIDDEN, **REFUSALS},
)
def list_keys() -> Response[str]:
    """Return the records of all keys, never the keys themselves."""
    admin(router)
    found = [Key.model_validate(key.to_json()) for key in services(router).keys.list()]
    return answer(HTTPStatus.OK, KeyList(keys=found).model_dump())


@router.post(
    LIST,
    summary="Make a key of an owner, for admins (ours)",
    tags=["keys"],
    description="Its text is in this answer alone. Admins' keys are made with `comfy-serverless keys create --admin`.",
    responses={201: documented("The key.", NewKeyAnswer), **_FORBIDDEN, **UNREADABLE, **INVALID, **REFUSALS},
)
def make_key(body: Annotated[NewKeyBody, Body()]) -> Response[str]:
    """Make a key that is no admin's."""
    who = admin(router)
    options: KeyOptions = {
        "expires_in_s": body.expires_in_s,
        "max_in_flight": body.max_in_flight,
        "requests_per_minute": body.requests_per_minute,
        "budget_nanousd": None if body.budget_usd is None else checked_budget(body.budget_usd),
        "budget_action": body.budget_action,
    }
    text, key = services(router).keys.create(body.name, owner=body.owner, **options)
    log.info("a key was made", key_id=key.id, owner=key.owner, by=who.key_id)
    made = NewKeyAnswer.model_validate({"key": text, **key.to_json()})
    return answer(HTTPStatus.CREATED, made.model_dump())


@router.patch(
    f"{LIST}/<id>",
    summary="Change the limits of a key of an owner, for admins (ours)",
    tags=["keys"],
    description="It holds within a minute: API Gateway remembers a key for that long. null takes a limit away.",
    responses={200: documented("The key.", Key), **_FORBIDDEN, **NOT_FOUND, **UNREADABLE, **INVALID, **REFUSALS},
)
def change_key(id: _Id, body: Annotated[KeyChangeBody, Body()]) -> Response[str]:  # noqa: A002  (the route's name)
    """Give a key that is no admin's other limits."""
    who = admin(router)
    given = body.model_fields_set
    if not given:
        raise InvalidRequest(f"say what to change: {', '.join(KeyChangeBody.model_fields)}.")
    limits: KeyLimits = {}
    if "max_in_flight" in given:
        limits["max_in_flight"] = body.max_in_flight
    if "requests_per_minute" in given:
        limits["requests_per_minute"] = body.requests_per_minute
    if "budget_usd" in given:
        limits["budget_nanousd"] = None if body.budget_usd is None else checked_budget(body.budget_usd)
    if "budget_action" in given:
        limits["budget_action"] = body.budget_action
    key = services(router).keys.change(id, admins_too=False, **limits)
    log.info("a key was changed", key_id=key.id, owner=key.owner, by=who.key_id, what=sorted(given))
    return answer(HTTPStatus.OK, Key.model_validate(key.to_json()).model_dump())


@router.delete(
    f"{LIST}/<id>",
    summary="End a key of an owner, for admins (ours)",
    tags=["keys"],
    description="It stops working within a minute: API Gateway remembers for that long whose it was.",
    responses={200: documented("The key, revoked.", Key), **_FORBIDDEN, **NOT_FOUND, **REFUSALS},
)
def end_key(id: _Id) -> Response[str]:  # noqa: A002  (the route's name)
    """End a key that is no admin's."""
    who = admin(router)
    key = services(router).keys.revoke(id, admins_too=False)
    log.info("a key was ended", key_id=key.id, owner=key.owner, by=who.key_id)
    return answer(HTTPStatus.OK, Key.model_validate(key.to_json()).model_dump())
