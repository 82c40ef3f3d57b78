"""API keys: random, stored as hashes only, named, revocable."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import NamedTuple, Self

from comfy_serverless.aws.dynamodb import Item, Table, Update, now_s, now_text
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.table.columns import read_columns, write_columns

#: The beginning of all keys, by which scanners of repositories find a leaked one.
PREFIX = "csk_"
MAX_KEY_CHARACTERS = 200
_KEY_BYTES = 32
_ID_CHARACTERS = 12
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)
_KEYS = "keys"
#: The columns whose name in the table is not that of the field: DynamoDB would delete an item that `expires`.
_STORED = {"owner": "owner_name", "expires": "expires_at"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """The record of a key, without the key itself.

    Attributes:
        id: the first characters of its hash.
        owner: the owner of the jobs and assets that it gives access to.
        expires: when it stops working, in seconds since 1970; None for never.
        max_in_flight: how many jobs may wait and run at once; None for any number, as in `requests_per_minute`.
    """

    id: str
    name: str
    owner: str
    created_at: str
    expires: int | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    is_revoked: bool = False

    @classmethod
    def from_item(cls, item: Item) -> Self:
        columns = read_columns(cls, item, stored=_STORED)
        key_id = item["sk"].removeprefix("key#")[:_ID_CHARACTERS]
        return cls(**{**columns, "id": key_id, "is_revoked": "revoked_at" in item})

    def to_item(self, digest: str) -> Item:
        """The item of a new key."""
        columns = write_columns(self, stored=_STORED)
        del columns["id"]  # it is a part of the sort key
        return {"pk": _KEYS, "sk": _sort_key(digest), **columns}

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

    def create(self, name: str, *, owner: str, **limits: int | None) -> NewKey:
        """Make a key with the limits of `register`. Raises InvalidRequest for a bad name or owner, or a taken name."""
        if any(key.name == name and key.is_good for key in self.list()):
            raise InvalidRequest(f"there is a key named {name!r} already: revoke it first, or choose another name.")
        text = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        return NewKey(text, self.register(text, name=name, owner=owner, **limits))

    def register(
        self,
        text: str,
        *,
        name: str,
        owner: str,
        expires_in_s: int | None = None,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
    ) -> ApiKey:
        """Make a given text a key: for the local stack, whose key is public."""
        for what, value in {"name": name, "owner": owner}.items():
            if not _NAME.fullmatch(value):
                raise InvalidRequest(f"the {what} {value[:100]!r} must have 1 to 64 letters, digits, '_' or '-'.")
        for what, number in {"max_in_flight": max_in_flight, "requests_per_minute": requests_per_minute}.items():
            if number is not None and number < 1:
                raise InvalidRequest(f"{what} must be at least 1.")
        digest = hash_of(text)
        key = ApiKey(
            id=digest[:_ID_CHARACTERS],
            name=name,
            owner=owner,
            created_at=now_text(),
            expires=None if expires_in_s is None else now_s() + expires_in_s,
            max_in_flight=max_in_flight,
            requests_per_minute=requests_per_minute,
        )
        self._table.put(key.to_item(digest))
        return key

    def find(self, text: str) -> ApiKey | None:
        """The key with this text, if it works. One read."""
        if not 0 < len(text) <= MAX_KEY_CHARACTERS:
            return None
        item = self._table.get(_KEYS, _sort_key(hash_of(text)))
        key = ApiKey.from_item(item) if item else None
        return key if key is not None and key.is_good else None

    def list(self) -> list[ApiKey]:
        """All keys, also revoked and expired ones, the oldest first."""
        keys = map(ApiKey.from_item, self._table.query_all("#pk = :pk", {"pk": _KEYS}))
        return sorted(keys, key=lambda key: key.created_at)

    def revoke(self, id_or_name: str) -> ApiKey:
        """End a key. Raises NotFound if no key that works has this id or name."""
        items = list(self._table.query_all("#pk = :pk", {"pk": _KEYS}))
        for what in ("id", "name"):  # a name that looks like another key's id must not hide that key
            for item in items:
                key = ApiKey.from_item(item)
                if getattr(key, what) == id_or_name and key.is_good:
                    change = Update(pk=_KEYS, sk=item["sk"], assign={"revoked_at": now_text()})
                    return ApiKey.from_item(self._table.update(change))
        raise NotFound(
            f"no working key has the id or name {id_or_name[:100]!r}: `comfy-serverless keys list` shows all."
        )

    def count_request(self, key_id: str, *, limit: int) -> bool:
        """Count a request of this minute; returns whether it is within the limit. One write."""
        minute = int(time.time() // 60)
        change = Update(
            pk=f"rate#{key_id}#{minute}",
            sk="rate",
            assign={"expires": (minute + 2) * 60},
            add={"requests": 1},
            condition="attribute_not_exists(#requests) OR #requests < :limit",
            values={"limit": limit},
        )
        return self._table.try_update(change)


def bearer(header: str) -> str:
    """The key in an `Authorization` header, "" if there is none."""
    match = _BEARER.fullmatch(header)
    return match[1] if match else ""


def hash_of(text: str) -> str:
    """The stored hash of a key. Keys are random and long, so that a plain hash cannot be reversed."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _sort_key(digest: str) -> str:
    return f"key#{digest}"
