"""Moto's DynamoDB with a short way to the items. It answers as it does without (test_quick_moto.py compares).

As it comes, moto takes a long way with each request of an item, whose work is small:

- it makes a request of werkzeug's out of botocore's, parses its headers and body in three ways, and looks for the
  region, the account and the method; then it walks the answer by the service's model, asking each part for five names;
- a transaction copies the whole table, once for each of its parts;
- a query looks at all items of the table, in order, also where a partition key names a few.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from botocore.awsrequest import AWSPreparedRequest
from botocore.client import BaseClient
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.exceptions import ServiceException
from moto.core.models import botocore_stubber
from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores, get_service_model
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from werkzeug.exceptions import HTTPException

from local.aws.server import ACCOUNT

#: Operations of items: their answers are made of attributes and nothing else.
_OPERATIONS: Final = frozenset(
    {
        *("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"),
        *("TransactGetItems", "TransactWriteItems", "BatchGetItem", "BatchWriteItem"),
    }
)
_VERSION: Final = "DynamoDB_20120810"
_CONTENT_TYPE: Final = "application/x-amz-json-1.0"
_REGION: Final = re.compile(r"https://dynamodb\.([a-z0-9-]+)\.amazonaws\.com/$")
#: Bytes are Base64 in requests; moto's own parser knows where.
_BYTES: Final = re.compile(rb'"BS?"\s*:')

Answer = tuple[int, dict[str, Any], str | bytes]


def answer_shortly(target: str, body: bytes, region: str) -> Answer | None:
    """Status, headers and body for a request of items; None for any other, which has to go moto's way."""
    version, _, operation = target.rpartition(".")
    if version != _VERSION or operation not in _OPERATIONS or _BYTES.search(body):
        return None
    handler = DynamoHandler()
    handler.body = handler.params = _without_nulls(json.loads(body))
    handler.region, handler.current_account = region, ACCOUNT
    handler.headers = {"Content-Type": _CONTENT_TYPE, "x-amz-target": target}
    handler.querystring, handler.response_headers = {}, {}
    try:
        result: ActionResult = getattr(handler, camelcase_to_underscores(operation))()
    except ServiceException as error:
        return handler.serialized(ActionResult(error))
    except HTTPException as error:
        return error.code or 400, dict(error.get_headers()), error.description or ""
    members = _members(operation)
    shown: Any = result.result
    content = {name: shown[name] for name in members if shown.get(name) is not None}
    return 200, {"Content-Type": _CONTENT_TYPE}, json.dumps(content, default=_base64)


def _without_nulls(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


@cache
def _members(operation: str) -> tuple[str, ...]:
    shape: Any = get_service_model("dynamodb").operation_model(operation).output_shape
    return tuple(shape.members)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


_process_any_request: Final[Callable[..., Any]] = BotocoreStubber.process_request


def _process_request(stubber: BotocoreStubber, request: AWSPreparedRequest) -> Any:  # noqa: ANN401
    target = request.headers.get("X-Amz-Target", "")
    target = target.decode() if isinstance(target, bytes) else target
    if target.startswith(_VERSION) and (match := _REGION.match(request.url)):
        body: Any = request.body.encode() if isinstance(request.body, str) else request.body
        if (answer := answer_shortly(target, body, match[1])) is not None:
            return answer
    return _process_any_request(stubber, request)


@dataclass(frozen=True, slots=True)
class _Request:
    """What moto reads of a request of botocore's."""

    url: str
    headers: Mapping[str, Any]
    body: bytes


_make_any_request: Final[Callable[..., Any]] = vars(BaseClient)["_make_request"]


def _make_request(client: BaseClient, operation: Any, request: dict[str, Any], context: Any) -> Any:  # noqa: ANN401
    """The answer of moto, without a signature and what else HTTP would need on the way to it and back."""
    if operation.name in _OPERATIONS and _REGION.match(request["url"]) and not _BYTES.search(request["body"]):
        asked = _Request(request["url"], request["headers"], request["body"])
        answer = botocore_stubber(f"before-send.dynamodb.{operation.name}", asked)  # type: ignore[arg-type]
        if answer is not None:
            parts = {"headers": answer.headers, "body": answer.content, "status_code": answer.status_code}
            parsed = client._response_parser.parse(parts, operation.output_shape)  # type: ignore[attr-defined]
            if answer.status_code >= 300:
                client._endpoint._add_modeled_error_fields(parts, parsed, operation, client._response_parser)  # type: ignore[attr-defined]
            parsed["ResponseMetadata"]["RetryAttempts"] = 0
            return answer, parsed
    return _make_any_request(client, operation, request, context)


_transact_with_a_copy: Final[Callable[[DynamoDBBackend, list[Any]], None]] = DynamoDBBackend.transact_write_items


def _transact(backend: DynamoDBBackend, parts: list[dict[str, Any]]) -> None:
    """As moto does, which goes back to a copy of the table if it fails: here to copies of the items that it names."""
    before = [
        (table, place, copy.deepcopy(_item_at(table, *place)))
        for part in parts
        for table, place in _places(backend, part)
    ]
    try:
        _transact_with_a_copy(backend, parts)
    except BaseException:
        for table, place, item in before:
            _put_back(table, *place, item)
        raise


def _places(backend: DynamoDBBackend, part: Mapping[str, Any]) -> Iterator[tuple[Table, tuple[DynamoType, DynamoType]]]:
    """Where the item is that a part of a transaction is about; none if it names none, which moto refuses."""
    for of_operation in part.values():
        table = backend.tables.get(of_operation.get("TableName"))
        key = of_operation.get("Key") or of_operation.get("Item") or {}
        if table is not None and {table.hash_key_attr, table.range_key_attr} <= key.keys():
            yield table, (DynamoType(key[table.hash_key_attr]), DynamoType(key[table.range_key_attr]))


def _item_at(table: Table, hash_value: DynamoType, range_value: DynamoType) -> Item | None:
    items: Any = table.items
    item: Item | None = items.get(hash_value, {}).get(range_value)
    return item


def _put_back(table: Table, hash_value: DynamoType, range_value: DynamoType, item: Item | None) -> None:
    items: Any = table.items
    if item is not None:
        items[hash_value][range_value] = item
    elif hash_value in items:
        items[hash_value].pop(range_value, None)


def _copy_table(table: Table, memo: dict[int, Any]) -> Table:
    """Return the table itself where its items have copies of their own: in a transaction."""
    if table.range_key_attr is not None and table.stream_shard is None:
        return table
    copied: Any = Table.__new__(Table)
    memo[id(table)] = copied
    vars(copied).update(copy.deepcopy(vars(table), memo))
    return copied  # type: ignore[no-any-return]


class _Wanted(threading.local):
    """The attributes that the query of this thread asks for, until it has looked for its items."""

    attributes: tuple[tuple[str, DynamoType], ...] = ()


_wanted: Final = _Wanted()
_query_all: Final[Callable[..., Any]] = Table.query


def _query(table: Table, hash_key: DynamoType | None, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
    conditions = named.get("hash_key_conditions")
    _wanted.attributes = tuple(conditions or ())
    try:
        return _query_all(table, hash_key, *arguments, **named)
    finally:
        _wanted.attributes = ()


def _items_in_order(table: Table) -> list[Item]:
    """The items that a query may find, or all, by their keys: their values are compared, not what is around them."""
    wanted = dict(_wanted.attributes)
    items: list[Any] = []
    if (hash_value := wanted.pop(table.hash_key_attr, None)) is not None and table.range_key_attr:
        items.extend(table.items.get(hash_value, {}).values())
    else:
        for of_hash_key in table.items.values():
            items.extend(of_hash_key.values() if table.range_key_attr else [of_hash_key])
    for name, value in wanted.items():
        items = [item for item in items if name in item.attrs and item.attrs[name] == value]
    return sorted(items, key=_place)


def _place(item: Any) -> Any:  # noqa: ANN401
    hash_value = item.hash_key.cast_value
    return (hash_value, item.range_key.cast_value) if item.range_key else hash_value


_project_anything: Final[Callable[[Item, list[list[str]]], Item]] = Item.project


def _project(item: Item, expressions: list[list[str]]) -> Item:
    """The item with some of its attributes, which moto makes Python of and back; parts of attributes as moto does."""
    if any(len(expression) != 1 or "[" in expression[0] for expression in expressions):
        return _project_anything(item, expressions)
    projected = Item(item.hash_key, item.range_key, attrs={})
    for (name,) in expressions:
        if name in item.attrs:
            dict.__setitem__(projected.attrs, name, copy.deepcopy(item.attrs[name]))
    return projected


#: What stands in for what: the owner, the name, the replacement.
REPLACEMENTS: Final[tuple[tuple[Any, str, Any], ...]] = (
    (BaseClient, "_make_request", _make_request),
    (BotocoreStubber, "process_request", _process_request),
    (DynamoDBBackend, "transact_write_items", _transact),
    (Table, "__deepcopy__", _copy_table),
    (Table, "query", _query),
    (Table, "all_items", _items_in_order),
    (Item, "project", _project),
)
