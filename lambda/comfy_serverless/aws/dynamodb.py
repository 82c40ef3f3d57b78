"""DynamoDB with plain dictionaries: what every store of ours needs of it, and nothing more.

Items hold texts, whole numbers, booleans, lists, maps and sets of texts; what has no value has no attribute.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import ClientError

from comfy_serverless.aws.s3 import error_code
from comfy_serverless.moments import moment_text
from comfy_serverless.retry import attempts

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]

#: DynamoDB's own limit for one call of BatchWriteItem.
MAX_BATCH = 25
#: The same of BatchGetItem.
MAX_READS = 100
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _ATTEMPTS = 2, 5, 5
#: Seconds before what DynamoDB has not taken is sent again, and again.
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
_FAILED_CONDITION = "ConditionalCheckFailed"
#: Two transactions touched the same item at the same moment.
_IN_CONFLICT = "TransactionConflict"

_to_attribute = TypeSerializer().serialize
_from_attribute = TypeDeserializer().deserialize


class ConditionFailed(Exception):
    """The item is not in the state that a conditional write asks for.

    Attributes:
        item: as it stands, where DynamoDB told it; empty if there is none.
        index: which of a transaction's writes it was.
    """

    def __init__(self, item: Item | None = None, *, index: int = 0) -> None:
        super().__init__("the item is in another state")
        self.item = item or {}
        self.index = index


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A change of one item.

    Attributes:
        pk, sk: which item.
        assign: attributes and their new values.
        add: numbers to add to attributes, or members to add to sets.
        remove: attributes to take away.
        condition: DynamoDB's condition expression; names begin with `#`, values with `:`.
        names: what the `#names` of the condition stand for; each attribute stands for itself already.
        values: what the `:values` of the condition stand for.
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
        parts = []
        names: dict[str, str] = {}
        values: dict[str, Any] = {}
        if self.assign:
            parts.append("SET " + ", ".join(f"#{name} = :new_{name}" for name in self.assign))
            values |= {f":new_{name}": value for name, value in self.assign.items()}
        if self.add:
            parts.append("ADD " + ", ".join(f"#{name} :add_{name}" for name in self.add))
            values |= {f":add_{name}": value for name, value in self.add.items()}
        if self.remove:
            parts.append("REMOVE " + ", ".join(f"#{name}" for name in self.remove))
        for name in (*self.assign, *(self.add or ()), *self.remove):
            names[f"#{name}"] = name
        names |= names_in(self.condition)
        values |= {f":{name}": value for name, value in (self.values or {}).items()}
        request: dict[str, Any] = {"Key": to_item({"pk": self.pk, "sk": self.sk}), "UpdateExpression": " ".join(parts)}
        if names:
            request["ExpressionAttributeNames"] = names
        if values:
            request["ExpressionAttributeValues"] = to_item(values)
        if self.condition:
            request["ConditionExpression"] = self.condition
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a query's answer.

    Attributes:
        items: in the order of the sort key.
        last_key: where the next page begins; None for the last one.
    """

    items: list[Item]
    last_key: Item | None = None


class Table:
    """One DynamoDB table. Thread-safe."""

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        self._client = client
        self.name = name

    def get(self, pk: str, sk: str, *, consistent: bool = True) -> Item | None:
        """One item, or None."""
        answer = self._client.get_item(
            TableName=self.name, Key=to_item({"pk": pk, "sk": sk}), ConsistentRead=consistent
        )
        return from_item(answer["Item"]) if "Item" in answer else None

    def put(self, item: Mapping[str, Any], *, condition: str = "", values: Mapping[str, Any] | None = None) -> None:
        """Write a whole item.

        Raises:
            ConditionFailed: the condition does not hold.
        """
        request: dict[str, Any] = {"Item": to_item(item), **_condition(condition, values)}
        try:
            self._client.put_item(TableName=self.name, **request)
        except ClientError as error:
            raise _condition_failed(error) or error from None

    def update(self, change: Update) -> Item:
        """Change an item and return it as it is now.

        Raises:
            ConditionFailed: the condition does not hold; nothing was changed.
        """
        request: Any = change.request()
        if change.condition:
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        try:
            answer = self._client.update_item(TableName=self.name, ReturnValues="ALL_NEW", **request)
        except ClientError as error:
            raise _condition_failed(error) or error from None
        return from_item(answer["Attributes"])

    def try_update(self, change: Update) -> bool:
        """Change an item; returns False where the condition does not hold: nothing was changed."""
        try:
            self.update(change)
        except ConditionFailed:
            return False
        return True

    def delete(self, pk: str, sk: str, *, condition: str = "", values: Mapping[str, Any] | None = None) -> Item | None:
        """Delete an item and answer what it was.

        Raises:
            ConditionFailed: the condition does not hold.
        """
        request: dict[str, Any] = {"Key": to_item({"pk": pk, "sk": sk}), **_condition(condition, values)}
        try:
            answer = self._client.delete_item(TableName=self.name, ReturnValues="ALL_OLD", **request)
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

        Args:
            condition: on the keys; names begin with `#`, values with `:`.
            filter_by: a filter expression.
            names: what `#names` stand for where it is not the name itself.
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
        return Page(
            items=[from_item(item) for item in answer["Items"]], last_key=from_item(last_key) if last_key else None
        )

    def query_all(self, condition: str, values: Mapping[str, Any], *, index: str | None = None) -> Iterator[Item]:
        """All items of a query, page after page."""
        start: Item | None = None
        while True:
            page = self.query(condition, values, index=index, start=start)
            yield from page.items
            if (start := page.last_key) is None:
                return

    def count(self, condition: str, values: Mapping[str, Any], *, index: str) -> int:
        """How many items a query finds (of its first page: up to some thousand)."""
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
        """Write items without conditions, in as few calls as there can be.

        Raises:
            TimeoutError: DynamoDB did not take all of them in time.
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

    def get_all(self, keys: Sequence[tuple[str, str]]) -> list[Item]:
        """Those items of these keys that there are, consistent, in no order.

        Raises:
            TimeoutError: DynamoDB did not answer for all of them in time.
        """
        found: list[Item] = []
        for first in range(0, len(keys), MAX_READS):
            wanted: Any = [to_item({"pk": pk, "sk": sk}) for pk, sk in dict.fromkeys(keys[first : first + MAX_READS])]
            pending: Any = {self.name: {"Keys": wanted, "ConsistentRead": True}}
            for _ in attempts(_PAUSES_S):
                answer = self._client.batch_get_item(RequestItems=pending)
                found += map(from_item, answer["Responses"].get(self.name, []))
                pending = answer["UnprocessedKeys"]
                if not pending:
                    break
            else:
                raise TimeoutError(f"DynamoDB has not answered for all items of the table {self.name}")
        return found

    def transact(self, writes: Sequence[Mapping[str, Any]]) -> None:
        """All of the writes, or none. Each is one of `put_write`, `update_write`, `delete_write`.

        Raises:
            ConditionFailed: the first write whose condition does not hold; `index` says which.
        """
        requests: Any = [
            {kind: {"TableName": self.name, **request} for kind, request in write.items()} for write in writes
        ]
        for attempt in attempts(_PAUSES_S):
            try:
                self._client.transact_write_items(TransactItems=requests)
            except ClientError as error:
                reasons = _reasons(error)
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
    """The client for everything, with short timeouts: DynamoDB answers in milliseconds.

    Args:
        is_patient: whether it writes as fast as the table takes it, and slows down when told to. Else, who waits for
            an answer gets an error sooner.
    """
    return boto3.client(
        "dynamodb",
        config=Config(
            retries={
                "mode": "adaptive" if is_patient else "standard",
                "total_max_attempts": 3 * _ATTEMPTS if is_patient else _ATTEMPTS,
            },
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
        ),
    )


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


def now_s() -> int:
    """This moment, in whole seconds since 1970: what TTL attributes and leases are in."""
    return int(time.time())


def now_text() -> str:
    """This moment as the API writes moments: `2026-01-31T12:00:00.000Z`. Sorts as text."""
    return moment_text(datetime.now(UTC))


def moment_of(epoch_s: int) -> datetime:
    """The moment of a TTL attribute."""
    return datetime.fromtimestamp(epoch_s, UTC)


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


def _condition_failed(error: ClientError) -> ConditionFailed | None:
    if error_code(error) != f"{_FAILED_CONDITION}Exception":
        return None
    item: Any = error.response.get("Item")
    return ConditionFailed(from_item(item) if item else None)


def _reasons(error: ClientError) -> list[dict[str, Any]]:
    answer: Any = error.response
    return list(answer.get("CancellationReasons") or ())
