"""API keys: random, stored as hashes only, named, revocable.

    pk keys    those of owners       the API's role may make and end them, for an admin
    pk admins  those of admins       no role of the stack writes them: only whoever has the AWS account

An admin's key is one of an owner, too, and does for him what any other one does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, Self, TypedDict, Unpack

from comfy_serverless.aws.dynamodb import Item, Table, Update, moment_of, now_s, now_text
from comfy_serverless.errors import Forbidden, InvalidRequest, NotFound
from comfy_serverless.moments import moment_text
from comfy_serverless.table.columns import read_columns, write_columns

#: The beginning of all keys, by which scanners of repositories find a leaked one.
PREFIX = "csk_"
MAX_KEY_CHARACTERS = 200
_KEY_BYTES = 32
_ID_CHARACTERS = 12
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)
_KEYS, _ADMINS = "keys", "admins"
#: The columns whose name in the table is not that of the field: DynamoDB would delete an item that `expires`.
_STORED = {"owner": "owner_name", "expires": "expires_at"}


class BudgetAction(StrEnum):
    """What happens to the jobs of a key whose month has cost its budget."""

    WARN = "warn"
    REFUSE = "refuse"


class KeyLimits(TypedDict, total=False):
    """What holds a key back, and can be changed later; see `ApiKey`."""

    max_in_flight: int | None
    requests_per_minute: int | None
    budget_nanousd: int | None
    budget_action: BudgetAction


class KeyOptions(KeyLimits, total=False):
    """What a new key may have; see `ApiKey`. `expires_in_s` are seconds from now."""

    expires_in_s: int | None
    is_admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """The record of a key, without the key itself.

    Attributes:
        id: the first characters of its hash.
        owner: the owner of the jobs and assets that it gives access to.
        expires: when it stops working, in seconds since 1970; None for never.
        max_in_flight: how many jobs may wait and run at once; None for any number, as in `requests_per_minute`.
        budget_nanousd: what its jobs of a month (UTC) may cost, as estimated (`jobs.prices`); None for any sum.
        budget_action: what happens to further jobs then.
        is_admin: whether it may also see everybody's usage, and make and end keys; its partition says it.
        is_revoked: whether somebody has ended it; the record stays, for lists.
    """

    id: str
    name: str
    owner: str
    created_at: str
    expires: int | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    budget_nanousd: int | None = None
    budget_action: BudgetAction = BudgetAction.WARN
    is_admin: bool = False
    is_revoked: bool = False

    @classmethod
    def from_item(cls, item: Item) -> Self:
        columns = read_columns(cls, item, stored=_STORED)
        columns["id"] = item["sk"].removeprefix("key#")[:_ID_CHARACTERS]
        columns["budget_action"] = BudgetAction(columns.get("budget_action", BudgetAction.WARN))
        return cls(**{**columns, "is_admin": item.get("pk") == _ADMINS, "is_revoked": "revoked_at" in item})

    def to_item(self, digest: str) -> Item:
        """The item of a new key."""
        bare = replace(self, is_admin=False)  # the partition key says it, and the sort key has the id
        columns: dict[str, Any] = write_columns(bare, stored=_STORED)
        del columns["id"]
        if self.budget_action is not BudgetAction.WARN:
            columns["budget_action"] = self.budget_action.value
        return {"pk": _ADMINS if self.is_admin else _KEYS, "sk": _sort_key(digest), **columns}

    def to_json(self) -> dict[str, Any]:
        """As the API and the command line tell it."""
        from comfy_serverless.jobs.prices import usd  # the authorizer shows no key, and has no time for more

        return {
            "id": self.id,
            "name": self.name,
            "owner": self.owner,
            "created_at": self.created_at,
            "expires_at": None if self.expires is None else moment_text(moment_of(self.expires)),
            "max_in_flight": self.max_in_flight,
            "requests_per_minute": self.requests_per_minute,
            "is_admin": self.is_admin,
            "budget_usd": None if self.budget_nanousd is None else usd(self.budget_nanousd),
            "budget_action": None if self.budget_nanousd is None else self.budget_action.value,
            "is_revoked": self.is_revoked,
        }

    @property
    def is_good(self) -> bool:
        """Whether it works now."""
        return not self.is_revoked and (self.expires is None or self.expires > now_s())


class NewKey(NamedTuple):
    """A key that was just made: its text is shown once, and is not stored."""

    text: str
    key: ApiKey


class ApiKeyStore:
    """The keys in the table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def create(self, name: str, *, owner: str, **options: Unpack[KeyOptions]) -> NewKey:
        """Make a key. Raises InvalidRequest for a bad name, owner or limit, or a taken name."""
        if any(key.name == name and key.is_good for key in self.list()):
            raise InvalidRequest(f"there is a key named {name!r} already: revoke it first, or choose another name.")
        text = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        return NewKey(text, self.register(text, name=name, owner=owner, **options))

    def register(
        self,
        text: str,
        *,
        name: str,
        owner: str,
        expires_in_s: int | None = None,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
        is_admin: bool = False,
        budget_nanousd: int | None = None,
        budget_action: BudgetAction = BudgetAction.WARN,
    ) -> ApiKey:
        """Make a given text a key: for the local stack, whose key is public."""
        for what, value in {"name": name, "owner": owner}.items():
            if not _NAME.fullmatch(value):
                raise InvalidRequest(f"the {what} {value[:100]!r} must have 1 to 64 letters, digits, '_' or '-'.")
        _check(max_in_flight=max_in_flight, requests_per_minute=requests_per_minute, budget_nanousd=budget_nanousd)
        digest = hash_of(text)
        key = ApiKey(
            id=digest[:_ID_CHARACTERS],
            name=name,
            owner=owner,
            created_at=now_text(),
            expires=None if expires_in_s is None else now_s() + expires_in_s,
            max_in_flight=max_in_flight,
            requests_per_minute=requests_per_minute,
            is_admin=is_admin,
            budget_nanousd=budget_nanousd,
            budget_action=budget_action,
        )
        self._table.put(key.to_item(digest))
        return key

    def find(self, text: str) -> ApiKey | None:
        """The key with this text, if it works. One read; for an admin's, and for no key, two."""
        if not 0 < len(text) <= MAX_KEY_CHARACTERS:
            return None
        sort_key = _sort_key(hash_of(text))
        item = self._table.get(_KEYS, sort_key) or self._table.get(_ADMINS, sort_key)
        key = ApiKey.from_item(item) if item else None
        return key if key is not None and key.is_good else None

    def with_id(self, key_id: str) -> ApiKey | None:
        """The key with this id, if it works. One read of no other key; for an admin's, and for none, two."""
        first = _sort_key(key_id)
        for partition in (_KEYS, _ADMINS):
            values = {"pk": partition, "first": first, "last": f"{first}~"}
            for item in self._table.query_all("#pk = :pk AND #sk BETWEEN :first AND :last", values):
                key = ApiKey.from_item(item)
                if key.id == key_id and key.is_good:
                    return key
        return None

    def list(self) -> list[ApiKey]:
        """All keys, also revoked and expired ones, the oldest first."""
        return sorted(map(ApiKey.from_item, self._items()), key=lambda key: key.created_at)

    def revoke(self, id_or_name: str, *, admins_too: bool = True) -> ApiKey:
        """End a key. One that was ended before is returned as it is: who lost the answer asks again.

        Raises:
            NotFound: no key has this id or name.
            Forbidden: it is an admin's, and those may not be ended here.
        """
        items = list(self._items())
        by_id, by_name = (_called(items, id_or_name, by=what) for what in ("id", "name"))
        item = _one(by_id or _good(by_name) or by_name, f"no key has the id or name {id_or_name[:100]!r}", admins_too)
        key = ApiKey.from_item(item)
        return key if key.is_revoked else self._change(item, {"revoked_at": now_text()})

    def change(self, id_or_name: str, *, admins_too: bool = True, **limits: Unpack[KeyLimits]) -> ApiKey:
        """Give a key that works other limits: None takes one away, and what is left out stays. Raises as `revoke`, and
        InvalidRequest for a limit that is none.
        """
        _check(**limits)
        items = list(self._items())
        by_id, by_name = (_good(_called(items, id_or_name, by=what)) for what in ("id", "name"))
        item = _one(by_id or by_name, f"no working key has the id or name {id_or_name[:100]!r}", admins_too)
        columns: dict[str, Any] = dict(limits)
        if "budget_action" in limits:
            columns["budget_action"] = limits["budget_action"].value
        return self._change(item, columns)

    def _change(self, item: Item, columns: dict[str, Any]) -> ApiKey:
        kept = {name: value for name, value in columns.items() if value is not None}
        change = Update(pk=item["pk"], sk=item["sk"], assign=kept, remove=[*(columns.keys() - kept.keys())])
        return ApiKey.from_item(self._table.update(change))

    def _items(self) -> Iterator[Item]:
        for partition in (_KEYS, _ADMINS):
            yield from self._table.query_all("#pk = :pk", {"pk": partition})

    def count_request(self, key_id: str, *, limit: int) -> bool:
        """Count a request of this minute; returns whether it is within the limit. One write."""
        minute = now_s() // 60
        change = Update(
            pk=f"rate#{key_id}#{minute}",
            sk="rate",
            assign={"expires": (minute + 2) * 60},
            add={"requests": 1},
            condition="attribute_not_exists(#requests) OR #requests < :limit",
            values={"limit": limit},
        )
        return self._table.try_update(change)


def _called(items: Iterable[Item], id_or_name: str, *, by: str) -> list[Item]:
    """The keys of an id, or of a name, the oldest first. A name may look like another key's id: ask for ids first."""
    called = [item for item in items if getattr(ApiKey.from_item(item), by) == id_or_name]
    return sorted(called, key=lambda item: ApiKey.from_item(item).created_at)


def _good(items: Iterable[Item]) -> list[Item]:
    return [item for item in items if ApiKey.from_item(item).is_good]


def _one(found: Sequence[Item], none: str, admins_too: bool) -> Item:
    """The last that was made. Raises NotFound if there is none, Forbidden if it is an admin's."""
    if not found:
        raise NotFound(f"{none}: `comfy-serverless keys ls` shows all.")
    if ApiKey.from_item(found[-1]).is_admin and not admins_too:
        raise Forbidden(
            "this is an admin's key: only whoever has the AWS account ends or changes it "
            "(`comfy-serverless keys revoke`, `keys change`, with --stack)."
        )
    return found[-1]


def bearer(header: str) -> str:
    """The key in an `Authorization` header, "" if there is none."""
    match = _BEARER.fullmatch(header)
    return match[1] if match else ""


def hash_of(text: str) -> str:
    """The stored hash of a key. Keys are random and long, so that a plain hash cannot be reversed."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _sort_key(digest: str) -> str:
    return f"key#{digest}"


def _check(**limits: Unpack[KeyLimits]) -> None:
    numbers = {**limits, "budget_action": None}
    for what, number in numbers.items():
        if isinstance(number, int) and number < 1:
            shown = "the budget" if what == "budget_nanousd" else what
            raise InvalidRequest(f"{shown} must be at least 1.")
