"""DynamoDB with plain dictionaries: all that our stores need of it, and nothing more.

Items hold texts, whole numbers, booleans, lists, maps and sets of texts; a value of None has no attribute.

DynamoDB deletes an item up to some days after the moment at which it `expires`. From that moment on no read returns it
here, and a write that must be the first is conditional on `NOT_THERE`: nothing depends on when it is deleted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import ClientError

from comfy_serverless import moments
from comfy_serverless.aws.s3 import error_code
from comfy_serverless.moments import moment_text
from comfy_serverless.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]

#: The attribute that says when an item ends, in seconds since 1970: that of the table's TimeToLiveSpecification.
EXPIRES = "expires"
#: The condition that there is no such item, or that it has expired; `not_there` has its value.
NOT_THERE = f"attribute_not_exists(pk) OR #{EXPIRES} <= :now"
_T = TypeVar("_T")

#: DynamoDB's own limits for one call of BatchWriteItem and of BatchGetItem.
MAX_BATCH, MAX_READS = 25, 100
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _ATTEMPTS = 2, 5, 5
#: The pauses before items that DynamoDB has not taken are sent again, in seconds.
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
_FAILED_CONDITION = "ConditionalCheckFailed"
#: Two transactions touched the same item at the same moment.
_IN_CONFLICT = "TransactionConflict"
#: The pauses before a write that was in conflict is tried again, in seconds; each is up to twice as long, at random.
_OUT_OF_STEP_S = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0)

_to_attribute = TypeSerializer().serialize
_from_attribute = TypeDeserializer().deserialize


class ConditionFailed(Exception):
    """The item is not in the state that a conditional write asks for.

    Attributes:
        item: as it stands, if DynamoDB returned it; empty if there is none.
        index: the position of the write in a transaction.
    """

    def __init__(self, item: Item | None = None, *, index: int = 0) -> None:
        super().__init__("the item is in another state")
        self.item = item or {}
        self.index = index


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A change of one item.

    Attributes:
        pk, sk: the key of the item.
        assign: attributes and their new values.
        add: numbers to add to attributes, or members to add to sets.
        remove: attributes to take away.
        condition: DynamoDB's condition expression; names begin with `#`, values with `:`.
        values: the meanings of the `:values` of the condition.
    """

    pk: str
    sk: str
    assign: Mapping[str, Any]
    add: Mapping[str, int | set[str]] | None = None
    remove: Sequence[str] = ()
    condition: str = ""
    values: Mapping[str, Any] | None = None

    def request(self) -> dict[str, Any]:
        """The arguments of UpdateItem, without the table."""
        add = self.add or {}
        clauses = {
            "SET ": [f"#{name} = :new_{name}" for name in self.assign],
            "ADD ": [f"#{name} :add_{name}" for name in add],
            "REMOVE ": [f"#{name}" for name in self.remove],
        }
        expression = " ".join(verb + ", ".join(changes) for verb, changes in clauses.items() if changes)
        names = {f"#{name}": name for name in (*self.assign, *add, *self.remove)} | names_in(self.condition)
        values = {f":new_{name}": value for name, value in self.assign.items()}
        values |= {f":add_{name}": value for name, value in add.items()}
        values |= {f":{name}": value for name, value in (self.values or {}).items()}
        request: dict[str, Any] = {"Key": to_item({"pk": self.pk, "sk": self.sk}), "UpdateExpression": expression}
        if names:
            request["ExpressionAttributeNames"] = names
        if values:
            request["ExpressionAttributeValues"] = to_item(values)
        if self.condition:
            request["ConditionExpression"] = self.condition
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a query's answer, in the order of the sort key; `last_key` is where the next page begins, if any."""

    items: list[Item]
    last_key: Item | None = None


class Table:
    """One DynamoDB table. Thread-safe."""

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        self._client = client
        self.name = name

    def get(self, pk: str, sk: str, *, consistent: bool = True) -> Item | None:
        """One item, or None."""
        key = to_item({"pk": pk, "sk": sk})
        answer = self._client.get_item(TableName=self.name, Key=key, ConsistentRead=consistent)
        found = _kept([answer["Item"]] if "Item" in answer else ())
        return found[0] if found else None

    def put(self, item: Mapping[str, Any], *, condition: str = "", values: Mapping[str, Any] | None = None) -> None:
        """Write a whole item. Raises ConditionFailed if the condition does not hold."""
        request: dict[str, Any] = {"Item": to_item(item), **_condition(condition, values)}
        try:
            _in_turn(self._client.put_item, TableName=self.name, **request)
        except ClientError as error:
            raise _condition_failed(error) or error from None

    def update(self, change: Update) -> Item:
        """Change an item and return it as it is now. Raises ConditionFailed if the condition does not hold."""
        request: Any = change.request()
        if change.condition:
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        try:
            answer = _in_turn(self._client.update_item, TableName=self.name, ReturnValues="ALL_NEW", **request)
        except ClientError as error:
            raise _condition_failed(error) or error from None
        return from_item(answer["Attributes"])

    def try_update(self, change: Update) -> bool:
        """Change an item; return False if the condition does not hold and nothing was changed."""
        try:
            self.update(change)
        except ConditionFailed:
            return False
        return True

    def delete(self, pk: str, sk: str, *, condition: str = "", values: Mapping[str, Any] | None = None) -> Item | None:
        """Delete an item and return it as it was. Raises ConditionFailed if the condition does not hold."""
        request: dict[str, Any] = {"Key": to_item({"pk": pk, "sk": sk}), **_condition(condition, values)}
        try:
            answer = _in_turn(self._client.delete_item, TableName=self.name, ReturnValues="ALL_OLD", **request)
        except ClientError as error:
            raise _condition_failed(error) or error from None
        return from_item(answer["Attributes"]) if answer.get("Attributes") else None

    def query(
        self,
        condition: str,
        values: Mapping[str, Any],
        *,
        index: str | None = None,
        filter_by: str = "",
        names: Mapping[str, str] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        start: Mapping[str, Any] | None = None,
    ) -> Page:
        """One page of a query; consistent, unless it is of an index.

        An index has only some of the attributes: one that has no `expires` still finds what has expired, and whoever
        asks it leaves that out (`JobReader`, `neglected`).

        Args:
            condition: on the keys; names begin with `#`, values with `:`.
            filter_by: a filter expression.
            names: the meanings of `#names` that differ from the name itself.
        """
        request: dict[str, Any] = {
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": {**names_in(condition), **names_in(filter_by), **(names or {})},
            "ExpressionAttributeValues": to_item({f":{name}": value for name, value in values.items()}),
            "ScanIndexForward": not newest_first,
        }
        request |= {"IndexName": index} if index else {"ConsistentRead": True}
        if filter_by:
            request["FilterExpression"] = filter_by
        if limit:
            request["Limit"] = limit
        if start:
            request["ExclusiveStartKey"] = to_item(start)
        answer = self._client.query(TableName=self.name, **request)
        last_key = answer.get("LastEvaluatedKey")
        return Page(items=_kept(answer["Items"]), last_key=from_item(last_key) if last_key else None)

    def query_all(self, condition: str, values: Mapping[str, Any]) -> Iterator[Item]:
        """All items of a query, page after page."""
        start: Item | None = None
        while True:
            page = self.query(condition, values, start=start)
            yield from page.items
            if (start := page.last_key) is None:
                return

    def count(self, condition: str, values: Mapping[str, Any], *, index: str) -> int:
        """The number of items a query finds (on its first page: up to some thousand)."""
        answer = self._client.query(
            TableName=self.name,
            IndexName=index,
            KeyConditionExpression=condition,
            ExpressionAttributeNames=names_in(condition),
            ExpressionAttributeValues=to_item({f":{name}": value for name, value in values.items()}),
            Select="COUNT",
        )
        return answer["Count"]

    def put_all(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Write items without conditions, in as few calls as possible.

        Raises TimeoutError if DynamoDB does not take all of them in time.
        """
        for first in range(0, len(items), MAX_BATCH):
            pending: Any = {
                self.name: [{"PutRequest": {"Item": to_item(item)}} for item in items[first : first + MAX_BATCH]]
            }
            for _ in attempts(_PAUSES_S):
                pending = self._client.batch_write_item(RequestItems=pending)["UnprocessedItems"]
                if not pending:
                    break
            else:
                raise TimeoutError(f"DynamoDB has not taken all items of the table {self.name}")

    def get_all(self, keys: Sequence[tuple[str, str]], *, attributes: Sequence[str] = ()) -> list[Item]:
        """The items of these keys that exist, consistent, in no order; with `attributes`, only those of each.

        Raises TimeoutError if DynamoDB does not answer for all of them in time.
        """
        items: list[Item] = []
        for first in range(0, len(keys), MAX_READS):
            wanted: Any = [to_item({"pk": pk, "sk": sk}) for pk, sk in dict.fromkeys(keys[first : first + MAX_READS])]
            pending: Any = {self.name: {"Keys": wanted, "ConsistentRead": True, **_projection(attributes)}}
            for _ in attempts(_PAUSES_S):
                answer = self._client.batch_get_item(RequestItems=pending)
                items += _kept(answer["Responses"].get(self.name, ()))
                pending = answer["UnprocessedKeys"]
                if not pending:
                    break
            else:
                raise TimeoutError(f"DynamoDB has not answered for all items of the table {self.name}")
        return items

    def transact(self, writes: Sequence[Mapping[str, Any]]) -> None:
        """Do all of the writes, or none. Each is one of `put_write`, `update_write`, `delete_write`.

        Raises ConditionFailed for the first write whose condition does not hold; its `index` says which.
        """
        requests: Any = [
            {kind: {"TableName": self.name, **request} for kind, request in write.items()} for write in writes
        ]
        for attempt in attempts(_OUT_OF_STEP_S, pause=_pause):
            try:
                self._client.transact_write_items(TransactItems=requests)
            except ClientError as error:
                response: Any = error.response
                reasons = response.get("CancellationReasons") or ()
                for index, reason in enumerate(reasons):
                    if reason.get("Code") == _FAILED_CONDITION:
                        item = from_item(reason["Item"]) if reason.get("Item") else None
                        raise ConditionFailed(item, index=index) from None
                if attempt.is_last or not any(reason.get("Code") == _IN_CONFLICT for reason in reasons):
                    raise
            else:
                return


def put_write(item: Mapping[str, Any], *, condition: str = "", values: Mapping[str, Any] | None = None) -> Item:
    """A part of a transaction: write a whole item."""
    return {"Put": {"Item": to_item(item), **_condition(condition, values)}}


def update_write(change: Update) -> Item:
    """A part of a transaction: change an item."""
    return {"Update": change.request()}


def delete_write(pk: str, sk: str, *, condition: str = "", values: Mapping[str, Any] | None = None) -> Item:
    """A part of a transaction: delete an item."""
    return {"Delete": {"Key": to_item({"pk": pk, "sk": sk}), **_condition(condition, values)}}


def dynamodb_client(*, is_patient: bool = False) -> DynamoDBClient:
    """The client for everything, with short timeouts, because DynamoDB answers in milliseconds.

    A patient one writes as fast as the table takes it, and slows down on request. With the other a caller who waits for
    an answer gets an error sooner.
    """
    retries: Any = {
        "mode": "adaptive" if is_patient else "standard",
        "total_max_attempts": 3 * _ATTEMPTS if is_patient else _ATTEMPTS,
    }
    config = Config(retries=retries, connect_timeout=_CONNECT_TIMEOUT_S, read_timeout=_READ_TIMEOUT_S)
    return boto3.client("dynamodb", config=config)


def to_item(values: Mapping[str, Any]) -> Item:
    """An item in DynamoDB's own notation. Nones are left out."""
    return {name: _to_attribute(value) for name, value in values.items() if value is not None}


def from_item(item: Mapping[str, Any]) -> Item:
    """An item as plain Python values; numbers are whole."""
    return {name: _plain(_from_attribute(value)) for name, value in item.items()}


def names_in(expression: str) -> dict[str, str]:
    """`{"#status": "status"}` for every `#name` of an expression."""
    words = expression.replace("(", " ").replace(")", " ").replace(",", " ").replace(".", " ").split()
    return {word: word[1:] for word in words if word.startswith("#")}


def not_there() -> dict[str, Any]:
    """The values of the condition `NOT_THERE`, as of now."""
    return {"now": now_s()}


def now_s() -> int:
    """This moment, in whole seconds since 1970, as in TTL attributes and leases."""
    return int(moments.now().timestamp())


def now_text() -> str:
    """This moment as the API writes moments: `2026-01-31T12:00:00.000Z`. Sorts as text."""
    return moment_text(moments.now())


def moment_of(epoch_s: int) -> datetime:
    """The moment of a TTL attribute."""
    return datetime.fromtimestamp(epoch_s, UTC)


def _kept(items: Iterable[Mapping[str, Any]]) -> list[Item]:
    """Items as plain values, without those that have expired."""
    now = now_s()
    return [item for item in map(from_item, items) if EXPIRES not in item or item[EXPIRES] > now]


def _plain(value: Any) -> Any:  # noqa: ANN401
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case bool() | str() | None | set():
            return value
    return int(value)


def _condition(condition: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    if not condition:
        return {}
    request: dict[str, Any] = {"ConditionExpression": condition}
    if names := names_in(condition):
        request["ExpressionAttributeNames"] = names
    if values:
        request["ExpressionAttributeValues"] = to_item({f":{name}": value for name, value in values.items()})
    return request


def _projection(attributes: Sequence[str]) -> dict[str, Any]:
    if not attributes:
        return {}
    names = {f"#{name}": name for name in (*attributes, EXPIRES)}
    return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}


def _pause(seconds: float) -> None:
    """Wait for a time that nobody else waits for, who was in the same conflict."""
    time.sleep(seconds * random.uniform(1, 2))  # noqa: S311  (no secret)


def _in_turn(write: Callable[..., _T], **request: Any) -> _T:  # noqa: ANN401  (DynamoDB's arguments)
    """Write one item; again, after a pause, if a transaction had it just then."""
    for attempt in attempts(_OUT_OF_STEP_S, pause=_pause):
        try:
            return write(**request)
        except ClientError as error:
            if attempt.is_last or error_code(error) != f"{_IN_CONFLICT}Exception":
                raise
    raise AssertionError  # the last attempt returns or raises


def _condition_failed(error: ClientError) -> ConditionFailed | None:
    if error_code(error) != f"{_FAILED_CONDITION}Exception":
        return None
    item: Any = error.response.get("Item")
    return ConditionFailed(from_item(item) if item else None)
